"""The shape of a chat completion request, strict where OpenAI is strict.

Source: https://platform.openai.com/docs/api-reference/chat/create. These structs also make the schema at
/docs. Members that no field names travel on in the `extra` slots; an unknown `type` or `role` is refused.
Defaults are None throughout: what the caller leaves out is the provider's to decide.
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
Int64 = Annotated[int, Meta(ge=-(2**63), le=_INT64_MAX)]
Positive = Annotated[int, Meta(ge=1, le=_INT64_MAX)]


class Wire(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The base of the shapes."""


# Content parts.


class TextPart(Wire, tag_field="type", tag="text"):
    """Text."""

    text: str
    extra: Extra = extra_slot()


class ImageUrl(Wire):
    """An image, as an https: or a data: URL. The gateway passes it on untouched."""

    url: str
    detail: str | None = None
    extra: Extra = extra_slot()


class ImagePart(Wire, tag_field="type", tag="image_url"):
    """An image."""

    image_url: ImageUrl
    extra: Extra = extra_slot()


class InputAudio(Wire):
    """Sound: base64, and its format."""

    data: str
    format: str


class AudioPart(Wire, tag_field="type", tag="input_audio"):
    """Sound."""

    input_audio: InputAudio
    extra: Extra = extra_slot()


class FileRef(Wire):
    """A document: base64, a URL, or the id of an uploaded file."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None
    extra: Extra = extra_slot()


class FilePart(Wire, tag_field="type", tag="file"):
    """A document."""

    file: FileRef
    extra: Extra = extra_slot()


class RefusalPart(Wire, tag_field="type", tag="refusal"):
    """An earlier refusal of the model."""

    refusal: str
    extra: Extra = extra_slot()


UserPart = TextPart | ImagePart | AudioPart | FilePart
AssistantPart = TextPart | RefusalPart
ToolPart = TextPart | ImagePart | FilePart


# Tool calls in the history.


class FunctionCall(Wire):
    """A call's function; the arguments are JSON as a string."""

    name: str
    arguments: str | None = None
    # What the SDKs' parsing helpers add for their user and then send back; `arguments` says it all.
    parsed_arguments: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class CustomCall(Wire):
    """A custom tool's call; the input is free text."""

    name: str
    input: str | None = None


class ToolCall(Wire):
    """A call that the model asked for earlier."""

    id: str
    type: Literal["function", "custom"] = "function"
    function: FunctionCall | None = None
    custom: CustomCall | None = None
    index: int | None = None  # replayed by clients that collected a stream
    extra: Extra = extra_slot()


class AudioRef(Wire):
    """Earlier generated audio."""

    id: str


# Messages.


class DeveloperMessage(Wire, tag_field="role", tag="developer"):
    """Instructions of the application."""

    content: str | list[TextPart]
    name: str | None = None
    extra: Extra = extra_slot()


class SystemMessage(Wire, tag_field="role", tag="system"):
    """Instructions of the operator."""

    content: str | list[TextPart]
    name: str | None = None
    extra: Extra = extra_slot()


class UserMessage(Wire, tag_field="role", tag="user"):
    """The end user's turn."""

    content: str | list[UserPart]
    name: str | None = None
    extra: Extra = extra_slot()


class AssistantMessage(Wire, tag_field="role", tag="assistant"):
    """The model's earlier turn."""

    content: str | list[AssistantPart] | None = None
    refusal: str | None = None
    name: str | None = None
    audio: AudioRef | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    # What answers of this gateway carry beyond OpenAI's members: see carried.py.
    reasoning_details: list[msgspec.Raw] | None = None
    images: list[msgspec.Raw] | None = None
    vendor_parts: list[msgspec.Raw] | None = None
    annotations: list[msgspec.Raw] | None = None
    parsed: msgspec.Raw = _maybe()  # as parsed_arguments above; `content` says it all
    extra: Extra = extra_slot()


class ToolMessage(Wire, tag_field="role", tag="tool"):
    """The outcome of a tool call."""

    tool_call_id: str
    content: str | list[ToolPart]
    name: str | None = None
    extra: Extra = extra_slot()


class FunctionMessage(Wire, tag_field="role", tag="function"):
    """The outcome of a function call of the deprecated kind."""

    name: str
    content: str | None = None
    extra: Extra = extra_slot()


AnyMessage = (
    DeveloperMessage
    | SystemMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | FunctionMessage
)


# Tools. The list itself is raw, because a vendor's own kinds of tools pass through.


class Function(Wire):
    """A function's name, description, and JSON Schema of its parameters."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = _maybe()
    strict: bool | None = None


class FunctionTool(Wire):
    """A tool of type function."""

    type: str
    function: Function
    extra: Extra = extra_slot()


class NamedFunction(Wire):
    """A function by name."""

    name: str


class NamedToolChoice(Wire):
    """Call this function."""

    type: str
    function: NamedFunction


# Options.


class StreamOptions(Wire):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding is never added here
    extra: Extra = extra_slot()


class TextFormat(Wire, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(Wire, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(Wire):
    """A named JSON Schema."""

    name: str
    description: str | None = None
    schema: msgspec.Raw = _maybe()
    strict: bool | None = None


class JsonSchemaFormat(Wire, tag_field="type", tag="json_schema"):
    """JSON that matches a schema."""

    json_schema: JsonSchema


class ReasoningOptions(Wire):
    """How much to think, as OpenRouter spells it for all models."""

    effort: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=_INT64_MAX)] | None = None
    enabled: bool | None = None
    exclude: bool | None = None
    summary: str | None = None
    extra: Extra = extra_slot()


class AudioOptions(Wire):
    """Voice (a name, or an object with an id) and format of spoken answers."""

    voice: msgspec.Raw
    format: str


class Prediction(Wire):
    """Text that the answer will mostly repeat."""

    type: Literal["content"]
    content: str | list[TextPart]


class Location(Wire):
    """Roughly where the end user is."""

    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class UserLocation(Wire):
    """Wraps the location."""

    approximate: Location
    type: Literal["approximate"] = "approximate"


class WebSearchOptions(Wire):
    """Web search by the model."""

    search_context_size: str | None = None
    user_location: UserLocation | None = None


class ChatBody(Wire):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[AnyMessage], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = _maybe()
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: msgspec.Raw = _maybe()
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Positive | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    seed: Int64 | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    reasoning_effort: str | None = None
    reasoning: ReasoningOptions | None = None
    enable_thinking: bool | None = None
    llmgw_thinking: bool | None = None
    thinking: msgspec.Raw = _maybe()
    modalities: list[str] | None = None
    audio: AudioOptions | None = None
    prediction: Prediction | None = None
    service_tier: str | None = None
    web_search_options: WebSearchOptions | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    verbosity: str | None = None
    extra: Extra = extra_slot()


CHAT_BODY = ShapeDecoder(ChatBody)
FUNCTION_TOOL = ShapeDecoder(FunctionTool)
NAMED_CHOICE = ShapeDecoder(NamedToolChoice)
NAMED_FUNCTION = ShapeDecoder(NamedFunction)
