"""One candidate's parts to the events of a choice: whole answers and chunks alike. Sans-I/O.

The provider's parts do not map one to one: text comes in pieces, an empty text may carry nothing but a
signature, and sound comes in pieces, too. The rules:

- Texts of one kind that follow each other are one part; so are pieces of raw sound.
- A signature belongs to the part that it came with; what follows it, is another part. One that comes with
  an empty text belongs to the text in front of it.
- What only this API has (executed code, its own tools, images of thinking) is a vendor part, as it is.
"""

from __future__ import annotations

import hashlib

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import Extra, json_text, raw_text
from headgate_server.providers.gemini.answer import (
    FINISH_REASONS,
    absorb,
    candidate_members,
    decode_logprobs,
    said_reason,
)
from headgate_server.providers.gemini.calls import StreamedArguments
from headgate_server.providers.gemini.grounding import Texts
from headgate_server.providers.gemini.wire import (
    BlobWire,
    CandidateWire,
    FileDataWire,
    FunctionCallWire,
    PartWire,
)
from headgate_server.providers.parts import ChoiceWriter, Events, reason_of
from headgate_server.providers.shapes import Members, as_raw, is_there, keep, nested, there

DIALECT = "gemini"
# Sound without a header, so that pieces of it can be joined.
_RAW_SOUND = ("audio/l16", "audio/pcm")


class Candidate:
    """The state of one candidate.

    Args:
        index: its place.
        answer_id: of the whole answer; the ids of calls that have none are derived from it.
    """

    def __init__(self, index: int, answer_id: str) -> None:
        self._writer = ChoiceWriter(index)
        self._answer_id = answer_id
        self.reason = ""
        self._signature = ""  # of the running text; nothing is added to a signed one
        self._text_extra: Members = {}
        self._texts = Texts()
        self._sound: tuple[int, str] | None = None  # the open part and its media type
        self._call: tuple[int, StreamedArguments] | None = None  # the call that is being streamed
        self._calls = 0
        self._logprobs: list[chat_pb2.TokenLogprob] = []
        self._members: Members = {}
        self._content_members: Members = {}

    def take(self, wire: CandidateWire, events: Events) -> None:
        """Adds the events of a chunk, or of the whole candidate."""
        first = len(events)
        content = wire.content
        if content is not None:
            for part in content.parts or ():
                self._part(part, events)
            if content.extra:
                self._content_members.update(content.extra)
        absorb(self._members, candidate_members(wire))
        if is_there(wire.logprobs_result):
            self._logprobs.extend(decode_logprobs(wire.logprobs_result))
            self._put_logprobs(events, first)
        self.reason = said_reason(wire) or self.reason

    def finish(self, events: Events) -> None:
        """Adds the last events."""
        self._end_call(events)
        self._annotate(events)
        if self._logprobs:
            self._text("text", "", events).logprobs.extend(self._logprobs)
        self._close(events)
        reason = reason_of(FINISH_REASONS, self.reason, calls=self._writer.calls)
        finished = self._writer.finish(reason, self.reason, events)
        keep(finished, self._members)
        if extra := json_text(self._content_members):
            finished.message_extra_json = extra

    def _part(self, wire: PartWire, events: Events) -> None:
        call = wire.function_call
        if wire.text is not None and call is None:
            self._text_part(wire, events)
            return
        if call is not None:
            self._texts.other()
            self._function_call(call, wire, events)
            return
        if (wire.inline_data is not None or wire.file_data is not None) and not wire.thought:
            self._texts.other()
            self._media(wire, events)
            return
        known = _vendor_members(wire)
        if known or wire.extra:
            self._texts.other()
            self._vendor_part({**known, **_rest_of(wire)}, events)
        else:
            self._text_part(wire, events)

    # Texts.

    def _text_part(self, wire: PartWire, events: Events) -> None:
        kind = "reasoning" if wire.thought else "text"
        text, signature = wire.text or "", wire.thought_signature or ""
        if not text and not signature and not wire.extra:
            self._texts.other()
            return  # it came for the finish reason only
        if self._signature:
            self._close(events)
        new = self._writer.running != kind
        if text or new:
            self._text(kind, text, events)
        if kind == "text":
            self._texts.text(text, new=new)
        else:
            self._texts.other()
        self._signature = signature
        if wire.extra:
            self._text_extra.update(wire.extra)

    def _text(self, kind: str, text: str, events: Events) -> chat_pb2.PartDelta:
        if self._writer.running != kind:
            self._close(events)
            self._end_sound(events)
        return self._writer.text(kind, text, events)

    def _close(self, events: Events) -> None:
        """Ends the running text with what belongs to it."""
        rest = content_pb2.Part()
        if self._signature and self._writer.running == "reasoning":
            rest.reasoning.signature = self._signature
            rest.reasoning.dialect = DIALECT
        elif self._signature:
            rest.thought_signature = self._signature
        keep(rest, self._text_extra)
        self._signature, self._text_extra = "", {}
        self._writer.close_text(events, rest)

    def _annotate(self, events: Events) -> None:
        metadata = self._members.get("groundingMetadata")
        if metadata is None:
            return
        annotations = self._texts.annotations(metadata)
        if annotations:
            # Their places count in the message's text, so that any text part may carry them.
            self._text("text", "", events).annotations.extend(annotations)

    def _put_logprobs(self, events: Events, first: int) -> None:
        for event in reversed(events[first:]):
            if event.HasField("part_delta"):
                event.part_delta.logprobs.extend(self._logprobs)
                self._logprobs = []
                return

    # Parts that come whole.

    def _begin(self, part: content_pb2.Part, wire: PartWire, extra: Extra, events: Events) -> int:
        self._close(events)
        self._end_sound(events)
        if wire.thought_signature:
            part.thought_signature = wire.thought_signature
        keep(part, extra)
        return self._writer.begin(part, events)

    def _vendor_part(self, members: Members, events: Events) -> None:
        text = _compact(as_raw(members))
        part = content_pb2.Part(vendor_part=content_pb2.VendorPart(dialect=DIALECT, json=text))
        self._close(events)
        self._end_sound(events)
        self._writer.end(self._writer.begin(part, events), events)

    def _media(self, wire: PartWire, events: Events) -> None:
        blob: BlobWire | FileDataWire
        part = content_pb2.Part()
        if wire.inline_data is not None:
            blob, data = wire.inline_data, wire.inline_data.data
            media = _media_of(part, blob.mime_type)
        elif wire.file_data is not None:
            blob, data = wire.file_data, b""
            media = _media_of(part, blob.mime_type)
            media.url = wire.file_data.file_uri
        else:
            return
        raw_sound = blob.mime_type.lower().startswith(_RAW_SOUND)
        if (
            raw_sound
            and self._sound is not None
            and self._sound[1] == blob.mime_type
            and not wire.thought_signature
            and not wire.extra
            and not blob.extra
        ):
            self._writer.delta(self._sound[0], "", events, data=data)
            return
        member = "inlineData" if wire.inline_data is not None else "fileData"
        index = self._begin(part, wire, _with(wire.extra, member, blob.extra), events)
        if data:
            self._writer.delta(index, "", events, data=data)
        if raw_sound:
            self._sound = (index, blob.mime_type)
        else:
            self._writer.end(index, events)

    def _end_sound(self, events: Events) -> None:
        if self._sound is not None:
            self._writer.end(self._sound[0], events)
            self._sound = None

    # Calls.

    def _function_call(self, call: FunctionCallWire, wire: PartWire, events: Events) -> None:
        if self._call is not None and (call.partial_args is not None or not call.name):
            self._go_on(call, events)
            return
        self._end_call(events)
        part = content_pb2.Part(
            tool_call=content_pb2.ToolCall(id=call.id or self._made_up_id(), name=call.name or "")
        )
        extra = _with(wire.extra, "functionCall", call.extra)
        index = self._begin(part, wire, extra, events)
        if call.will_continue or call.partial_args is not None:
            self._call = (index, StreamedArguments())
            self._go_on(call, events)
            return
        arguments = _compact(call.args) if is_there(call.args) else "{}"
        self._writer.delta(index, arguments, events)
        self._writer.end(index, events)

    def _go_on(self, call: FunctionCallWire, events: Events) -> None:
        """Takes a piece of the call that is being streamed; the last one says so by what it lacks."""
        if self._call is None:
            raise UpstreamProtocol("the upstream sent a piece of a call that never began")
        for piece in call.partial_args or ():
            self._call[1].add(piece)
        if not call.will_continue:
            self._end_call(events)

    def _end_call(self, events: Events) -> None:
        if self._call is not None:
            index, arguments = self._call
            self._call = None
            self._writer.delta(index, arguments.text(), events)
            self._writer.end(index, events)

    def _made_up_id(self) -> str:
        """An id for a call that has none: the same for a whole answer as for the stream of it."""
        self._calls += 1
        seed = f"{self._answer_id}/{self._writer.index}/{self._calls}"
        return f"call_{hashlib.sha256(seed.encode()).hexdigest()[:24]}"


