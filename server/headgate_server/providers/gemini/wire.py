"""The shapes of a GenerateContentResponse, whole or as a chunk of a stream.

Every member is optional: proto JSON leaves defaults out, and both APIs leave out what does not apply.
Members that no field names end up in the `extra` slots and travel on to the caller. Source:
https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference.
"""

from __future__ import annotations

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_server.providers.shapes import ABSENT, Number
from headgate_server.providers.shapes import CamelWire as Wire


class BlobWire(Wire):
    """Media as they are."""

    mime_type: str = ""
    data: bytes = b""  # base64 on the wire
    extra: Extra = extra_slot()


class FileDataWire(Wire):
    """Media elsewhere."""

    mime_type: str = ""
    file_uri: str = ""
    extra: Extra = extra_slot()


class PartialArgWire(Wire):
    """A piece of a call's arguments, at its place (Vertex AI, if asked for)."""

    json_path: str = ""
    string_value: str | None = None
    number_value: Number | None = None
    bool_value: bool | None = None
    null_value: msgspec.Raw = ABSENT  # null, or the enum's only name
    will_continue: bool | None = None
    extra: Extra = extra_slot()


class FunctionCallWire(Wire):
    """A call; with `will_continue` or `partial_args` a piece of one."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = ABSENT
    partial_args: list[PartialArgWire] | None = None
    will_continue: bool | None = None
    extra: Extra = extra_slot()


class PartWire(Wire):
    """One piece of the content, of the kind whose member is set."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: BlobWire | None = None
    file_data: FileDataWire | None = None
    function_call: FunctionCallWire | None = None
    executable_code: msgspec.Raw = ABSENT
    code_execution_result: msgspec.Raw = ABSENT
    tool_call: msgspec.Raw = ABSENT
    tool_response: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class ContentWire(Wire):
    """What the model says."""

    parts: list[PartWire] | None = None
    role: str | None = None
    extra: Extra = extra_slot()


class CandidateWire(Wire):
    """One answer, or a chunk of it."""

    content: ContentWire | None = None
    finish_reason: str | None = None
    index: Number | None = None
    logprobs_result: msgspec.Raw = ABSENT
    # Known, yet passed on as they are: naming them saves the search for unknown members.
    grounding_metadata: msgspec.Raw = ABSENT
    citation_metadata: msgspec.Raw = ABSENT
    safety_ratings: msgspec.Raw = ABSENT
    url_context_metadata: msgspec.Raw = ABSENT
    finish_message: msgspec.Raw = ABSENT
    avg_logprobs: msgspec.Raw = ABSENT
    token_count: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class UsageWire(Wire):
    """Tokens used; in a stream, so far."""

    prompt_token_count: Number | None = None
    candidates_token_count: Number | None = None
    thoughts_token_count: Number | None = None
    tool_use_prompt_token_count: Number | None = None
    cached_content_token_count: Number | None = None
    total_token_count: Number | None = None
    prompt_tokens_details: msgspec.Raw = ABSENT
    candidates_tokens_details: msgspec.Raw = ABSENT
    cache_tokens_details: msgspec.Raw = ABSENT
    tool_use_prompt_tokens_details: msgspec.Raw = ABSENT
    traffic_type: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


class ResponseWire(Wire):
    """A GenerateContentResponse."""

    candidates: list[CandidateWire] | None = None
    prompt_feedback: msgspec.Raw = ABSENT
    usage_metadata: UsageWire | None = None
    model_version: str | None = None
    response_id: str | None = None
    create_time: str | None = None
    error: msgspec.Raw = ABSENT
    extra: Extra = extra_slot()


RESPONSE = ShapeDecoder(ResponseWire)


# What is read besides passing it on. Not strict: the whole travels in the extras anyway.


class Loose(msgspec.Struct, rename="camel", gc=False):
    """The base of shapes whose unknown members are not missed."""


class PromptFeedback(Loose):
    """Why there is no answer."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class ModalityTokens(Loose):
    """Tokens of one modality."""

    modality: str = ""
    token_count: Number = 0


class LogprobCandidate(Loose):
    """A token and how likely it was."""

    token: str = ""
    log_probability: Number = 0.0


class TopCandidates(Loose):
    """The most likely tokens at one place."""

    candidates: list[LogprobCandidate] = []


class LogprobsResult(Loose):
    """Log probabilities, place by place."""

    chosen_candidates: list[LogprobCandidate] = []
    top_candidates: list[TopCandidates] = []


class Segment(Loose):
    """A stretch of a part, in bytes of UTF-8."""

    part_index: int = 0
    start_index: int = 0
    end_index: int = 0
    text: str = ""


class GroundingSupport(Loose):
    """Which sources back a stretch."""

    segment: Segment | None = None
    grounding_chunk_indices: list[int] = []


class Source(Loose):
    """Where a statement comes from."""

    uri: str = ""
    title: str = ""


class GroundingChunk(Loose):
    """A source of one kind or another."""

    web: Source | None = None
    maps: Source | None = None
    retrieved_context: Source | None = None


class Grounding(Loose):
    """What groundingMetadata says about sources."""

    grounding_chunks: list[GroundingChunk] = []
    grounding_supports: list[GroundingSupport] = []


class Count(Loose):
    """The answer of the method that counts."""

    total_tokens: int


COUNT = ShapeDecoder(Count)
PROMPT_FEEDBACK = msgspec.json.Decoder(PromptFeedback)
MODALITY_TOKENS = msgspec.json.Decoder(list[ModalityTokens])
LOGPROBS = msgspec.json.Decoder(LogprobsResult)
GROUNDING = msgspec.json.Decoder(Grounding)
