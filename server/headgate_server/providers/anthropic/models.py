"""What this API's own parameters may be for each family of models, by the names in families.toml.

Owns the vendor's table of `thinking.type` values, and of the models that take a system message in the
middle of a conversation. Limits, efforts and refused tuning stand in families.toml.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting (the table of
configurations that each model rejects), .../build-with-claude/mid-conversation-system-messages,
.../models/sonnet-5-5/whats-new-sonnet-5-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ThinkingType = Literal["adaptive", "enabled", "disabled", "between_tools"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a family takes.

    Attributes:
        thinking: the accepted values of `thinking.type`; empty for models that cannot think.
        system_turns: whether a message of the conversation may have the role `system`.
    """

    thinking: frozenset[ThinkingType]
    system_turns: bool = False


def _facts(*thinking: ThinkingType, system_turns: bool = False) -> Facts:
    return Facts(frozenset(thinking), system_turns)


FACTS: Mapping[str, Facts] = MappingProxyType(
    {
        "claude-always-thinking": _facts("adaptive", system_turns=True),
        "claude-mythos-preview": _facts("adaptive", "enabled"),
        "claude-sonnet-5.5": _facts("adaptive", "between_tools", system_turns=True),
        "claude-5": _facts("adaptive", "disabled", system_turns=True),
        "claude-adaptive": _facts("adaptive", "disabled"),
        "claude-opus-4.6": _facts("adaptive", "enabled", "disabled"),
        "claude-sonnet-4.6": _facts("adaptive", "enabled", "disabled"),
        "claude-opus-4.5": _facts("enabled", "disabled"),
        "claude-4.5": _facts("enabled", "disabled"),
        "claude-sonnet-4": _facts("enabled", "disabled"),
        "claude-opus-4": _facts("enabled", "disabled"),
        "claude-3.7": _facts("enabled", "disabled"),
        "claude-3": _facts(),
        # A name that no other family matches is newer than this table.
        "claude": _facts("adaptive", "disabled"),
    }
)

# Other vendors that speak this dialect know its first form at least.
ELSEWHERE = _facts("enabled", "disabled")


def facts_of(family: str) -> Facts:
    """What a family takes."""
    return FACTS.get(family, ELSEWHERE)
