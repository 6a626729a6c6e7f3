"""What a GenerateContentResponse says about the answer beside its parts. Pure.

Finish reasons, tokens, log probabilities, a blocked prompt, the members that are passed on. Sources:
https://ai.google.dev/api/generate-content#FinishReason, `#UsageMetadata`, `#PromptFeedback`, and for
Vertex AI https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference#response-body.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.errors import ContentFiltered, UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, json_text, raw_array, raw_object
from headgate_server.providers.gemini.errors import error_in_body
from headgate_server.providers.gemini.wire import (
    LOGPROBS,
    MODALITY_TOKENS,
    PROMPT_FEEDBACK,
    RESPONSE,
    CandidateWire,
    LogprobCandidate,
    Number,
    ResponseWire,
    UsageWire,
)

_FILTERED = (
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MODEL_ARMOR",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
)
FINISH_REASONS = {
    "STOP": chat_pb2.FINISH_REASON_STOP,
    "MAX_TOKENS": chat_pb2.FINISH_REASON_LENGTH,
    # The bound of one request; the candidate's continuationToken would let another go on.
    "CONTINUATION": chat_pb2.FINISH_REASON_LENGTH,
    **dict.fromkeys(_FILTERED, chat_pb2.FINISH_REASON_CONTENT_FILTER),
}
_NO_REASON = (None, "", "FINISH_REASON_UNSPECIFIED")

# usageMetadata.trafficType, on Vertex AI.
_TIERS = {
    "ON_DEMAND": "default",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
}
_MAX_CANDIDATES = 128

Members = dict[str, msgspec.Raw]


def parse(data: bytes) -> ResponseWire:
    """One response object; an error object in its place is raised."""
    try:
        wire = RESPONSE.decode(data)
    except MalformedJson as error:
        found = error_in_body(data) if error.is_json else None
        raise found or malformed(error) from error
    if present(wire.error):
        raise error_in_body(data) or UpstreamProtocol("the upstream sent an error of unknown form")
    return wire


def malformed(error: Exception) -> UpstreamProtocol:
    """One wording for whatever is wrong with the text."""
    return UpstreamProtocol(f"the upstream's answer is malformed: {error}")


def present(value: msgspec.Raw) -> bool:
    """Whether a member is there, and not null."""
    return bytes(value) not in (b"", b"null")


def blocked_prompt(wire: ResponseWire) -> ContentFiltered | None:
    """The error for a prompt that the provider refused to answer."""
    if wire.candidates or not present(wire.prompt_feedback):
        return None
    feedback = _read(PROMPT_FEEDBACK, wire.prompt_feedback)
    if feedback is None or not feedback.block_reason:
        return None
    message = f"the provider blocked the prompt: {feedback.block_reason}"
    if feedback.block_reason_message:
        message += f" ({feedback.block_reason_message})"
    error = ContentFiltered(message)
    error.with_metadata(upstream_code=feedback.block_reason[:64])
    return error


def candidate_index(wire: CandidateWire, position: int) -> int:
    """A candidate's place."""
    index = position if wire.index is None else whole(wire.index)
    if not 0 <= index < _MAX_CANDIDATES:
        raise UpstreamProtocol(f"the upstream sent a candidate with index {index}")
    return index


def whole(number: Number) -> int:
    """An index or count."""
    value = int(number)
    if not -(2**31) <= value < 2**63:
        raise UpstreamProtocol("the upstream sent a number out of range")
    return value


def said_reason(wire: CandidateWire) -> str:
    """The provider's reason for the end; empty while there is none."""
    return "" if wire.finish_reason in _NO_REASON else str(wire.finish_reason)


def finish_reason(raw: str, *, calls: bool) -> chat_pb2.FinishReason.ValueType:
    """Our reason. A model that wants tools to be called says STOP, too."""
    reason = FINISH_REASONS.get(raw, chat_pb2.FINISH_REASON_OTHER)
    if calls and reason == chat_pb2.FINISH_REASON_STOP:
        return chat_pb2.FINISH_REASON_TOOL_CALLS
    return reason


def set_time(time: Any, text: str | None) -> None:
    """Sets a Timestamp, which only Vertex AI tells; without one it stays unset."""
    if text:
        try:
            time.FromJsonString(text)
        except ValueError as error:
            raise UpstreamProtocol(f"the upstream's time {text!r:.40} is none") from error


# Members that are passed on.


def candidate_members(wire: CandidateWire) -> Members:
    """What a candidate says beside its content, verbatim."""
    named = {
        "groundingMetadata": wire.grounding_metadata,
        "citationMetadata": wire.citation_metadata,
        "safetyRatings": wire.safety_ratings,
        "urlContextMetadata": wire.url_context_metadata,
        "finishMessage": wire.finish_message,
        "avgLogprobs": wire.avg_logprobs,
        "tokenCount": wire.token_count,
    }
    found = {name: value for name, value in named.items() if present(value)}
    if wire.extra:
        found.update(wire.extra)
    return found


