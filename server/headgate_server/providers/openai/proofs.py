"""Where vendors put the proofs of a model's thinking, and the proto's places for them. Pure.

Gemini's OpenAI-compatible endpoint signs calls and texts in `extra_content.google.thought_signature`:
https://ai.google.dev/gemini-api/docs/thought-signatures. OpenRouter lists what its upstreams signed or
encrypted in `reasoning_details`:
https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.v1 import content_pb2
from headgate.wire import merge_into
from headgate_server.providers.encoding import Json

# The formats of proofs: our dialects' names, and OpenRouter's. Those that it alone has, such as
# "xai-responses-v1", are their own names here, too.
FORMATS = {
    "anthropic": "anthropic-claude-v1",
    "gemini": "google-gemini-v1",
    "openai_responses": "openai-responses-v1",
}
_KNOWN_FORMATS = frozenset(FORMATS.values())


class _Google(msgspec.Struct):
    thought_signature: str | None = None


class _ExtraContent(msgspec.Struct):
    google: _Google | None = None


_EXTRA_CONTENT = msgspec.json.Decoder(_ExtraContent)


def take_signature(members: dict[str, msgspec.Raw]) -> str | None:
    """Gemini's proof among unknown members. The member is taken out unless it says more than that."""
    raw = members.get("extra_content")
    if raw is None:
        return None
    try:
        google = _EXTRA_CONTENT.decode(raw).google
        if google is None or google.thought_signature is None:
            return None
        if msgspec.json.decode(raw) == extra_content(google.thought_signature):
            del members["extra_content"]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return google.thought_signature


def extra_content(signature: str) -> Json:
    """The member that carries Gemini's proof."""
    return {"google": {"thought_signature": signature}}


def reasoning_details(parts: Iterable[content_pb2.Part]) -> list[Json]:
    """What a message's parts say in `reasoning_details`: proofs, each with its text. May be empty."""
    details: list[Json] = []
    for part in parts:
        kind = part.WhichOneof("kind")
        if kind == "reasoning":
            details.extend(_details(part))
        elif kind == "tool_call" and part.thought_signature:
            details.append(
                {
                    "type": "reasoning.encrypted",
                    "data": part.thought_signature,
                    "id": part.tool_call.id,
                    "format": FORMATS["gemini"],
                }
            )
    for index, detail in enumerate(details):
        detail["index"] = index
    return details


def _details(part: content_pb2.Part) -> Iterable[Json]:
    thought = part.reasoning
    own: Json = {}
    if part.HasField("extra_json"):
        merge_into(own, part.extra_json)
    if not (thought.signature or thought.encrypted or thought.id):
        if "type" in own:
            yield own  # a kind of detail that only OpenRouter knows
        return
    form = FORMATS.get(thought.dialect, thought.dialect)
    if form and form not in _KNOWN_FORMATS and not form.endswith("-v1"):
        return  # a proof that OpenRouter cannot pass on
    shared: Json = {}
    if thought.HasField("id"):
        shared["id"] = thought.id
    if form:
        shared["format"] = form
    summary = bool(thought.encrypted) or "responses" in form
    if thought.text or thought.signature or not thought.encrypted:
        member = "summary" if summary else "text"
        first: Json = {"type": f"reasoning.{member}", member: thought.text}
        if thought.signature:
            first["signature"] = thought.signature
        yield own | first | shared
        own = {}
    if thought.encrypted:
        yield own | {"type": "reasoning.encrypted", "data": thought.encrypted} | shared


def joined_details(pieces: list[msgspec.Raw]) -> list[msgspec.Raw]:
    """The `reasoning_details` of a stream, each whole: texts come in pieces under one index."""
    joined: list[Any] = []
    try:
        decoded = [msgspec.json.decode(raw) for raw in pieces]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return pieces
    for piece in decoded:
        last = joined[-1] if joined else None
        kind = piece.get("type") if isinstance(piece, dict) else None
        member = _TEXT_MEMBERS.get(kind) if isinstance(kind, str) else None
        if (
            member is not None
            and isinstance(last, dict)
            and last.get("type") == kind
            and last.get("index") == piece.get("index")
            and not last.get("signature")
            and isinstance(before := last.get(member) or "", str)
            and isinstance(more := piece.get(member) or "", str)
        ):
            told = {key: value for key, value in piece.items() if value is not None}
            joined[-1] = {**last, **told, member: before + more}
        else:
            joined.append(piece)
    return [msgspec.Raw(msgspec.json.encode(detail)) for detail in joined]


_TEXT_MEMBERS = {"reasoning.text": "text", "reasoning.summary": "summary"}
