"""A response object to ChatResponse, and the reading of items that streams share with it. Pure.

An answer is one choice, whose parts are the output items in their order. What an item has beside the
schema (its id, the phase of a message) is in the part's `extra_json`, but for the ids of calls: with
`call_id` they are of no use. Items of the API's own tools are vendor parts.

Source: https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol, UpstreamUnavailable
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra
from headgate_server.providers.citations import other_citation, url_citation
from headgate_server.providers.counts import count, offset
from headgate_server.providers.faults import parse, reading
from headgate_server.providers.logprobs import decode_token
from headgate_server.providers.media import bytes_of
from headgate_server.providers.responses.errors import error_in_body
from headgate_server.providers.responses.wire import (
    ANSWER,
    CALL,
    CITATION,
    COUNT,
    IMAGE,
    MESSAGE,
    REASONING,
    REFUSAL,
    TEXT,
    AnswerWire,
    CallWire,
    ImageWire,
    InputDetailsWire,
    MessageWire,
    OutputDetailsWire,
    ReasoningWire,
    UsageWire,
)
from headgate_server.providers.shapes import Members, as_raw, keep, kind_of, nested, there
from headgate_server.providers.times import set_unix_time

NAME = "openai_responses"
CALLS = frozenset(("function_call", "custom_tool_call"))
INCOMPLETE_REASONS = {
    "max_output_tokens": chat_pb2.FINISH_REASON_LENGTH,
    "content_filter": chat_pb2.FINISH_REASON_CONTENT_FILTER,
}


def decode_answer(body: bytes) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is not a response object, or one of an answer that is not over.
        GatewayError: the answer failed, or the body is an error object in spite of its status.
    """
    wire = read(body)
    check_over(wire)
    response = chat_pb2.ChatResponse(id=wire.id or "", model=wire.model or "")
    set_unix_time(response, wire.created_at)
    if wire.service_tier is not None:
        response.service_tier = wire.service_tier
    with reading:
        _fill(response, wire)
    return response


def _fill(response: chat_pb2.ChatResponse, wire: AnswerWire) -> None:
    choice = response.choices.add()
    choice.message.role = content_pb2.ROLE_ASSISTANT
    written, calls = 0, False
    for raw in wire.output or ():
        kind = kind_of(raw)
        calls = calls or kind in CALLS
        if kind == "message":
            written += _add_message(MESSAGE.decode(bytes(raw)), choice, written)
        else:
            choice.message.parts.append(_item_part(kind, raw))
    choice.finish_reason, choice.provider_finish_reason = finish_reason(wire, calls=calls)
    if wire.usage is not None:
        decode_usage(wire.usage, response.usage)
    keep(response, told(wire.extra))


def decode_count(body: bytes) -> int:
    """The tokens of a prompt."""
    return count(parse(COUNT, body, error_in_body).input_tokens)


def read(body: bytes) -> AnswerWire:
    """A response object; an error object in its place is raised."""
    wire = parse(ANSWER, body, error_in_body)
    if wire.output is None and wire.status is None:
        raise error_in_body(body) or UpstreamProtocol("the upstream's answer has no output")
    return wire


def check_over(wire: AnswerWire) -> None:
    """Raises if the answer failed, or is still being made."""
    status = wire.status
    if status in ("completed", "incomplete", None):
        return
    if status == "failed":
        raise failure(bytes(wire.error))
    if status == "cancelled":
        raise UpstreamUnavailable("the upstream cancelled the answer")
    raise UpstreamProtocol(
        f"the upstream's answer is {status!r:.40}; answers made in the background cannot be fetched"
    )


def failure(error: bytes) -> GatewayError:
    """The error of an answer that failed."""
    return error_in_body(error) or UpstreamUnavailable(
        "the upstream's answer failed, it says not why"
    )


def finish_reason(wire: AnswerWire, *, calls: bool) -> tuple[chat_pb2.FinishReason.ValueType, str]:
    """Our reason, and the vendor's words."""
    if wire.status == "incomplete":
        why = (wire.incomplete_details and wire.incomplete_details.reason) or "incomplete"
        return INCOMPLETE_REASONS.get(why, chat_pb2.FINISH_REASON_OTHER), why
    reason = chat_pb2.FINISH_REASON_TOOL_CALLS if calls else chat_pb2.FINISH_REASON_STOP
    return reason, wire.status or ""


def told(extra: Extra) -> Members:
    """Unknown members that say something: the API is fond of null."""
    return there(extra) if extra else {}


# Messages.


def _add_message(item: MessageWire, choice: chat_pb2.Choice, written: int) -> int:
    """Adds a message's parts; how many characters of text they have.

    Args:
        item: the message item.
        choice: where the parts and their log probabilities go.
        written: characters of the texts before it, because citations count from the first.
    """
    before, head = written, message_extra(item)
    for raw in item.content or ():
        kind = kind_of(raw)
        if kind == "output_text":
            text = TEXT.decode(bytes(raw))
            if not (text.text or text.annotations or text.logprobs):
                continue
            if text.logprobs:
                choice.logprobs.content.extend(map(decode_token, text.logprobs))
            part = choice.message.parts.add()
            part.text = text.text
            part.annotations.extend(decode_annotation(a, written) for a in text.annotations or ())
            set_extra(part, head, text.extra)
            written += len(text.text)
        elif kind == "refusal":
            refusal = REFUSAL.decode(bytes(raw))
            part = choice.message.parts.add()
            part.refusal = refusal.refusal
            set_extra(part, head, refusal.extra)
        else:
            choice.message.parts.append(other_content(raw, head))
    return written - before


