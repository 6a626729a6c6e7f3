"""The shape of a Gemini request, strict where only the right kind of value makes sense.

Source: https://ai.google.dev/api/generate-content and https://ai.google.dev/api/caching (Content, Tool,
ToolConfig). Bodies are proto JSON (https://protobuf.dev/programming-guides/json/): members are spelled in
camelCase or in snake_case, and one item may stand where a list is meant. Members that no field names
travel on in the `extra` slots; `Raw` members are Gemini's own business and travel as they are.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec

from headgate.wire import Extra, extra_slot
from headgate_facade.gemini.spelling import ProtoJsonDecoder

ABSENT = msgspec.Raw()


def _maybe() -> Any:
    """The default of a raw member. A factory, because msgspec cannot put a plain one into a schema."""
    return msgspec.field(default_factory=lambda: ABSENT)


# Google's SDK for Python writes some whole numbers as 40.0, which proto JSON allows.
Whole = int | float


class Wire(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """The base of the shapes."""


# Contents.


class Blob(Wire):
    """Bytes in base64, and their media type."""

    mime_type: str | None = None
    data: str | None = None
    display_name: str | None = None
    extra: Extra = extra_slot()


class FileData(Wire):
    """A reference to bytes."""

    mime_type: str | None = None
    file_uri: str | None = None
    display_name: str | None = None
    extra: Extra = extra_slot()


class FunctionCall(Wire):
    """A call that the model asked for earlier."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class FunctionResponsePart(Wire):
    """Media in the outcome of a call."""

    inline_data: Blob | None = None
    file_data: FileData | None = None
    extra: Extra = extra_slot()


class FunctionResponse(Wire):
    """The outcome of a call."""

    id: str | None = None
    name: str | None = None
    response: msgspec.Raw = _maybe()
    parts: list[FunctionResponsePart] | FunctionResponsePart | None = None
    will_continue: msgspec.Raw = _maybe()
    scheduling: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class Part(Wire):
    """A part of a content: one of the kinds, and what may be said of each kind."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    # Kinds that no other vendor has.
    executable_code: msgspec.Raw = _maybe()
    code_execution_result: msgspec.Raw = _maybe()
    tool_call: msgspec.Raw = _maybe()
    tool_response: msgspec.Raw = _maybe()
    # What may stand beside a kind.
    video_metadata: msgspec.Raw = _maybe()
    media_resolution: msgspec.Raw = _maybe()
    media_processing: msgspec.Raw = _maybe()
    part_metadata: msgspec.Raw = _maybe()
    speech_metadata: msgspec.Raw = _maybe()
    audio_transcription: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


_BESIDE_TEXT = [name for name in Part.__struct_fields__ if name != "text"]
_read_beside_text = attrgetter(*_BESIDE_TEXT)
_NOTHING_BESIDE_TEXT = _read_beside_text(Part())


def is_plain_text(part: Part) -> bool:
    """Whether the part is a text and nothing else, as most are."""
    return part.text is not None and bool(_read_beside_text(part) == _NOTHING_BESIDE_TEXT)


VENDOR_KINDS = ("executable_code", "code_execution_result", "tool_call", "tool_response")
BESIDES = (
    "video_metadata", "media_resolution", "media_processing", "part_metadata", "speech_metadata",
    "audio_transcription",
)  # fmt: skip


class Content(Wire):
    """A turn."""

    role: str | None = None
    parts: list[Part] | Part | None = None
    extra: Extra = extra_slot()


# Tools.


class FunctionDeclaration(Wire):
    """A function; its parameters are a `Schema` of Google's or a JSON Schema."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = _maybe()
    parameters_json_schema: msgspec.Raw = _maybe()
    behavior: msgspec.Raw = _maybe()
    response: msgspec.Raw = _maybe()
    response_json_schema: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class Tool(Wire):
    """Functions, and tools of Google's own, each under its own member."""

    function_declarations: list[FunctionDeclaration] | FunctionDeclaration | None = None
    google_search: msgspec.Raw = _maybe()
    google_search_retrieval: msgspec.Raw = _maybe()
    code_execution: msgspec.Raw = _maybe()
    url_context: msgspec.Raw = _maybe()
    computer_use: msgspec.Raw = _maybe()
    file_search: msgspec.Raw = _maybe()
    google_maps: msgspec.Raw = _maybe()
    mcp_servers: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


