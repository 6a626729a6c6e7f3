"""The proofs of a model's thinking, in the two places that chat completions have for them. Pure.

`reasoning_details` is OpenRouter's list of what was thought, signed or encrypted; its `format` says whose
proof it is, and so is the place for `Reasoning.dialect`:
https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks. Gemini's signatures of
calls, texts and images stand in `extra_content.google.thought_signature`:
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import MalformedJson, json_text, merge_into, raw_text
from headgate_facade.openai.carried import REASONING_DETAIL, ReasoningDetail

Json = dict[str, Any]

# Dialects to the formats that OpenRouter's clients know. Others go by their own names, both ways.
FORMATS = {
    "anthropic": "anthropic-claude-v1",
    "gemini": "google-gemini-v1",
    "openai_responses": "openai-responses-v1",
}
_DIALECTS = {form: dialect for dialect, form in FORMATS.items()} | {"unknown": ""}
_TEXT_KINDS = ("reasoning.text", "reasoning.summary")


def has_proof(reasoning: content_pb2.Reasoning) -> bool:
    """Whether there is something that must come back unchanged."""
    return bool(reasoning.signature or reasoning.encrypted or reasoning.id)


def write_details(part: content_pb2.Part, dialect: str, first: int) -> list[Json]:
    """A reasoning part as details.

    Args:
        part: a reasoning part, whole.
        dialect: the dialect of the provider that answered, where the part does not say.
        first: the index of the first detail.
    """
    thought = part.reasoning
    form = FORMATS.get(thought.dialect or dialect, thought.dialect or dialect)
    # An item of the Responses API is a summary and what only its maker can read, in one.
    summary = bool(thought.encrypted) or "responses" in form
    details: list[Json] = []
    if thought.text or thought.signature or not thought.encrypted:
        kind = "summary" if summary else "text"
        details.append({"type": f"reasoning.{kind}", kind: thought.text})
        if thought.signature:
            details[-1]["signature"] = thought.signature
    if thought.encrypted:
        details.append({"type": "reasoning.encrypted", "data": thought.encrypted})
    for place, detail in enumerate(details):
        if thought.HasField("id"):
            detail["id"] = thought.id
        if form:
            detail["format"] = form
        detail["index"] = first + place
    if part.thought_signature:
        details[-1]["extra_content"] = extra_content(part.thought_signature)
    if part.HasField("extra_json"):
        merge_into(details[-1], part.extra_json)
    return details


def read_details(
    raws: Sequence[msgspec.Raw], path: str, call_ids: Iterable[str]
) -> tuple[list[content_pb2.Part], dict[str, str]]:
    """The reasoning parts behind the details, and Gemini's signatures by the ids of their calls.

    Clients that collected a stream send its pieces as they came, or joined; both are understood.

    Raises:
        InvalidRequest: a detail is none.
    """
    parts: list[content_pb2.Part] = []
    texts: list[list[str]] = []  # of each part, in the pieces that came
    signatures: dict[str, str] = {}
    calls = frozenset(call_ids)
    last: ReasoningDetail | None = None
    for place, raw in enumerate(raws):
        try:
            detail = REASONING_DETAIL.decode(bytes(raw))
        except MalformedJson as error:
            where = f"{path}[{place}]"
            where = f"{where}.{error.path}" if error.path else where
            raise InvalidRequest.of(where, error.problem) from error
        if detail.format == FORMATS["gemini"] and detail.data and detail.id in calls:
            signatures[detail.id] = detail.data
            continue
        if last is None or not _continues(detail, last, parts[-1].reasoning):
            parts.append(content_pb2.Part(reasoning=content_pb2.Reasoning()))
            texts.append([])
        if detail.type in _TEXT_KINDS:
            texts[-1].append(detail.text or detail.summary or "")
        _take(detail, raw, parts[-1])
        last = detail
    for part, pieces in zip(parts, texts, strict=True):
        part.reasoning.text = "".join(pieces)
    return parts, signatures


def _continues(
    detail: ReasoningDetail, last: ReasoningDetail, thought: content_pb2.Reasoning
) -> bool:
    """Whether this is the next piece of the same text, or the encrypted half of a summary."""
    if detail.type in _TEXT_KINDS:
        joined = detail.index is not None and detail.index == last.index
        return detail.type == last.type and joined and not thought.signature
    same = (detail.format, detail.id) == (last.format, last.id)
    return detail.type == "reasoning.encrypted" and last.type == "reasoning.summary" and same


def _take(detail: ReasoningDetail, raw: msgspec.Raw, part: content_pb2.Part) -> None:
    thought = part.reasoning
    members = dict(detail.extra or {})
    if detail.type == "reasoning.encrypted":
        thought.encrypted = detail.data or ""
    elif detail.type not in _TEXT_KINDS:
        part.extra_json = raw_text(raw) or ""  # of a kind that only its vendor knows
        return
    if detail.signature:
        thought.signature = detail.signature
    if detail.id is not None:
        thought.id = detail.id
    if dialect := _DIALECTS.get(detail.format or "", detail.format):
        thought.dialect = dialect
    if (signature := take_signature(members)) is not None:
        part.thought_signature = signature
    if extra := json_text(members):
        part.extra_json = extra


class _Google(msgspec.Struct):
    thought_signature: str | None = None


class _ExtraContent(msgspec.Struct):
    google: _Google | None = None


_EXTRA_CONTENT = msgspec.json.Decoder(_ExtraContent)


def extra_content(signature: str) -> Json:
    """The member that carries Gemini's proof."""
    return {"google": {"thought_signature": signature}}


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
