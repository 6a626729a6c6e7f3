"""The same target for the same key: what a request's key is, and how targets are ranked for it. Pure.

Rendezvous hashing: every target gets a number out of the key and its own name, the largest wins. When a
target goes, only its own keys move; when one comes, it takes a fair share of all others' (Thaler and
Ravishankar 1998; with weights, https://www.snia.org/sites/default/files/SDC15_presentations/dist_sys/Jason_Resch_New_Consistent_Hashings_Rev.pdf).
A bound on the load keeps a popular key from drowning its target (https://arxiv.org/abs/1608.01350).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from headgate.core import CallContext
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.config import Affinity

if TYPE_CHECKING:
    from headgate_server.routing.routes import Candidate

_SYSTEM = frozenset((content_pb2.ROLE_SYSTEM, content_pb2.ROLE_DEVELOPER))
_BITS = 52  # of a float's fraction, so that neither 0 nor 1 comes out


def key_of(request: chat_pb2.ChatRequest, context: CallContext, settings: Affinity) -> str:
    """What keeps the request together with others; empty if it has nothing of that kind."""
    if settings.by == "user":
        return request.user or request.safety_identifier
    if settings.by == "session":
        return header(context, settings.header)
    return _beginning(request, settings.prefix)


def header(context: CallContext, name: str) -> str:
    """The first of the caller's headers of that name; empty if there is none."""
    for given, value in context.headers:
        if given == name:
            return value
    return ""


def ranked(key: str, candidates: Sequence[Candidate], load: float) -> list[Candidate]:
    """The candidates, best first; those that are loaded beyond the bound behind all others.

    Args:
        key: what is hashed, with each target.
        candidates: at least one; those without a weight come last.
        load: how much above its share of all calls in flight a target may be loaded. At least one
            target always is not, since it is more than 1.
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    total_weight = sum(each.target.weight for each in candidates) or 1.0
    allowed = load * (sum(each.health.in_flight for each in candidates) + 1) / total_weight
    scored = []
    for each in candidates:
        target = each.target
        weight = target.weight
        score = weight / -math.log(_number(f"{target.provider}/{target.model}", digest))
        crowded = each.health.in_flight > math.ceil(allowed * weight)
        scored.append((weight <= 0, crowded, -score))
    return [candidates[place] for place in sorted(range(len(scored)), key=scored.__getitem__)]


def _number(name: str, digest: bytes) -> float:
    """A number between 0 and 1 that a target and a key always have together."""
    hashed = blake2b(digest + name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ((int.from_bytes(hashed, "big") >> (64 - _BITS)) + 0.5) / (1 << _BITS)


def _beginning(request: chat_pb2.ChatRequest, most: int) -> str:
    """How a conversation begins, cut to so many characters: system prompt, tools, first message."""
    text = ""
    opening: content_pb2.Message | None = None
    for message in request.messages:
        if message.role == content_pb2.ROLE_USER:
            opening = message
            break
        if message.role in _SYSTEM:
            text = _longer(text, message, most)
    for tool in request.tools:
        if len(text) >= most:
            break
        function = tool.function
        for piece in (function.name, function.description, function.parameters_json):
            text += f"\x1e{piece[:most]}"
        text += tool.provider_tool_json[:most]
    if opening is not None:
        text = _longer(text, opening, most)
    return text[:most] or request.text_completion.prompt_json[:most]


def _longer(text: str, message: content_pb2.Message, most: int) -> str:
    for part in message.parts:
        if len(text) >= most:
            break
        if part.text:
            text += f"\x1e{part.text[:most]}"
    return text