OWN_TOOLS = (
    "google_search", "google_search_retrieval", "code_execution", "url_context", "computer_use",
    "file_search", "google_maps", "mcp_servers",
)  # fmt: skip


class FunctionCallingConfig(Wire):
    """Which functions the model may or must call."""

    mode: str | None = None
    allowed_function_names: list[str] | str | None = None
    extra: Extra = extra_slot()


class ToolConfig(Wire):
    """How tools are used."""

    function_calling_config: FunctionCallingConfig | None = None
    retrieval_config: msgspec.Raw = _maybe()
    include_server_side_tool_invocations: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


# Options.


class ThinkingConfig(Wire):
    """How much to think, and whether to show it."""

    include_thoughts: bool | None = None
    thinking_budget: Whole | None = None
    thinking_level: str | None = None
    extra: Extra = extra_slot()


class GenerationConfig(Wire):
    """What shapes the answer."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    candidate_count: Whole | None = None
    max_output_tokens: Whole | None = None
    stop_sequences: list[str] | str | None = None
    seed: Whole | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool | None = None
    logprobs: Whole | None = None
    response_mime_type: str | None = None
    response_schema: msgspec.Raw = _maybe()
    response_json_schema: msgspec.Raw = _maybe()
    response_format: msgspec.Raw = _maybe()
    response_modalities: list[str] | str | None = None
    thinking_config: ThinkingConfig | None = None
    speech_config: msgspec.Raw = _maybe()
    image_config: msgspec.Raw = _maybe()
    media_resolution: msgspec.Raw = _maybe()
    audio_timestamp: msgspec.Raw = _maybe()
    enable_enhanced_civic_answers: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


OWN_CONFIG = (
    "image_config",
    "media_resolution",
    "audio_timestamp",
    "enable_enhanced_civic_answers",
)


class PrebuiltVoice(Wire):
    """A voice by its name."""

    voice_name: str


class VoiceConfig(Wire):
    """One of Google's voices."""

    prebuilt_voice_config: PrebuiltVoice


class SpeechConfig(Wire):
    """A spoken answer by one voice: the only form that other vendors have, too."""

    voice_config: VoiceConfig


class TextFormat(Wire):
    """The form of a text."""

    mime_type: str
    schema: msgspec.Raw = _maybe()


class ResponseFormat(Wire):
    """The form of a text answer: the only kind of `responseFormat` that other vendors have, too."""

    text: TextFormat


class GenerateBody(Wire):
    """The body of generateContent and streamGenerateContent."""

    model: str | None = None
    contents: list[Content] | Content | str | None = None
    system_instruction: Content | str | None = None
    tools: list[Tool] | Tool | None = None
    tool_config: ToolConfig | None = None
    generation_config: GenerationConfig | None = None
    safety_settings: msgspec.Raw = _maybe()
    cached_content: msgspec.Raw = _maybe()
    labels: msgspec.Raw = _maybe()
    service_tier: str | None = None
    store: bool | None = None
    extra: Extra = extra_slot()


OWN_MEMBERS = ("safety_settings", "cached_content", "labels")


class CountBody(GenerateBody):
    """The body of countTokens: contents, or the whole request whose prompt is to be counted."""

    generate_content_request: GenerateBody | None = None


GENERATE_BODY = ProtoJsonDecoder(GenerateBody)
COUNT_BODY = ProtoJsonDecoder(CountBody)
SPEECH_CONFIG = ProtoJsonDecoder(SpeechConfig)
RESPONSE_FORMAT = ProtoJsonDecoder(list[ResponseFormat])