def _media_of(part: content_pb2.Part, media_type: str) -> content_pb2.Media:
    kind = media_type.partition("/")[0].lower()
    media = part.image if kind == "image" else part.audio if kind == "audio" else part.file
    media.media_type = media_type
    return media


def _vendor_members(wire: PartWire) -> Members:
    """What makes a part one that only this API has; empty if it is none."""
    named = {
        "executableCode": wire.executable_code,
        "codeExecutionResult": wire.code_execution_result,
        "toolCall": wire.tool_call,
        "toolResponse": wire.tool_response,
    }
    found = there(named)
    # Images on the way to the answer: with the flag they are thinking, of which we have only texts.
    if wire.inline_data is not None:
        found["inlineData"] = _encoded(wire.inline_data, wire.inline_data.extra)
    if wire.file_data is not None:
        found["fileData"] = _encoded(wire.file_data, wire.file_data.extra)
    return found


def _rest_of(wire: PartWire) -> Members:
    rest: Members = dict(wire.extra or {})
    if wire.thought is not None:
        rest["thought"] = as_raw(wire.thought)
    if wire.thought_signature is not None:
        rest["thoughtSignature"] = as_raw(wire.thought_signature)
    return rest


def _encoded(blob: BlobWire | FileDataWire, extra: Extra) -> msgspec.Raw:
    members = msgspec.to_builtins(blob, builtin_types=(msgspec.Raw,))
    members = {name: value for name, value in members.items() if isinstance(value, str) and value}
    return as_raw({**members, **(extra or {})})


def _compact(value: msgspec.Raw) -> str:
    """The JSON text without the layout, which is the API's: it differs from answer to stream."""
    return raw_text(msgspec.Raw(msgspec.json.format(bytes(value), indent=-1))) or "{}"


def _with(extra: Extra, member: str, inner: Extra) -> Extra:
    """The unknown members of a part, those inside of its kind's own object included."""
    return {**(extra or {}), **nested(member, inner)} if inner else extra
