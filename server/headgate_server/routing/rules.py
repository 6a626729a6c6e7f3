"""The rules in front of the models: conditions, shares for canaries, shadows. Pure.

Owns what a rule asks of a request. A rule is applied once, to the name that the caller asked for: where
it leads to, no rule is looked at again, so that rules cannot go in circles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from headgate.core import CallContext
from headgate.v1 import chat_pb2
from headgate_server.auth import Caller
from headgate_server.catalog import kinds_of_input
from headgate_server.config import RouteRule, When
from headgate_server.globs import any_of
from headgate_server.routing.affinity import header
from headgate_server.routing.routes import Route

_SESSION = "x-session-id"
_BITS = 53
_MAX_OUTLINES = 4096


class Outline(NamedTuple):
    """What most rules can be told by that have nothing to do with a request.

    Attributes:
        model: the name that was asked for.
        tenant: the caller's.
        headers, metadata, tools: whether there are any.
        plain: every message is one text.
    """

    model: str
    tenant: str
    headers: bool
    metadata: bool
    tools: bool
    plain: bool


class Asked:
    """A request as conditions see it.

    Args:
        request, context, caller: of the call.
        tokens: estimates those of a prompt.

    Attributes:
        plain: every message is one text, as in nearly all requests.
    """

    __slots__ = ("_kinds", "_tokens", "caller", "context", "plain", "request")

    def __init__(
        self,
        request: chat_pb2.ChatRequest,
        context: CallContext,
        caller: Caller,
        tokens: Callable[[chat_pb2.ChatRequest], int],
    ) -> None:
        self.request = request
        self.context = context
        self.caller = caller
        self._tokens = tokens
        self._kinds: frozenset[str] | None = None
        self.plain = _is_plain(request)

    def outline(self) -> Outline:
        """What is seen at a glance."""
        request = self.request
        return Outline(
            request.model,
            self.caller.tenant,
            len(self.context.headers) > 0,
            len(request.metadata) > 0,
            len(request.tools) > 0,
            self.plain,
        )

    def at_most(self) -> float:
        """A bound of the tokens that costs no walk through the prompt; infinite if it is not plain."""
        return 4 * self.request.ByteSize() + 64 if self.plain else math.inf

    def tokens(self) -> int:
        """The prompt's, estimated."""
        return self._tokens(self.request)

    def kinds(self) -> frozenset[str]:
        """The modalities of its input."""
        if self._kinds is None:
            self._kinds = kinds_of_input(self.request)
        return self._kinds


Condition = Callable[[Asked], object]


class Rule(msgspec.Struct, frozen=True, eq=False):
    """A routing rule.

    Attributes:
        name: for explanations; it also goes into the hash of shares.
        may_match: whether requests of an outline can match at all.
        conditions: what is left to look at then; all must hold, the cheapest first.
        share: of the requests that match.
        use: what serves them, if the rule says so.
        shadow: what gets a copy, if the rule says so.
    """

    name: str
    may_match: Callable[[Outline], bool]
    conditions: Sequence[Condition]
    share: float
    use: Route | None
    shadow: Route | None

    def matches(self, asked: Asked) -> bool:
        """Whether all conditions hold."""
        for condition in self.conditions:  # noqa: SIM110 - half the cost of all(), for each rule of a call
            if not condition(asked):
                return False
        return True

    def takes(self, asked: Asked, dice: Callable[[], float]) -> bool:
        """Whether a request that matches is within the share.

        Sticky: the same user, else the same session, else the same caller, is always in or always out;
        who is in stays so when the share grows. A request of nobody in particular goes by the dice.
        """
        if self.share >= 1:
            return True
        who = _who(asked)
        place = _place(self.name, who) if who else dice()
        return place < self.share


