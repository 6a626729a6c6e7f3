"""Parts to content blocks. Pure; owns one block at a time, not where it stands.

Source: the content blocks of https://platform.claude.com/docs/en/api/messages/create, and for documents
https://platform.claude.com/docs/en/build-with-claude/pdf-support and .../citations.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import MalformedJson, raw_object
from headgate_server.providers.citations import own_citations
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.history import arguments_object
from headgate_server.providers.media import base64_of, split_data_url, web_url_of
from headgate_server.providers.shapes import kind_of

Blocks = list[Json | msgspec.Raw]
DIALECT = "anthropic"
# What a text block's `citations` may hold.
CITATIONS = frozenset(
    (
        "char_location", "page_location", "content_block_location", "search_result_location",
        "web_search_result_location",
    )
)  # fmt: skip
# Documents are PDF or text; these are text by another name.
_TEXT_TYPES = ("application/json", "application/xml")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def is_plain(part: content_pb2.Part) -> bool:
    """Whether the part is a text and nothing else."""
    return (
        part.WhichOneof("kind") == "text"
        and not part.annotations
        and not part.HasField("cache_control")
        and not part.HasField("extra_json")
    )


def content_of(blocks: Blocks) -> str | Blocks:
    """The blocks, or the text if there is one plain text only."""
    if len(blocks) == 1 and isinstance(only := blocks[0], dict) and only.keys() == {"type", "text"}:
        text: str = only["text"]
        return text
    return blocks


def text_block(encoding: Encoding, part: content_pb2.Part, path: str) -> Json | None:
    """A text block; None for an empty text, which the API refuses and which says nothing."""
    if not part.text:
        return None
    block: Json = {"type": "text", "text": part.text}
    if is_plain(part):
        return block
    _finish(encoding, block, part, path)
    if part.annotations and "citations" not in block:
        citations = own_citations(part, _is_citation)
        if citations:
            block["citations"] = citations
        if len(citations) < len(part.annotations):
            encoding.warn(
                f"{path}.annotations",
                "left out: the API takes back only citations in its own form",
            )
    return block


def _is_citation(text: str) -> bool:
    try:
        return kind_of(text.encode()) in CITATIONS
    except MalformedJson:
        return False


def input_blocks(encoding: Encoding, parts: Iterable[content_pb2.Part], path: str) -> Blocks:
    """What a user or a tool says.

    Raises:
        InvalidRequest: for a part that the API has no block for.
    """
    blocks: Blocks = []
    for place, part in enumerate(parts):
        here = f"{path}[{place}]"
        kind = part.WhichOneof("kind")
        if kind == "text":
            if (text := text_block(encoding, part, here)) is not None:
                blocks.append(text)
        elif kind == "vendor_part":
            blocks.append(vendor_block(encoding, part, here))
        elif kind in ("image", "file"):
            media = part.image if kind == "image" else part.file
            block = _media(media, kind, f"{here}.{kind}")
            _finish(encoding, block, part, here)
            blocks.append(block)
        else:
            raise InvalidRequest.of(
                f"{here}.{kind}" if kind else here,
                f"provider {encoding.target.provider!r} takes text, images and documents here, "
                f"not {kind or 'a part without a kind'}; leave it out, or put it into words",
            )
    return blocks


def _finish(encoding: Encoding, block: Json, part: content_pb2.Part, path: str) -> None:
    """Adds what every block may have."""
    if part.HasField("cache_control"):
        block["cache_control"] = cache_control(part.cache_control)
    encoding.part_extras(block, part.extra_json, path)


def cache_control(control: content_pb2.CacheControl) -> Json:
    """A prompt-cache breakpoint."""
    return {"type": "ephemeral", **({"ttl": control.ttl} if control.ttl else {})}


def vendor_block(encoding: Encoding, part: content_pb2.Part, path: str) -> Json | msgspec.Raw:
    """A block as it is."""
    if part.vendor_part.dialect != DIALECT:
        raise InvalidRequest.of(
            f"{path}.vendor_part",
            f"is a block of the {part.vendor_part.dialect!r} API, which only providers of that "
            f"dialect can read; this one speaks {DIALECT!r}. Leave it out, or ask another provider",
        )
    if not part.HasField("cache_control") and not part.extra_json:
        return msgspec.Raw(part.vendor_part.json)
    block: Json = dict(raw_object(part.vendor_part.json))
    if part.HasField("cache_control"):
        block.setdefault("cache_control", cache_control(part.cache_control))
    encoding.part_extras(block, part.extra_json, path)
    return block


# Images and documents.


def _media(media: content_pb2.Media, kind: str, path: str) -> Json:
    source = media.WhichOneof("source")
    seen = kind == "image" or media.media_type.startswith("image/")
    block: Json = {"type": "image" if seen else "document"}
    if source == "file_id":
        block["source"] = {"type": "file", "file_id": media.file_id}
    elif source == "url" and not media.url.startswith("data:"):
        block["source"] = {"type": "url", "url": web_url_of(media, path)}
    elif source == "url":
        media_type, data = split_data_url(media.url, path)
        seen = seen or media_type.startswith("image/")
        block = _with_data(seen, media_type or "text/plain", data, path)
    elif source == "data":
        block = _with_data(seen, media.media_type, base64_of(media.data), path)
    else:
        raise InvalidRequest.of(path, "has no source; set one of data, url, file_id")
    if media.HasField("filename") and block["type"] == "document":
        block["title"] = media.filename
    return block


def _with_data(seen: bool, media_type: str, data: str, path: str) -> Json:
    """A block with the bytes, which are in base64."""
    plain_type = media_type.partition(";")[0].strip().lower()
    source = {"type": "base64", "media_type": plain_type, "data": data}
    if seen:
        return {"type": "image", "source": source}
    if plain_type == "application/pdf":
        return {"type": "document", "source": source}
    if not plain_type.startswith("text/") and plain_type not in _TEXT_TYPES:
        raise InvalidRequest.of(
            f"{path}.media_type",
            f"is {media_type!r}, but the API takes PDF, plain text and images; "
            "convert the document to one of them",
        )
    try:
        text = base64.b64decode(data).decode()
    except ValueError as error:
        raise InvalidRequest.of(
            f"{path}.data", f"is not UTF-8 text, though {media_type!r}"
        ) from error
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source}


# Tools in the conversation.


def tool_use_block(encoding: Encoding, part: content_pb2.Part, call_id: str, path: str) -> Json:
    """A call. Raises `InvalidRequest` for arguments that are not a JSON object."""
    call = part.tool_call
    block: Json = {
        "type": "tool_use",
        "id": wire_id(call_id),
        "name": call.name,
        "input": _input(call, path),
    }
    _finish(encoding, block, part, path)
    return block


def _input(call: content_pb2.ToolCall, path: str) -> Json | msgspec.Raw:
    if call.custom:
        return {"input": call.arguments_json}  # free text, where the API knows objects only
    return arguments_object(call, f"{path}.tool_call", "must be a JSON object for this API")


def tool_result_block(encoding: Encoding, part: content_pb2.Part, call_id: str, path: str) -> Json:
    """The outcome of a call."""
    result = part.tool_result
    block: Json = {"type": "tool_result", "tool_use_id": wire_id(call_id)}
    content = content_of(input_blocks(encoding, result.parts, f"{path}.tool_result.parts"))
    if content:
        block["content"] = content
    if result.HasField("is_error"):
        block["is_error"] = result.is_error
    _finish(encoding, block, part, path)
    return block


def wire_id(call_id: str) -> str:
    """A call's id as the API takes it; it only ties a result to its call within the request.

    Other vendors' ids have characters that this one refuses, such as "functions.search:0".
    """
    return _NOT_IN_IDS.sub("_", call_id)


# Thinking.


def thinking_block(encoding: Encoding, part: content_pb2.Part, path: str) -> Json | None:
    """The model's own thinking as it was; None for what it could not prove to be its own."""
    thought = part.reasoning
    if thought.HasField("dialect") and thought.dialect != DIALECT:
        return None
    block: Json
    if thought.HasField("encrypted"):
        block = {"type": "redacted_thinking", "data": thought.encrypted}
    elif thought.HasField("signature"):
        block = {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
    else:
        return None
    encoding.part_extras(block, part.extra_json, path)
    return block


def refusal_block(encoding: Encoding, part: content_pb2.Part, path: str) -> Json | None:
    """A refusal, which this API tells as text; None for an empty one."""
    if not part.refusal:
        return None
    block: Json = {"type": "text", "text": part.refusal}
    _finish(encoding, block, part, path)
    return block


def system_blocks(encoding: Encoding, parts: Iterable[content_pb2.Part], path: str) -> Blocks:
    """What the operator says. Raises `InvalidRequest` for media."""
    blocks: Blocks = []
    for place, part in enumerate(parts):
        here = f"{path}[{place}]"
        kind = part.WhichOneof("kind")
        if kind == "text":
            if (block := text_block(encoding, part, here)) is not None:
                blocks.append(block)
        elif kind == "vendor_part":
            blocks.append(vendor_block(encoding, part, here))
        else:
            raise InvalidRequest.of(
                f"{here}.{kind}" if kind else here,
                "cannot stand in a system message: the API takes text there; "
                "move it to a user message",
            )
    return blocks
