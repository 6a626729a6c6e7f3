"""Content blocks to parts. Pure.

Source: https://platform.claude.com/docs/en/api/messages. Blocks of a type that only Anthropic has (server
tools and their results, search results, ...) become vendor parts, whole.

An extension: a `tool_use` block may carry `extra_content: {"google": {"thought_signature": "..."}}`,
Gemini's proof of the thoughts behind the call, in the place and spelling of Google's own API for OpenAI's
SDKs (https://ai.google.dev/gemini-api/docs/thought-signatures). Answers show it so, and want it back.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING, assert_never

import msgspec

from headgate.errors import InvalidRequest
from headgate.reasoning import unseal
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_object, raw_text
from headgate_facade.anthropic import wire
from headgate_facade.anthropic.places import REQUIRED
from headgate_facade.malformed import misshapen

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    Parts = RepeatedCompositeFieldContainer[content_pb2.Part]

DIALECT = "anthropic"
_NULL = b"null"
_NO_MEMBER = msgspec.Raw(_NULL)

# A block that was read: one of the named ones, or the whole of another.
AnyBlock = wire.Block | msgspec.Raw


def read_blocks(content: Iterable[msgspec.Raw], path: str) -> list[AnyBlock]:
    """The blocks of a list. Raises `InvalidRequest`."""
    return [_block(raw, f"{path}[{place}]") for place, raw in enumerate(content)]


def _block(raw: msgspec.Raw, path: str) -> AnyBlock:
    text = bytes(raw)
    try:
        return wire.BLOCK.decode(text)
    except MalformedJson as error:
        if error.is_json and _is_foreign(text):
            return raw
        raise misshapen(error, path, required=REQUIRED) from error


def _is_foreign(text: bytes) -> bool:
    """Whether a block is of a type, or has a source of a type, that this gateway does not know."""
    try:
        sources = wire.BLOCK_TYPES.get(wire.TYPED.decode(text).type)
        if sources is None:
            return True
        return bool(sources) and wire.SOURCED.decode(text).source.type not in sources
    except msgspec.DecodeError:
        return False


def fill(parts: Parts, blocks: Iterable[AnyBlock], path: str) -> None:
    """Adds the parts of these blocks. Raises `InvalidRequest`."""
    for place, block in enumerate(blocks):
        put(block, parts.add(), f"{path}[{place}]")


def put(block: AnyBlock, part: content_pb2.Part, path: str) -> None:
    """Writes a block into a part. Raises `InvalidRequest`."""
    if isinstance(block, msgspec.Raw):
        part.vendor_part.dialect = DIALECT
        part.vendor_part.json = _text(block)
        return
    extra = block.extra
    if isinstance(block, wire.TextBlock):
        part.text = block.text
        for citation in block.citations or ():
            _citation(citation, part.annotations.add())
    elif isinstance(block, wire.ToolUseBlock):
        extra = _tool_use(block, part, path)
    elif isinstance(block, wire.ToolResultBlock):
        _tool_result(block, part.tool_result, path)
    elif isinstance(block, wire.ThinkingBlock):
        _thinking(block, part.reasoning)
    elif isinstance(block, wire.RedactedThinkingBlock):
        _redacted(block, part.reasoning)
    elif isinstance(block, wire.ImageBlock):
        extra = _source(block.source, part.image, extra, path)
    elif isinstance(block, wire.DocumentBlock):
        extra = _source(block.source, part.file, extra, path)
        if block.title is not None:
            part.file.filename = block.title
    else:
        assert_never(block)
    if not isinstance(block, wire.ThinkingBlock | wire.RedactedThinkingBlock):
        cache(block.cache_control, part)
    known = without_nulls(extra)
    if known:
        part.extra_json = json_text(known) or ""


def cache(control: wire.CacheControl | None, owner: content_pb2.Part | chat_pb2.Tool) -> None:
    """Sets the breakpoint of the prompt cache behind a part or a tool."""
    if control is not None:
        owner.cache_control.SetInParent()
        if control.ttl is not None:
            owner.cache_control.ttl = control.ttl


def without_nulls(extra: Extra) -> dict[str, msgspec.Raw]:
    """Members that say something: SDKs send back an answer's empty ones as null."""
    return {name: value for name, value in (extra or {}).items() if bytes(value) != _NULL}


