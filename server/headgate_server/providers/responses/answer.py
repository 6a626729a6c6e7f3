"""A response object to ChatResponse, and the reading of items that streams share with it. Pure.

An answer is one choice, whose parts are the output items in their order. What an item has beside the
schema (its id, the phase of a message) is in the part's `extra_json`, but for the ids of calls: with
`call_id` they are of no use. Items of the API's own tools are vendor parts.

Source: https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import msgspec

from headgate.errors import GatewayError, UpstreamProtocol, UpstreamUnavailable
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_text
from headgate_server.providers.responses.errors import error_in_body
from headgate_server.providers.responses.wire import (
    ANSWER,
    CALL,
    CITATION,
    COUNT,
    IMAGE,
    KIND,
    MESSAGE,
    REASONING,
    REFUSAL,
    TEXT,
    AnswerWire,
    CallWire,
    ImageWire,
    MessageWire,
    Number,
    ReasoningWire,
    TokenLogprobWire,
    UsageWire,
)

NAME = "openai_responses"
CALLS = frozenset(("function_call", "custom_tool_call"))
INCOMPLETE_REASONS = {
    "max_output_tokens": chat_pb2.FINISH_REASON_LENGTH,
    "content_filter": chat_pb2.FINISH_REASON_CONTENT_FILTER,
}
_YEAR_10000 = 253_402_300_800  # where Timestamps end

Members = dict[str, msgspec.Raw]


def decode_answer(body: bytes) -> chat_pb2.ChatResponse:
    """The whole answer.

    Raises:
        UpstreamProtocol: the body is not a response object, or one of an answer that is not over.
        GatewayError: the answer failed, or the body is an error object in spite of its status.
    """
    try:
        return _response(parse(body))
    except MalformedJson as error:
        raise malformed(error) from error


def decode_count(body: bytes) -> int:
    """The tokens of a prompt."""
    try:
        return _whole(COUNT.decode(body).input_tokens)
    except MalformedJson as error:
        raise malformed(error) from error


def malformed(error: MalformedJson) -> UpstreamProtocol:
    """One wording for whatever is wrong with the text."""
    return UpstreamProtocol(f"the upstream's answer is malformed: {error}")


def parse(body: bytes) -> AnswerWire:
    """A response object; an error object in its place is raised."""
    try:
        wire = ANSWER.decode(body)
    except MalformedJson as error:
        raise (error_in_body(body) if error.is_json else None) or malformed(error) from error
    if wire.output is None and wire.status is None:
        raise error_in_body(body) or UpstreamProtocol("the upstream's answer has no output")
    return wire


def _response(wire: AnswerWire) -> chat_pb2.ChatResponse:
    check_over(wire)
    response = chat_pb2.ChatResponse(id=wire.id or "", model=wire.model or "")
    set_time(response, wire.created_at)
    if wire.service_tier is not None:
        response.service_tier = wire.service_tier
    choice = response.choices.add()
    choice.message.role = content_pb2.ROLE_ASSISTANT
    written, calls = 0, False
    for raw in wire.output or ():
        kind = kind_of(raw)
        calls = calls or kind in CALLS
        if kind == "message":
            written += _add_message(MESSAGE.decode(bytes(raw)), choice, written)
        else:
            choice.message.parts.append(item_part(kind, raw))
    choice.finish_reason, choice.provider_finish_reason = finish_reason(wire, calls=calls)
    if wire.usage is not None:
        decode_usage(wire.usage, response.usage)
    extra = json_text(told(wire.extra))
    if extra:
        response.extra_json = extra
    return response


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


def set_time(into: chat_pb2.ChatResponse | chat_pb2.Started, unix: Number | None) -> None:
    """Sets the time of creation from the Unix time, if there is one."""
    if unix is None:
        return
    if not 0 <= unix < _YEAR_10000:
        raise UpstreamProtocol(f"the upstream's time {unix!r:.40} is none")
    into.create_time.seconds = int(unix)


def finish_reason(wire: AnswerWire, *, calls: bool) -> tuple[chat_pb2.FinishReason.ValueType, str]:
    """Our reason, and the vendor's words."""
    if wire.status == "incomplete":
        why = (wire.incomplete_details and wire.incomplete_details.reason) or "incomplete"
        return INCOMPLETE_REASONS.get(why, chat_pb2.FINISH_REASON_OTHER), why
    reason = chat_pb2.FINISH_REASON_TOOL_CALLS if calls else chat_pb2.FINISH_REASON_STOP
    return reason, wire.status or ""


