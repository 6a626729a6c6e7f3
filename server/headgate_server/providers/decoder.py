"""What all stream decoders have in common: frames in, events out, and what becomes of an error. Sans-I/O.

A dialect's decoder says what a frame means, how its answer begins and how it ends. `SseDecoder` is the
base of those whose frames are server-sent events; others bring a parser of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson
from headgate_server.providers.faults import malformed, reading
from headgate_server.providers.parts import Events
from headgate_server.sse import SseEvent, SseParser

Frame = TypeVar("Frame")
FrameOut = TypeVar("FrameOut", covariant=True)
_DONE = b"[DONE]"


class FrameParser(Protocol[FrameOut]):
    """Cuts bytes into frames, the same for every cut of the bytes."""

    def feed(self, data: bytes) -> Iterable[FrameOut]:
        """Takes the next bytes; the frames that they complete."""
        ...

    def finish(self) -> Iterable[FrameOut]:
        """The end of input; the last frame, if its end was missing."""
        ...


class FrameDecoder(ABC, Generic[Frame]):
    """Decodes one stream; see `StreamDecoder` in `providers.base`.

    Args:
        parser: of its frames.

    Attributes:
        done: whether nothing is to be waited for. A subclass sets it with the last frame.
    """

    def __init__(self, parser: FrameParser[Frame]) -> None:
        self.done = False
        self._parser = parser
        self._started = False
        self._failure: GatewayError | None = None

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes."""
        return [] if self.done else self._take(self._parser.feed(data))

    def finish(self) -> Events:
        """The end of the body: Completed, or `UpstreamProtocol` if the answer is not whole."""
        events = [] if self.done else self._take(self._parser.finish())
        if self._failure is not None:
            raise self._failure
        self._check_whole()
        return self._close(events)

    def _take(self, frames: Iterable[Frame]) -> Events:
        events: Events = []
        try:
            for frame in frames:
                self._frame(frame, events)
                if not self._started and events:
                    self._start(events)
                if self.done:
                    break  # whatever follows is nobody's
        except (GatewayError, MalformedJson) as error:
            failure = malformed(error) if isinstance(error, MalformedJson) else error
            if not events:
                raise failure from error
            # What came in the same read goes out first, as it would have in a read of its own.
            self._failure, self.done = failure, True
            if not self._started:
                self._start(events)
        return events

    def _start(self, events: Events) -> None:
        """Puts Started in front of the first real event, so that an early error can stay an error."""
        event = chat_pb2.ChatEvent()
        event.started.SetInParent()
        self._begin(event.started)
        self._started = True
        events.insert(0, event)

    def _close(self, events: Events) -> Events:
        """Adds the last events."""
        last = chat_pb2.ChatEvent()
        last.completed.SetInParent()
        with reading:
            self._complete(events, last.completed)
        if not self._started:
            self._start(events)
        events.append(last)
        return events

    @abstractmethod
    def _frame(self, frame: Frame, events: Events) -> None:
        """Adds the events of a frame. Raises `GatewayError` and `MalformedJson`."""

    @abstractmethod
    def _begin(self, started: chat_pb2.Started) -> None:
        """Fills Started with what is known when the first real event goes out."""

    @abstractmethod
    def _check_whole(self) -> None:
        """Raises `UpstreamProtocol` if the stream ended too early."""

    @abstractmethod
    def _complete(self, events: Events, completed: chat_pb2.Completed) -> None:
        """Ends the choices, and fills Completed."""


class SseDecoder(FrameDecoder[SseEvent]):
    """Decodes a stream of server-sent events with JSON in their data.

    Args:
        max_event_bytes: the largest event.
    """

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(SseParser(max_event_bytes))

    def _frame(self, frame: SseEvent, events: Events) -> None:
        data = frame.data
        # The mark is OpenAI's; some servers of other dialects send it, too.
        if data and data != _DONE:
            self._event(data, events)

    @abstractmethod
    def _event(self, data: bytes, events: Events) -> None:
        """Adds the events of an event's data. Raises `GatewayError` and `MalformedJson`."""