def absorb(into: Members, more: Members) -> None:
    """Takes the members of a further chunk: later ones win.

    But metadata comes in pieces: an empty object says nothing, and what an earlier chunk said about
    grounding or citations stays.
    """
    for name, value in more.items():
        join = _JOINED.get(name) if name in into else None
        into[name] = value if join is None else join(into[name], value)


def _more_grounding(old: msgspec.Raw, new: msgspec.Raw) -> msgspec.Raw:
    try:
        return _encoded({**raw_object(bytes(old)), **raw_object(bytes(new))})
    except MalformedJson:
        return new


def _more_citations(old: msgspec.Raw, new: msgspec.Raw) -> msgspec.Raw:
    try:
        before, after = raw_object(bytes(old)), raw_object(bytes(new))
        merged = {**before, **after}
        for name in before.keys() & after.keys():
            fresh = raw_array(after[name])
            texts = {bytes(item) for item in fresh}
            kept = [item for item in raw_array(before[name]) if bytes(item) not in texts]
            merged[name] = _encoded(kept + fresh)
    except MalformedJson:
        return new
    return _encoded(merged)


_JOINED = {"groundingMetadata": _more_grounding, "citationMetadata": _more_citations}


def _encoded(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


# Tokens.


def counts(wire: UsageWire) -> bool:
    """Whether anything is counted; in some chunks there is only the kind of traffic."""
    return wire.prompt_token_count is not None or wire.total_token_count is not None


def decode_usage(wire: UsageWire, usage: chat_pb2.Usage) -> None:
    """Fills `usage`; details stay unset where the provider tells nothing."""
    tool_use = whole(wire.tool_use_prompt_token_count or 0)
    thoughts = whole(wire.thoughts_token_count or 0)
    usage.input_tokens = whole(wire.prompt_token_count or 0) + tool_use
    usage.output_tokens = whole(wire.candidates_token_count or 0) + thoughts
    total = wire.total_token_count
    usage.total_tokens = usage.input_tokens + usage.output_tokens if total is None else whole(total)
    if wire.cached_content_token_count is not None:
        usage.cached_input_tokens = whole(wire.cached_content_token_count)
    if wire.thoughts_token_count is not None:
        usage.reasoning_output_tokens = thoughts
    sound = _sound(wire.prompt_tokens_details)
    if sound is not None:
        usage.audio_input_tokens = sound
    sound = _sound(wire.candidates_tokens_details)
    if sound is not None:
        usage.audio_output_tokens = sound
    extra = json_text(_usage_members(wire))
    if extra:
        usage.extra_json = extra


def _sound(details: msgspec.Raw) -> int | None:
    if b'"AUDIO"' not in bytes(details):
        return None
    listed = _read(MODALITY_TOKENS, details)
    if listed is None:
        return None
    return sum(whole(entry.token_count) for entry in listed if entry.modality == "AUDIO")


def _usage_members(wire: UsageWire) -> Members:
    named = {
        "promptTokensDetails": wire.prompt_tokens_details,
        "candidatesTokensDetails": wire.candidates_tokens_details,
        "cacheTokensDetails": wire.cache_tokens_details,
        "toolUsePromptTokensDetails": wire.tool_use_prompt_tokens_details,
        "trafficType": wire.traffic_type,
    }
    found = {name: value for name, value in named.items() if present(value)}
    if wire.tool_use_prompt_token_count is not None:
        found["toolUsePromptTokenCount"] = _encoded(wire.tool_use_prompt_token_count)
    if wire.extra:
        found.update(wire.extra)
    return found


def service_tier(wire: UsageWire) -> str | None:
    """The tier that served the request, where the provider tells it among the tokens."""
    return _TIERS.get(bytes(wire.traffic_type).decode(errors="replace").strip('"'))


# Log probabilities.


def decode_logprobs(raw: msgspec.Raw) -> list[chat_pb2.TokenLogprob]:
    """The tokens of an answer, or of a chunk of one."""
    if not present(raw):
        return []
    try:
        result = LOGPROBS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed(error) from error
    tokens = [_token(chosen) for chosen in result.chosen_candidates]
    for token, place in zip(tokens, result.top_candidates, strict=False):
        for other in place.candidates:
            token.top.add(token=other.token, logprob=float(other.log_probability))
    return tokens


def _token(wire: LogprobCandidate) -> chat_pb2.TokenLogprob:
    return chat_pb2.TokenLogprob(token=wire.token, logprob=float(wire.log_probability))


def _read(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> Any:
    """A value that is passed on as it is, too, so that another form is no harm."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