def message_extra(item: MessageWire) -> Members:
    """What a message's parts say of their item: its id and phase, and its status if it was cut."""
    extra: Members = {}
    if item.id is not None:
        extra["id"] = as_raw(item.id)
    if item.phase is not None:
        extra["phase"] = as_raw(item.phase)
    if item.status == "incomplete":
        extra["status"] = as_raw(item.status)
    return {**extra, **told(item.extra)}


def set_extra(part: content_pb2.Part, head: Members, own: Extra) -> None:
    """Sets a part's `extra_json` from its item's members and its own."""
    keep(part, told(own), head)


def other_content(raw: msgspec.Raw, head: Members) -> content_pb2.Part:
    """A content part of a kind that we do not know, as a message item with nothing else."""
    item = {"type": "message", "role": "assistant", "status": "completed", **head, "content": [raw]}
    return vendor_part(msgspec.json.encode(item))


def decode_annotation(raw: msgspec.Raw, written: int) -> content_pb2.Annotation:
    """A citation; kinds that we do not know stay JSON.

    Args:
        raw: the annotation object; its offsets count from the beginning of its own text.
        written: characters of the texts before that.
    """
    try:
        known = CITATION.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        known = None
    if known is None or known.type != "url_citation":
        return other_citation(raw)
    start, end = offset(known.start_index) + written, offset(known.end_index) + written
    return url_citation(known.url, known.title, start, end)


# Other items.


def _item_part(kind: str, raw: msgspec.Raw) -> content_pb2.Part:
    """The part that an item other than a message is."""
    if kind in CALLS:
        call = CALL.decode(bytes(raw))
        part = call_start(call)
        part.tool_call.arguments_json = call_arguments(call)
        set_extra(part, {}, call.extra)
        return part
    if kind == "reasoning":
        reasoning = REASONING.decode(bytes(raw))
        part = reasoning_start(reasoning)
        part.reasoning.text = "\n\n".join(text for _, text in thoughts(reasoning) if text)
        part.MergeFrom(reasoning_rest(reasoning))
        return part
    if kind == "image_generation_call":
        image = IMAGE.decode(bytes(raw))
        if image.result:
            part = image_start(image)
            part.image.data = bytes_of(image.result, "image")
            return part
    return vendor_part(raw)


def call_start(call: CallWire) -> content_pb2.Part:
    """A call as far as its beginning tells."""
    part = content_pb2.Part()
    part.tool_call.id = call.call_id or call.id or ""
    part.tool_call.name = call.name or ""
    part.tool_call.custom = call.type == "custom_tool_call"
    return part


def call_arguments(call: CallWire) -> str:
    """The arguments, or a custom tool's input."""
    return (call.input if call.type == "custom_tool_call" else call.arguments) or ""


def reasoning_start(item: ReasoningWire) -> content_pb2.Part:
    """A reasoning part as far as its beginning tells."""
    part = content_pb2.Part()
    part.reasoning.SetInParent()
    if item.id is not None:
        part.reasoning.id = item.id
        part.reasoning.dialect = NAME
    return part


def reasoning_rest(item: ReasoningWire) -> content_pb2.Part:
    """What only the whole item has: its encrypted content is not whole before."""
    part = content_pb2.Part()
    if item.encrypted_content:
        part.reasoning.encrypted = item.encrypted_content
        part.reasoning.dialect = NAME
    set_extra(part, {}, item.extra)
    return part


def thoughts(item: ReasoningWire) -> Iterable[tuple[tuple[str, int], str]]:
    """The pieces of the thinking, each with its place: itself, then its summary.

    OpenAI tells the summary, servers of open weights the thinking.
    """
    for name, pieces in (("text", item.content), ("summary", item.summary)):
        for index, piece in enumerate(pieces or ()):
            yield (name, index), piece.text


def image_start(item: ImageWire) -> content_pb2.Part:
    """A generated image but for its bytes."""
    part = content_pb2.Part()
    form = item.output_format or "png"
    part.image.media_type = "image/svg+xml" if form == "svg" else f"image/{form}"
    if item.id is not None:
        part.image.id = item.id
    set_extra(part, {}, item.extra)
    return part


def vendor_part(raw: msgspec.Raw | bytes) -> content_pb2.Part:
    """An item that only this API has, without the white space that only whole answers have."""
    part = content_pb2.Part()
    part.vendor_part.dialect = NAME
    try:
        part.vendor_part.json = msgspec.json.format(bytes(raw), indent=-1).decode()
    except UnicodeDecodeError as error:
        raise UpstreamProtocol("the upstream sent an item that is not UTF-8") from error
    return part


# Usage.


def decode_usage(wire: UsageWire, usage: chat_pb2.Usage) -> None:
    """Fills `usage`; details stay unset where the vendor tells nothing."""
    prompt, generated = count(wire.input_tokens), count(wire.output_tokens)
    usage.input_tokens, usage.output_tokens = prompt, generated
    total = wire.total_tokens
    usage.total_tokens = prompt + generated if total is None else count(total)
    inputs = wire.input_tokens_details or InputDetailsWire()
    if inputs.cached_tokens is not None:
        usage.cached_input_tokens = count(inputs.cached_tokens)
    if inputs.cache_write_tokens is not None:
        usage.cache_write_input_tokens = count(inputs.cache_write_tokens)
    outputs = wire.output_tokens_details or OutputDetailsWire()
    if outputs.reasoning_tokens is not None:
        usage.reasoning_output_tokens = count(outputs.reasoning_tokens)
    keep(
        usage,
        told(wire.extra),
        nested("input_tokens_details", told(inputs.extra)),
        nested("output_tokens_details", told(outputs.extra)),
    )
