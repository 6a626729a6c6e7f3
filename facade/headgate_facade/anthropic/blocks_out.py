"""Parts to content blocks, whole or as they begin, and the usage object. Pure.

Source: https://platform.claude.com/docs/en/api/messages: which members there are, and their order. The
Messages API has no place for generated media: a text block says what was left out, because in a stream
nothing else could. Vendor parts of other dialects mean nothing here and are not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headgate.reasoning import seal
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, merge_into, raw_array, raw_object

Json = dict[str, Any]

DIALECT = "anthropic"
# The vendor's own name for arguments that are no JSON object, where `input` must be one:
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
INVALID_JSON = "INVALID_JSON"
_NONE = msgspec.Raw(b"[]")
# OpenAI's names of the tiers; others have no counterpart.
_TIERS = {"default": "standard", "priority": "priority"}


class Origin:
    """Whose answer it is.

    Attributes:
        dialect: of the provider.
        own: whether that is Anthropic's, so that its opaque values travel untouched.
    """

    __slots__ = ("dialect", "own")

    def __init__(self, served: chat_pb2.Served) -> None:
        self.dialect = served.dialect
        self.own = served.dialect == DIALECT


def block_of(part: content_pb2.Part, origin: Origin) -> Json | msgspec.Raw | None:
    """The block of a whole part; None if there is nothing to show."""
    kind = part.WhichOneof("kind")
    block: Json | None = None
    if kind == "text":
        block = _text_of(part, origin)
    elif kind == "refusal":
        block = text_block(part.refusal) if part.refusal else None
    elif kind == "reasoning":
        block = reasoning_block(part.reasoning, origin)
    elif kind == "tool_call":
        block = {**call_block(part), "input": arguments_of(part.tool_call.arguments_json)}
    elif kind == "vendor_part":
        return vendor_block(part.vendor_part)
    elif kind in ("image", "audio", "file"):
        media: content_pb2.Media = getattr(part, kind)
        said = media.transcript or left_out(kind, media, len(media.data))
        block = text_block(said)
    if block is not None:
        add_extras(block, part, origin)
    return block


def _text_of(part: content_pb2.Part, origin: Origin) -> Json | None:
    block = text_block(part.text)
    citations = citations_within(part, origin) or citations_of(part.annotations, origin)
    if citations:
        block["citations"] = citations
    return block if part.text or citations else None


def add_extras(into: Json, part: content_pb2.Part, origin: Origin) -> None:
    """The members that the provider added, and Gemini's proof."""
    if origin.own and part.HasField("extra_json"):
        merge_into(into, part.extra_json)
    if part.HasField("thought_signature") and part.HasField("tool_call"):
        google = {"thought_signature": part.thought_signature}
        into["extra_content"] = {"google": google}


def text_block(text: str) -> Json:
    """A text block."""
    return {"type": "text", "text": text}


def call_block(part: content_pb2.Part) -> Json:
    """A call as it begins."""
    call = part.tool_call
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def arguments_of(text: str) -> msgspec.Raw | Json:
    """A call's arguments, verbatim if they are an object."""
    if not text or text.isspace():
        return {}
    try:
        raw_object(text)
    except MalformedJson:
        return {INVALID_JSON: text}
    return msgspec.Raw(text.encode())


def reasoning_block(reasoning: content_pb2.Reasoning, origin: Origin) -> Json | None:
    """Thinking, with its proof; redacted thinking if only its model can read it."""
    if reasoning.text or (reasoning.signature and not reasoning.encrypted):
        return {
            "type": "thinking",
            "thinking": reasoning.text,
            "signature": proof_of(reasoning, origin),
        }
    proof = proof_of(reasoning, origin)
    return {"type": "redacted_thinking", "data": proof} if proof else None


def proof_of(reasoning: content_pb2.Reasoning, origin: Origin) -> str:
    """The proof as it is if it is Anthropic's, else sealed; empty if there is none."""
    if (reasoning.dialect or origin.dialect) == DIALECT:
        return reasoning.signature or reasoning.encrypted
    return seal(reasoning, origin.dialect)


def vendor_block(part: content_pb2.VendorPart) -> msgspec.Raw | None:
    """A block of Anthropic's own as it is; None for those of others."""
    return msgspec.Raw(part.json.encode()) if part.dialect == DIALECT else None


def citations_within(part: content_pb2.Part, origin: Origin) -> Sequence[Json | msgspec.Raw]:
    """The citations as Anthropic gave them, where annotations could not hold all of them."""
    if not (origin.own and part.extra_json):
        return ()
    return raw_array(raw_object(part.extra_json).get("citations", _NONE))


def citations_of(
    annotations: Iterable[content_pb2.Annotation], origin: Origin
) -> Sequence[Json | msgspec.Raw]:
    """The sources of a text."""
    found: list[Json | msgspec.Raw] = []
    for annotation in annotations:
        if annotation.HasField("url_citation"):
            # What the page says there, and the proof of it, other providers do not tell.
            found.append(
                {
                    "type": "web_search_result_location",
                    "cited_text": "",
                    "encrypted_index": "",
                    "title": annotation.url_citation.title or None,
                    "url": annotation.url_citation.url,
                }
            )
        elif origin.own and annotation.HasField("other_json"):
            found.append(msgspec.Raw(annotation.other_json.encode()))
    return found


def left_out(kind: str, media: content_pb2.Media, size: int) -> str:
    """What to say where an image or the like cannot stand."""
    if media.HasField("url") and not media.url.startswith("data:"):
        return f"[{kind} at {media.url}]"
    facts = [media.media_type] if media.media_type else []
    if size:
        facts.append(f"{size} bytes")
    told = f": {', '.join(facts)}" if facts else ""
    return f"[{kind} left out{told}; the Messages API has no place for it]"


def usage_json(usage: chat_pb2.Usage | None, tier: str, origin: Origin) -> Json:
    """The usage object. Anthropic counts what came from the cache, or went into it, apart.

    Args:
        usage: None if the provider has not told, or not yet.
        tier: the tier that served the request, if known.
        origin: whose answer it is.
    """
    usage = usage or chat_pb2.Usage()
    cached, written = usage.cached_input_tokens, usage.cache_write_input_tokens
    body: Json = {
        "input_tokens": max(usage.input_tokens - cached - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
    }
    if usage.HasField("reasoning_output_tokens"):
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_output_tokens}
    tier = tier if origin.own else _TIERS.get(tier, "")
    if tier:
        body["service_tier"] = tier
    if origin.own and usage.HasField("extra_json"):
        merge_into(body, usage.extra_json)
    return body
