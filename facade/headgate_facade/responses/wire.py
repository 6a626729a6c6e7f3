"""The shape of a Responses request, strict where OpenAI is strict.

Source: https://platform.openai.com/docs/api-reference/responses/create. Input items and tools are raw in
the body, because their `type`, which messages may leave out, says which shape they have; `KIND` reads it.
Members that no field names travel on in the `extra` slots. Defaults are None throughout: what the caller
leaves out is the provider's to decide.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headgate.wire import Extra, ShapeDecoder, extra_slot

_ABSENT = msgspec.Raw()


def _maybe() -> Any:
    """The default of a raw member. A factory, because msgspec cannot put a plain one into a schema."""
    return msgspec.field(default_factory=lambda: _ABSENT)


_INT64_MAX = 2**63 - 1
Positive = Annotated[int, Meta(ge=1, le=_INT64_MAX)]


class Wire(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The base of the shapes."""


class Kind(msgspec.Struct, gc=False):
    """What an item or a tool is."""

    type: str | None = None


# Content of messages and of tool outputs.


class CacheBreakpoint(Wire):
    """The end of a part of the prompt that is worth caching."""

    mode: str | None = None
    ttl: str | None = None


class InputText(Wire, tag_field="type", tag="input_text"):
    """Text of the user, or of a tool."""

    text: str
    prompt_cache_breakpoint: CacheBreakpoint | None = None
    extra: Extra = extra_slot()


class InputImage(Wire, tag_field="type", tag="input_image"):
    """An image: an https: or a data: URL, or the id of an uploaded file."""

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None
    extra: Extra = extra_slot()


class InputFile(Wire, tag_field="type", tag="input_file"):
    """A document: base64 or a data: URL, an https: URL, or the id of an uploaded file."""

    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None
    extra: Extra = extra_slot()


class Sound(Wire):
    """Sound: base64, and its format."""

    data: str
    format: str


class InputAudio(Wire, tag_field="type", tag="input_audio"):
    """Sound."""

    input_audio: Sound
    extra: Extra = extra_slot()


class OutputText(Wire, tag_field="type", tag="output_text"):
    """Text of the model, from an earlier answer."""

    text: str
    annotations: list[msgspec.Raw] | None = None
    logprobs: msgspec.Raw = _maybe()  # facts about the answer; no input for anybody
    parsed: msgspec.Raw = _maybe()  # what the SDKs' parsing helpers add; `text` says it all
    extra_content: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class Refusal(Wire, tag_field="type", tag="refusal"):
    """An earlier refusal of the model."""

    refusal: str
    extra: Extra = extra_slot()


InputPart = InputText | InputImage | InputFile | InputAudio
Content = InputText | InputImage | InputFile | InputAudio | OutputText | Refusal


# Input items. An item's `status` says how an earlier answer went, and its `id` where a server that
# keeps answers has it: neither means anything to a gateway that keeps none, but for reasoning.


class Message(Wire):
    """A message of any role; those of the model may be items of an earlier answer."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Content]
    type: str | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    extra: Extra = extra_slot()


class FunctionCall(Wire):
    """A call of a function that the model asked for."""

    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    extra_content: msgspec.Raw = _maybe()
    parsed_arguments: msgspec.Raw = _maybe()  # as `parsed` above
    extra: Extra = extra_slot()


class CustomCall(Wire):
    """A call of a custom tool, whose input is free text."""

    type: str
    call_id: str
    name: str
    input: str
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    extra_content: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class CallOutput(Wire):
    """What came out of a call, of either kind."""

    type: str
    call_id: str
    output: str | list[InputPart]
    id: str | None = None
    status: str | None = None
    name: str | None = None
    namespace: str | None = None
    extra: Extra = extra_slot()


class Thought(Wire):
    """A piece of thinking, or of a summary of it."""

    type: str
    text: str
    extra: Extra = extra_slot()


class Reasoning(Wire):
    """The model's earlier thinking."""

    type: str
    id: str | None = None
    summary: list[Thought] | None = None
    content: list[Thought] | None = None
    encrypted_content: str | None = None
    status: str | None = None
    extra: Extra = extra_slot()


class AdditionalTools(Wire):
    """Tools that came in the course of the conversation."""

    type: str
    tools: list[msgspec.Raw]
    role: str | None = None
    id: str | None = None


# Tools.


class FunctionTool(Wire):
    """A function, its members beside the type."""

    type: str
    name: str
    description: str | None = None
    parameters: msgspec.Raw = _maybe()
    strict: bool | None = None
    extra: Extra = extra_slot()


class CustomTool(Wire):
    """A tool that takes free text."""

    type: str
    name: str
    description: str | None = None
    format: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class Grammar(Wire):
    """What a custom tool's input has to look like."""

    type: str
    syntax: str | None = None
    definition: str | None = None


class Namespace(Wire):
    """Functions and custom tools under a common name."""

    type: str
    name: str
    tools: list[msgspec.Raw]
    description: str | None = None
    extra: Extra = extra_slot()


class Location(Wire):
    """Roughly where the end user is."""

    type: str | None = None
    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class WebSearch(Wire):
    """Web search by the vendor."""

    type: str
    search_context_size: str | None = None
    user_location: Location | None = None
    external_web_access: bool | None = None
    extra: Extra = extra_slot()


class ToolName(Wire):
    """A tool that a choice names."""

    type: str
    name: str
    namespace: str | None = None


class AllowedTools(Wire):
    """A choice among some of the tools."""

    type: str
    mode: str
    tools: list[msgspec.Raw]


# Options.


class ReasoningOptions(Wire):
    """How to think."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None  # its older name
    extra: Extra = extra_slot()


class TextFormat(Wire, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(Wire, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(Wire, tag_field="type", tag="json_schema"):
    """JSON that matches a schema."""

    name: str
    schema: msgspec.Raw = _maybe()
    description: str | None = None
    strict: bool | None = None


class TextOptions(Wire):
    """The form of the answer's text."""

    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: str | None = None
    extra: Extra = extra_slot()


class StreamOptions(Wire):
    """Options of a stream. Padding is never added here, and usage is always told."""

    include_obfuscation: bool | None = None
    extra: Extra = extra_slot()


class ResponsesBody(Wire):
    """The body of POST /v1/responses."""

    model: str
    input: msgspec.Raw
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = _maybe()
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_output_tokens: Positive | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    truncation: str | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # All of these need answers that are kept.
    background: bool | None = None
    conversation: msgspec.Raw = _maybe()
    previous_response_id: str | None = None
    prompt: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


BODY = ShapeDecoder(ResponsesBody)
TEXT = ShapeDecoder(str)
KIND = ShapeDecoder(Kind)
MESSAGE = ShapeDecoder(Message)
FUNCTION_CALL = ShapeDecoder(FunctionCall)
CUSTOM_CALL = ShapeDecoder(CustomCall)
CALL_OUTPUT = ShapeDecoder(CallOutput)
REASONING = ShapeDecoder(Reasoning)
ADDITIONAL_TOOLS = ShapeDecoder(AdditionalTools)
FUNCTION_TOOL = ShapeDecoder(FunctionTool)
CUSTOM_TOOL = ShapeDecoder(CustomTool)
GRAMMAR = ShapeDecoder(Grammar)
NAMESPACE = ShapeDecoder(Namespace)
WEB_SEARCH = ShapeDecoder(WebSearch)
TOOL_NAME = ShapeDecoder(ToolName)
ALLOWED_TOOLS = ShapeDecoder(AllowedTools)
