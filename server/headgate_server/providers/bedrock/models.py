"""What translation must know about the model families behind Converse. Pure.

Converse has one request for all models, but what a model takes beyond it, and whose proofs of thinking it
makes, is its maker's matter. A model addressed by an opaque ARN (an application inference profile) has an
unknown family, and is treated as what Converse documents for all.
"""

from __future__ import annotations

from urllib.parse import quote

from headgate_server.providers.base import Target
from headgate_server.providers.vendors import ThinkingType

# Cross-region inference profiles put one of these in front of the foundation model's id:
# https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html
GEOGRAPHIES = ("us", "us-gov", "eu", "apac", "jp", "au", "ca", "global")


def is_claude(target: Target) -> bool:
    """Whether the model is Anthropic's."""
    return target.family.name.startswith("claude")


def is_nova(target: Target) -> bool:
    """Whether the model is Amazon's."""
    return target.family.name.startswith("nova")


def thinking_types(target: Target) -> frozenset[ThinkingType]:
    """The accepted values of Claude's `thinking.type`; empty for models that cannot think.

    https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html: here the
    first Mythos takes no budget.
    """
    known = frozenset(target.family.thinking_types)
    return known - {"enabled"} if target.family.name == "claude-mythos-preview" else known


def proof_dialect(target: Target) -> str:
    """Whose the proofs of this model's thinking are: Claude's hold on all of Anthropic's platforms."""
    return "anthropic" if is_claude(target) else "bedrock"


def caches(target: Target) -> bool:
    """Whether cache points have an effect; other models refuse them.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    return is_claude(target) or is_nova(target) or _is_opaque(target.model)


def _is_opaque(model: str) -> bool:
    return ":application-inference-profile/" in model


def model_path(model: str) -> str:
    """The model's id as one segment of a path, as AWS's own SDKs write it."""
    return quote(model, safe="-._~")


def foundation_model(model: str) -> str:
    """The model behind a cross-region profile, for calls that take no profiles; else the same id."""
    name = model.rpartition("/")[2] if ":inference-profile/" in model else model
    geography, dot, rest = name.partition(".")
    # "us.anthropic.claude-..." against "anthropic.claude-...".
    return rest if dot and geography in GEOGRAPHIES else name


def is_counted(target: Target) -> bool:
    """Whether CountTokens knows the model; newer ones it does not, nor those of other makers.

    https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html
    """
    return target.family.name in _COUNTED


_COUNTED = {
    *("claude-3", "claude-3.7", "claude-sonnet-4", "claude-opus-4", "claude-4.5"),
    *("claude-opus-4.5", "claude-opus-4.6", "claude-sonnet-4.6"),
}
