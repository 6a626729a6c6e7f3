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
from headgate.wire import MalformedJson, raw_array, raw_object
from headgate_server.providers.counts import count
from headgate_server.providers.faults import malformed, parse
from headgate_server.providers.gemini.errors import error_in_body
from headgate_server.providers.gemini.wire import (
    COUNT,
    LOGPROBS,
    MODALITY_TOKENS,
    PROMPT_FEEDBACK,
    RESPONSE,
    CandidateWire,
    LogprobCandidate,
    ResponseWire,
    UsageWire,
)
from headgate_server.providers.shapes import Members, as_raw, is_there, keep, there

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


def read(data: bytes) -> ResponseWire:
    """One response object; an error object in its place is raised."""
    wire = parse(RESPONSE, data, error_in_body)
    if is_there(wire.error):
        raise error_in_body(data) or UpstreamProtocol("the upstream sent an error of unknown form")
    return wire


def decode_count(body: bytes) -> int:
    """The number of a prompt's tokens. Raises `GatewayError` for anything else."""
    return count(parse(COUNT, body, error_in_body).total_tokens)


def blocked_prompt(wire: ResponseWire) -> ContentFiltered | None:
    """The error for a prompt that the provider refused to answer."""
    if wire.candidates or not is_there(wire.prompt_feedback):
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
    index = position if wire.index is None else count(wire.index)
    if index >= _MAX_CANDIDATES:
        raise UpstreamProtocol(f"the upstream sent a candidate with index {index}")
    return index


def said_reason(wire: CandidateWire) -> str:
    """The provider's reason for the end; empty while there is none."""
    return "" if wire.finish_reason in _NO_REASON else str(wire.finish_reason)


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
    return {**there(named), **(wire.extra or {})}


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
        return as_raw({**raw_object(bytes(old)), **raw_object(bytes(new))})
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
            merged[name] = as_raw(kept + fresh)
    except MalformedJson:
        return new
    return as_raw(merged)


_JOINED = {"groundingMetadata": _more_grounding, "citationMetadata": _more_citations}


# Tokens.


def counts(wire: UsageWire) -> bool:
    """Whether anything is counted; in some chunks there is only the kind of traffic."""
    return wire.prompt_token_count is not None or wire.total_token_count is not None


def decode_usage(wire: UsageWire, usage: chat_pb2.Usage) -> None:
    """Fills `usage`; details stay unset where the provider tells nothing."""
    thoughts = count(wire.thoughts_token_count)
    usage.input_tokens = count(wire.prompt_token_count) + count(wire.tool_use_prompt_token_count)
    usage.output_tokens = count(wire.candidates_token_count) + thoughts
    total = wire.total_token_count
    usage.total_tokens = usage.input_tokens + usage.output_tokens if total is None else count(total)
    if wire.cached_content_token_count is not None:
        usage.cached_input_tokens = count(wire.cached_content_token_count)
    if wire.thoughts_token_count is not None:
        usage.reasoning_output_tokens = thoughts
    if (sound := _sound(wire.prompt_tokens_details)) is not None:
        usage.audio_input_tokens = sound
    if (sound := _sound(wire.candidates_tokens_details)) is not None:
        usage.audio_output_tokens = sound
    keep(usage, _usage_members(wire))


def _sound(details: msgspec.Raw) -> int | None:
    if b'"AUDIO"' not in bytes(details):
        return None
    listed = _read(MODALITY_TOKENS, details)
    if listed is None:
        return None
    return sum(count(entry.token_count) for entry in listed if entry.modality == "AUDIO")


def _usage_members(wire: UsageWire) -> Members:
    found = there(
        {
            "promptTokensDetails": wire.prompt_tokens_details,
            "candidatesTokensDetails": wire.candidates_tokens_details,
            "cacheTokensDetails": wire.cache_tokens_details,
            "toolUsePromptTokensDetails": wire.tool_use_prompt_tokens_details,
            "trafficType": wire.traffic_type,
        }
    )
    if wire.tool_use_prompt_token_count is not None:
        found["toolUsePromptTokenCount"] = as_raw(wire.tool_use_prompt_token_count)
    return {**found, **(wire.extra or {})}


def service_tier(wire: UsageWire) -> str | None:
    """The tier that served the request, where the provider tells it among the tokens."""
    return _TIERS.get(bytes(wire.traffic_type).decode(errors="replace").strip('"'))


# Log probabilities.


def decode_logprobs(raw: msgspec.Raw) -> list[chat_pb2.TokenLogprob]:
    """The tokens of an answer, or of a chunk of one."""
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