def told(extra: Extra) -> Members:
    """Unknown members that say something: the API is fond of null."""
    return {name: raw for name, raw in (extra or {}).items() if bytes(raw) != b"null"}


def kind_of(raw: msgspec.Raw | bytes) -> str:
    """The type of an item, a content part or an event."""
    try:
        return KIND.decode(raw).type
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamProtocol("the upstream sent an item without a type") from error


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
        extra["id"] = _raw(item.id)
    if item.phase is not None:
        extra["phase"] = _raw(item.phase)
    if item.status == "incomplete":
        extra["status"] = _raw(item.status)
    return {**extra, **told(item.extra)}


def set_extra(part: content_pb2.Part, head: Members, own: Extra) -> None:
    """Sets a part's `extra_json` from its item's members and its own."""
    extra = json_text({**told(own), **head})
    if extra:
        part.extra_json = extra


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
        return content_pb2.Annotation(other_json=raw_text(raw) or "{}")
    return content_pb2.Annotation(
        url_citation=content_pb2.UrlCitation(
            url=known.url,
            title=known.title,
            start_index=_whole(known.start_index) + written,
            end_index=_whole(known.end_index) + written,
        )
    )


def decode_token(wire: TokenLogprobWire) -> chat_pb2.TokenLogprob:
    """A token and how likely it was."""
    token = chat_pb2.TokenLogprob(token=wire.token or "", logprob=_logprob(wire.logprob))
    if wire.bytes is not None:
        token.bytes = _token_bytes(wire.bytes)
    for top in wire.top_logprobs or ():
        added = token.top.add(token=top.token or "", logprob=_logprob(top.logprob))
        if top.bytes is not None:
            added.bytes = _token_bytes(top.bytes)
    return token


def _logprob(value: Number | None) -> float:
    return -9999.0 if value is None else float(value)


def _token_bytes(values: list[int]) -> bytes:
    try:
        return bytes(values)
    except ValueError as error:
        raise UpstreamProtocol("the upstream's token bytes are not bytes") from error


# Other items.


def item_part(kind: str, raw: msgspec.Raw) -> content_pb2.Part:
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
            part.image.data = image_bytes(image)
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


def image_bytes(item: ImageWire) -> bytes:
    """The bytes of a generated image."""
    try:
        return base64.b64decode(item.result or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise UpstreamProtocol("the upstream's image is not base64") from error


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
    prompt, generated = _whole(wire.input_tokens or 0), _whole(wire.output_tokens or 0)
    usage.input_tokens, usage.output_tokens = prompt, generated
    usage.total_tokens = (
        prompt + generated if wire.total_tokens is None else _whole(wire.total_tokens)
    )
    extras = told(wire.extra)
    if (inputs := wire.input_tokens_details) is not None:
        if inputs.cached_tokens is not None:
            usage.cached_input_tokens = _whole(inputs.cached_tokens)
        if inputs.cache_write_tokens is not None:
            usage.cache_write_input_tokens = _whole(inputs.cache_write_tokens)
        if more := told(inputs.extra):
            extras["input_tokens_details"] = _raw(more)
    if (outputs := wire.output_tokens_details) is not None:
        if outputs.reasoning_tokens is not None:
            usage.reasoning_output_tokens = _whole(outputs.reasoning_tokens)
        if more := told(outputs.extra):
            extras["output_tokens_details"] = _raw(more)
    text = json_text(extras)
    if text:
        usage.extra_json = text


def _whole(number: Number) -> int:
    value = int(number)
    if not -(2**31) <= value < 2**62:
        raise UpstreamProtocol("the upstream sent a number out of range")
    return value


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
