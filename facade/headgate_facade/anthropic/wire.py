"""The shape of a Messages request, strict where Anthropic is strict.

Source: https://platform.claude.com/docs/en/api/messages. Members that no field names travel on in the
`extra` slots, and content blocks of a type that is not named here as they are: the vendor adds to both
all the time. Defaults are None throughout: what the caller leaves out is the provider's to decide.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headgate.wire import Extra, ShapeDecoder, extra_slot

ABSENT = msgspec.Raw()


def _maybe() -> Any:
    """The default of a raw member; made by a function, since schemas cannot tell such a default."""
    return msgspec.field(default_factory=lambda: ABSENT)


Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Wire(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The base of the shapes."""


class CacheControl(Wire):
    """A breakpoint of the prompt cache."""

    type: Literal["ephemeral"]
    ttl: str | None = None


# Where the bytes of images and documents are.


class Base64Source(Wire, tag_field="type", tag="base64"):
    """The bytes themselves."""

    media_type: str
    data: str
    extra: Extra = extra_slot()


class TextSource(Wire, tag_field="type", tag="text"):
    """A document as plain text."""

    media_type: str
    data: str
    extra: Extra = extra_slot()


class UrlSource(Wire, tag_field="type", tag="url"):
    """A place on the web."""

    url: str
    extra: Extra = extra_slot()


class FileSource(Wire, tag_field="type", tag="file"):
    """A file that was uploaded before."""

    file_id: str
    extra: Extra = extra_slot()


# Content blocks. The lists that hold them are raw, because the vendor's own kinds pass through.


class TextBlock(Wire, tag_field="type", tag="text"):
    """Text, with the sources of an earlier answer."""

    text: str
    citations: list[msgspec.Raw] | None = None
    cache_control: CacheControl | None = None
    extra: Extra = extra_slot()


class ImageBlock(Wire, tag_field="type", tag="image"):
    """An image."""

    source: Base64Source | UrlSource | FileSource
    cache_control: CacheControl | None = None
    extra: Extra = extra_slot()


class DocumentBlock(Wire, tag_field="type", tag="document"):
    """A document."""

    source: Base64Source | TextSource | UrlSource | FileSource
    title: str | None = None
    cache_control: CacheControl | None = None
    extra: Extra = extra_slot()


class ThinkingBlock(Wire, tag_field="type", tag="thinking"):
    """Earlier thinking, with its proof."""

    thinking: str
    signature: str = ""
    extra: Extra = extra_slot()


class RedactedThinkingBlock(Wire, tag_field="type", tag="redacted_thinking"):
    """Earlier thinking that only its model can read."""

    data: str
    extra: Extra = extra_slot()


class ToolUseBlock(Wire, tag_field="type", tag="tool_use"):
    """An earlier call. `extra_content` is this gateway's extension; see `blocks_in`."""

    id: str
    name: str
    input: msgspec.Raw
    cache_control: CacheControl | None = None
    extra_content: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class ToolResultBlock(Wire, tag_field="type", tag="tool_result"):
    """The outcome of a call."""

    tool_use_id: str
    content: str | list[msgspec.Raw] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    extra: Extra = extra_slot()


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)

# The types of blocks that are named here, and of the sources inside them.
BLOCK_TYPES: dict[str, frozenset[str]] = {
    "text": frozenset(),
    "image": frozenset({"base64", "url", "file"}),
    "document": frozenset({"base64", "text", "url", "file"}),
    "thinking": frozenset(),
    "redacted_thinking": frozenset(),
    "tool_use": frozenset(),
    "tool_result": frozenset(),
}


class Message(Wire):
    """One turn. Instructions in mid-conversation have the role system."""

    role: Literal["user", "assistant", "system"]
    content: str | list[msgspec.Raw]
    extra: Extra = extra_slot()


# Tools and options.


class Tool(Wire):
    """A tool. Without a type, or with the type custom, one of the caller's own."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = _maybe()
    strict: bool | None = None
    cache_control: CacheControl | None = None
    extra: Extra = extra_slot()


class ToolChoice(Wire):
    """Which tools the model may or must call."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None
    extra: Extra = extra_slot()


class Thinking(Wire):
    """How much to think."""

    type: str
    budget_tokens: Int64 | None = None
    display: str | None = None
    extra: Extra = extra_slot()


class OutputFormat(Wire):
    """JSON that matches a schema."""

    type: str
    schema: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


class OutputConfig(Wire):
    """How much effort to make, and the form of the answer."""

    effort: str | None = None
    format: OutputFormat | None = None
    extra: Extra = extra_slot()


class Metadata(Wire):
    """About the request."""

    user_id: str | None = None
    extra: Extra = extra_slot()


class Body(Wire):
    """The body of POST /v1/messages, and of its count_tokens.

    The raw members are named only so that the requests of usual clients have none that is not.
    """

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Int64 | None = None
    system: str | list[msgspec.Raw] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    stop_sequences: list[str] | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    metadata: Metadata | None = None
    cache_control: msgspec.Raw = _maybe()
    container: msgspec.Raw = _maybe()
    context_management: msgspec.Raw = _maybe()
    diagnostics: msgspec.Raw = _maybe()
    inference_geo: msgspec.Raw = _maybe()
    mcp_servers: msgspec.Raw = _maybe()
    service_tier: msgspec.Raw = _maybe()
    speed: msgspec.Raw = _maybe()
    extra: Extra = extra_slot()


# Members of the body that go on as they are.
OPAQUE_MEMBERS = (
    "cache_control", "container", "context_management", "diagnostics", "inference_geo", "mcp_servers",
    "service_tier", "speed",
)  # fmt: skip


class Typed(msgspec.Struct, gc=False):
    """What a block says about itself, whatever else it holds."""

    type: str


class Sourced(msgspec.Struct, gc=False):
    """The same of a block's source."""

    source: Typed


class Citation(msgspec.Struct, gc=False):
    """What a citation of the web says; others have other members."""

    type: str
    url: str = ""
    title: str | None = None
    encrypted_index: str | None = None


BODY = ShapeDecoder(Body)
BLOCK: ShapeDecoder[Block] = ShapeDecoder(Block)  # type: ignore[arg-type]
TOOL = ShapeDecoder(Tool)
TYPED = msgspec.json.Decoder(Typed)
SOURCED = msgspec.json.Decoder(Sourced)
CITATION = msgspec.json.Decoder(Citation)
