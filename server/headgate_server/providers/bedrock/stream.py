"""ConverseStream's events to ChatEvents. Sans-I/O: the same events for every cut of the bytes.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html. Content
blocks are numbered; only some kinds announce themselves. The stop reason comes in `messageStop`, usage
behind it in `metadata`, which is the last event.
"""

from __future__ import annotations

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.base import Target
from headgate_server.providers.bedrock.answer import (
    FINISH_REASONS,
    SERVER_TOOL,
    answer_members,
    call_start,
    decode_citations,
    decode_usage,
    media_error,
    media_start,
    prove,
    server_call,
    server_result,
    stop_sequence,
    with_extra,
)
from headgate_server.providers.bedrock.errors import error_in_stream, unmodeled_error
from headgate_server.providers.bedrock.eventstream import EventStreamParser, Message
from headgate_server.providers.bedrock.wire import (
    BLOCK_DELTA,
    BLOCK_START,
    BLOCK_STOP,
    MESSAGE_STOP,
    METADATA,
    RESULT_DELTA,
    DeltaWire,
    MediaDeltaWire,
    MediaWire,
    MessageStopWire,
    MetadataWire,
    ReasoningDeltaWire,
    StartWire,
    ToolResultWire,
    ToolUseWire,
)
from headgate_server.providers.decoder import FrameDecoder
from headgate_server.providers.media import base64_of, bytes_of
from headgate_server.providers.parts import ChoiceWriter, Events, reason_of
from headgate_server.providers.shapes import as_raw, keep