def _citation(raw: msgspec.Raw, annotation: content_pb2.Annotation) -> None:
    try:
        said = wire.CITATION.decode(raw)
    except msgspec.DecodeError:
        said = wire.Citation(type="")
    if said.type == "web_search_result_location" and said.encrypted_index == "":
        # Shown by this door in the name of a provider that proves nothing: see `blocks_out`.
        annotation.url_citation.url = said.url
        annotation.url_citation.title = said.title or ""
    else:
        annotation.other_json = _text(raw)


def _thinking(block: wire.ThinkingBlock, reasoning: content_pb2.Reasoning) -> None:
    sealed = unseal(block.signature)
    if sealed is not None:
        reasoning.CopyFrom(sealed)
    elif block.signature:
        reasoning.signature = block.signature
        reasoning.dialect = DIALECT
    reasoning.text = block.thinking
    reasoning.SetInParent()


def _redacted(block: wire.RedactedThinkingBlock, reasoning: content_pb2.Reasoning) -> None:
    sealed = unseal(block.data)
    if sealed is not None:
        reasoning.CopyFrom(sealed)
    else:
        reasoning.encrypted = block.data
        reasoning.dialect = DIALECT


def _tool_use(block: wire.ToolUseBlock, part: content_pb2.Part, path: str) -> Extra:
    call = part.tool_call
    call.id, call.name = block.id, block.name
    call.arguments_json = _text(block.input)
    if not call.arguments_json.startswith("{"):
        raise InvalidRequest.of(f"{path}.input", "must be an object")
    if block.extra_content is wire.ABSENT or bytes(block.extra_content) in (b"", _NULL):
        return block.extra
    try:
        content = raw_object(bytes(block.extra_content))
        google = raw_object(bytes(content.pop("google", msgspec.Raw(b"{}"))))
        signature = google.pop("thought_signature", _NO_MEMBER)
        if bytes(signature) != _NULL:
            part.thought_signature = msgspec.json.decode(signature, type=str)
        if google:
            content["google"] = msgspec.Raw(msgspec.json.encode(google))
    except (MalformedJson, msgspec.DecodeError) as error:
        raise InvalidRequest.of(
            f"{path}.extra_content",
            'must be an object such as {"google": {"thought_signature": …}}',
        ) from error
    if not content:
        return block.extra
    return {**(block.extra or {}), "extra_content": msgspec.Raw(msgspec.json.encode(content))}


def _tool_result(block: wire.ToolResultBlock, result: content_pb2.ToolResult, path: str) -> None:
    result.tool_call_id = block.tool_use_id
    if block.is_error is not None:
        result.is_error = block.is_error
    content = block.content
    if isinstance(content, str):
        result.parts.add().text = content
        return
    inside = read_blocks(content or (), f"{path}.content")
    for place, inner in enumerate(inside):
        where = f"{path}.content[{place}]"
        if not isinstance(
            inner, wire.TextBlock | wire.ImageBlock | wire.DocumentBlock | msgspec.Raw
        ):
            raise InvalidRequest.of(where, "cannot stand inside a tool_result block")
        put(inner, result.parts.add(), where)


_Source = wire.Base64Source | wire.TextSource | wire.UrlSource | wire.FileSource


def _source(source: _Source, media: content_pb2.Media, extra: Extra, path: str) -> Extra:
    """Where the bytes are. Returns the block's extra members, those of the source included."""
    if isinstance(source, wire.Base64Source):
        try:
            media.data = base64.b64decode(source.data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest.of(f"{path}.source.data", "is not valid base64") from error
        media.media_type = source.media_type
    elif isinstance(source, wire.TextSource):
        media.data = source.data.encode("utf-8", "replace")
        media.media_type = source.media_type
    elif isinstance(source, wire.UrlSource):
        if not source.url.startswith(("https://", "http://", "data:")):
            raise InvalidRequest.of(f"{path}.source.url", "must be an https: URL")
        media.url = source.url
    elif isinstance(source, wire.FileSource):
        media.file_id = source.file_id
    else:
        assert_never(source)
    if not source.extra:
        return extra
    return {**(extra or {}), "source": msgspec.Raw(msgspec.json.encode(source.extra))}


def _text(raw: msgspec.Raw) -> str:
    return raw_text(raw) or ""