class Rules:
    """The rules of a configuration, and which of them concern requests of which outline.

    Args:
        rules: in order.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._concerned: dict[Outline, tuple[Rule, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def concerning(self, outline: Outline) -> tuple[Rule, ...]:
        """The rules that requests of this outline may match, in order."""
        found = self._concerned.get(outline)
        if found is None:
            if len(self._concerned) >= _MAX_OUTLINES:
                self._concerned.clear()  # callers may name any model
            found = tuple(rule for rule in self._rules if rule.may_match(outline))
            self._concerned[outline] = found
        return found


def rules_of(config: Sequence[RouteRule], route: Callable[[str], Route]) -> Rules:
    """The rules of the configuration. Raises `ModelNotFound` if one leads nowhere.

    Args:
        config: the rules.
        route: finds the models that they name.
    """
    return Rules(
        [
            Rule(
                name=each.name or f"rule-{number}",
                may_match=_at_a_glance(each.when),
                conditions=_conditions(each.when),
                share=each.share,
                use=route(each.use) if each.use is not None else None,
                shadow=route(each.shadow) if each.shadow is not None else None,
            )
            for number, each in enumerate(config, 1)
        ]
    )


def decide(
    rules: Rules, asked: Asked, dice: Callable[[], float], notes: list[str] | None
) -> tuple[Route | None, Route | None]:
    """What the rules make of a request: the model to use, and the one that gets a copy.

    Args:
        rules: in order. The first that matches and names a model to use decides and ends the search; of
            the shadows before it (and its own), the first counts.
        asked: the request.
        dice: returns a number from 0 to 1.
        notes: gets a line for each rule that had a say.
    """
    shadow: Route | None = None
    for rule in rules.concerning(asked.outline()):
        if rule.use is None and shadow is not None:
            continue
        if not rule.matches(asked):
            continue
        if not rule.takes(asked, dice):
            if notes is not None:
                notes.append(f"rule {rule.name!r} matches, but not its share of {rule.share:.4g}")
            continue
        if shadow is None and rule.shadow is not None:
            shadow = rule.shadow
            if notes is not None:
                notes.append(f"rule {rule.name!r} sends a copy to {shadow.name!r}")
        if rule.use is not None:
            if notes is not None:
                notes.append(f"rule {rule.name!r} leads to {rule.use.name!r}")
            return rule.use, shadow
    return None, shadow


def _who(asked: Asked) -> str:
    request = asked.request
    return (
        request.user
        or request.safety_identifier
        or header(asked.context, _SESSION)
        or asked.caller.name
    )


@functools.lru_cache(maxsize=4096)
def _place(rule: str, who: str) -> float:
    """A number from 0 to 1, not 1 itself, that somebody always has for a rule."""
    hashed = blake2b(f"{rule}\0{who}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(hashed, "big") >> (64 - _BITS)) / (1 << _BITS)


def _is_plain(request: chat_pb2.ChatRequest) -> bool:
    if request.HasField("text_completion"):
        return False
    for message in request.messages:
        parts = message.parts
        if len(parts) != 1 or parts[0].WhichOneof("kind") != "text":
            return False
    return True


def _at_a_glance(when: When) -> Callable[[Outline], bool]:
    """A test that is false for outlines whose requests cannot match."""
    model = any_of(when.model) if when.model is not None else None
    tenant = any_of(when.tenant) if when.tenant is not None else None

    def may_match(outline: Outline) -> bool:
        if model is not None and not model(outline.model):
            return False
        if tenant is not None and not tenant(outline.tenant):
            return False
        if (when.headers and not outline.headers) or (when.metadata and not outline.metadata):
            return False
        if when.tools is not None and when.tools is not outline.tools:
            return False
        return when.modality is None or "text" in when.modality or not outline.plain

    return may_match


def _conditions(when: When) -> tuple[Condition, ...]:
    """What must be looked at in the request itself."""
    found: list[Condition] = []
    found += [_header(name, any_of(globs)) for name, globs in (when.headers or {}).items()]
    found += [_metadata(name, any_of(globs)) for name, globs in (when.metadata or {}).items()]
    if when.modality is not None:
        wanted = frozenset(when.modality)
        found.append(lambda asked: not wanted.isdisjoint(asked.kinds()))
    if when.tokens is not None:
        found.append(_length(when.tokens.min or 0, when.tokens.max))
    return tuple(found)


def _header(name: str, fits: Callable[[str], object]) -> Condition:
    return lambda asked: any(fits(value) for given, value in asked.context.headers if given == name)


def _metadata(name: str, fits: Callable[[str], object]) -> Condition:
    def holds(asked: Asked) -> object:
        labels: Mapping[str, str] = asked.request.metadata
        return name in labels and fits(labels[name])

    return holds


def _length(least: int, most: int | None) -> Condition:
    def holds(asked: Asked) -> bool:
        if asked.at_most() < least:
            return False
        tokens = asked.tokens()
        return least <= tokens and (most is None or tokens <= most)

    return holds