class BedrockStreamDecoder(FrameDecoder[Message]):
    """Decodes one stream."""

    def __init__(self, max_event_bytes: int, target: Target) -> None:
        super().__init__(EventStreamParser(max_event_bytes))
        self._target = target
        self._writer = ChoiceWriter()
        self._blocks: dict[int, _Block] = {}
        self._written = 0  # characters of text so far, which citations count
        self._stop = MessageStopWire()
        self._metadata = MetadataWire()
        self._unknown = False

    def _begin(self, started: chat_pb2.Started) -> None:
        """Converse says nothing of an answer in advance."""

    def _check_whole(self) -> None:
        if not self._stop.stop_reason:
            raise UpstreamProtocol("the upstream's stream ended without a stop reason")

    def _complete(self, events: Events, completed: chat_pb2.Completed) -> None:
        stop, metadata = self._stop, self._metadata
        for index in list(self._blocks):
            self._end_block(index, events)
        words = stop.stop_reason or ""
        reason = reason_of(FINISH_REASONS, words, calls=self._writer.calls)
        finished = self._writer.finish(reason, words, events)
        additional = stop.additional_model_response_fields
        if (text := stop_sequence(additional)) is not None:
            finished.stop_sequence = text
        if metadata.usage is not None:
            decode_usage(metadata.usage, completed.usage)
        metadata.extra = {**(stop.extra or {}), **(metadata.extra or {})}
        keep(completed, answer_members(metadata, additional))
        if metadata.service_tier is not None:
            completed.service_tier = metadata.service_tier.type
        if self._unknown:
            completed.warnings.add(
                field="choices[0].message.parts",
                message="left out: the upstream sent a content block of a kind that is not known",
            )

    def _frame(self, frame: Message, events: Events) -> None:
        headers, payload = frame
        event = headers.get(":event-type")
        if event == "contentBlockDelta":
            delta = BLOCK_DELTA.decode(payload)
            self._delta(delta.content_block_index, delta.delta or DeltaWire(), events)
        elif event == "contentBlockStart":
            start = BLOCK_START.decode(payload)
            self._begin_block(start.content_block_index, start.start or StartWire(), events)
        elif event == "contentBlockStop":
            self._end_block(BLOCK_STOP.decode(payload).content_block_index, events)
        elif event == "messageStop":
            self._stop = MESSAGE_STOP.decode(payload)
        elif event == "metadata":
            self._metadata = METADATA.decode(payload)
            self.done = True
        elif (kind := headers.get(":message-type")) == "exception":
            raise error_in_stream(headers.get(":exception-type", ""), payload)
        elif kind == "error":
            raise unmodeled_error(headers.get(":error-code", ""), headers.get(":error-message", ""))
        # messageStart says only that the role is the assistant's.

    # Content blocks.

    def _begin_block(self, index: int, start: StartWire, events: Events) -> None:
        block = self._blocks[index] = _Block()
        if start.tool_use is not None:
            if start.tool_use.type == SERVER_TOOL:
                block.server_call = start.tool_use
            else:
                block.is_call = True
                block.part = self._writer.begin(call_start(start.tool_use), events)
        elif start.tool_result is not None:
            block.server_result = start.tool_result
        elif start.image is not None:
            block.part = self._writer.begin(media_start("image", start.image), events)

    def _delta(self, index: int, delta: DeltaWire, events: Events) -> None:
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block()
        if delta.text is not None:
            if delta.text:
                self._text(block, delta.text, events)
        elif delta.tool_use is not None:
            text = delta.tool_use.input
            if text and block.is_call:
                self._writer.delta(block.part, text, events)
            if text:
                block.arguments.append(text)
        elif delta.reasoning_content is not None:
            self._reasoning(block, delta.reasoning_content, events)
        elif bytes(delta.citation):
            block.citations.append(delta.citation)
        elif delta.tool_result is not None:
            for item in delta.tool_result:
                block.add_result(item)
        elif delta.image is not None:
            self._image(block, delta.image, events)
        else:
            self._unknown = True

    def _text(self, block: _Block, text: str, events: Events) -> None:
        if block.part < 0:
            block.offset = self._written
            block.part = self._writer.begin(content_pb2.Part(text=""), events)
        self._written += len(text)
        self._writer.delta(block.part, text, events)

    def _reasoning(self, block: _Block, delta: ReasoningDeltaWire, events: Events) -> None:
        if not (delta.text or delta.signature or delta.redacted_content):
            return
        if block.part < 0:
            initial = content_pb2.Part()
            initial.reasoning.SetInParent()
            block.part = self._writer.begin(initial, events)
        if delta.text:
            self._writer.delta(block.part, delta.text, events)
        if delta.signature:
            block.signature.append(delta.signature)
        if delta.redacted_content:
            block.redacted.append(bytes_of(delta.redacted_content, "thinking"))

    def _image(self, block: _Block, delta: MediaDeltaWire, events: Events) -> None:
        if block.part < 0:
            block.part = self._writer.begin(media_start("image", MediaWire(format="png")), events)
        if delta.source is not None and delta.source.bytes:
            self._writer.delta(block.part, "", events, data=bytes_of(delta.source.bytes, "media"))
        block.rest = with_extra(content_pb2.Part(), media_error(delta.error))

    def _end_block(self, index: int, events: Events) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        rest: content_pb2.Part | None = None
        if block.server_call is not None:
            arguments = "".join(block.arguments) or "{}"
            block.part = self._writer.begin(server_call(block.server_call, arguments), events)
        elif block.server_result is not None:
            result = server_result(block.server_result, block.result())
            block.part = self._writer.begin(result, events)
        elif block.is_call:
            if not block.arguments:
                self._writer.delta(block.part, "{}", events)
        elif block.citations:
            if block.part < 0:
                block.offset = self._written
                block.part = self._writer.begin(content_pb2.Part(text=""), events)
            found = decode_citations(block.citations, block.offset, self._written)
            self._writer.delta(block.part, "", events).annotations.extend(found)
        elif block.signature or block.redacted:
            rest = content_pb2.Part()
            redacted = base64_of(b"".join(block.redacted))
            prove(rest.reasoning, "".join(block.signature), redacted, self._target)
        else:
            rest = block.rest
        if block.part >= 0:
            self._writer.end(block.part, events, rest)


class _Block:
    """A content block under way."""

    __slots__ = (
        "arguments", "citations", "is_call", "offset", "part", "redacted", "rest", "results",
        "server_call", "server_result", "signature",
    )  # fmt: skip

    def __init__(self) -> None:
        self.part = -1  # its part; none for text that is still empty, and for what comes as a whole
        self.offset = 0  # where its text begins
        self.is_call = False
        self.arguments: list[str] = []
        self.signature: list[str] = []
        self.redacted: list[bytes] = []
        self.citations: list[msgspec.Raw] = []
        self.server_call: ToolUseWire | None = None
        self.server_result: ToolResultWire | None = None
        self.results: list[msgspec.Raw | list[str]] = []  # texts that follow each other are one
        self.rest: content_pb2.Part | None = None

    def add_result(self, item: msgspec.Raw) -> None:
        """Adds a piece of a server tool's result."""
        text = RESULT_DELTA.decode(bytes(item)).text
        last = self.results[-1] if self.results else None
        if text is None:
            self.results.append(item)
        elif isinstance(last, list):
            last.append(text)
        else:
            self.results.append([text])

    def result(self) -> list[msgspec.Raw]:
        """The content of a server tool's result."""
        return [
            as_raw({"text": "".join(item)}) if isinstance(item, list) else item
            for item in self.results
        ]
