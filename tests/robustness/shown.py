"""Every front door as a pure translation: what it makes of an answer or of events.

Checked as a client reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_facade.anthropic.door import MessagesDoor
from headgate_facade.endpoint import Call, Door
from headgate_facade.gemini.door import GeminiDoor
from headgate_facade.openai.chat import ChatDoor
from headgate_facade.openai.completions import CompletionsDoor
from headgate_facade.responses.door import ResponsesDoor

DIALECTS = ("openai", "anthropic", "gemini", "openai_responses", "cohere")
_TURN = {"role": "user", "content": "x"}
_STREAM = {"stream": True, "stream_options": {"include_usage": True}}
# name -> (door, path, query, body)
_ASKED: dict[str, tuple[Door, str, bytes, dict[str, Any]]] = {
    "openai": (
        ChatDoor(reasoning_in_unary=True), "/v1/chat/completions", b"",
        {"model": "m", "messages": [_TURN], **_STREAM},
    ),
    "completions": (
        CompletionsDoor(), "/v1/completions", b"", {"model": "m", "prompt": "x", **_STREAM},
    ),
    "anthropic": (
        MessagesDoor(), "/v1/messages", b"",
        {"model": "m", "max_tokens": 9, "messages": [_TURN], "stream": True},
    ),
    "gemini": (
        GeminiDoor(), "/v1beta/models/m:streamGenerateContent", b"alt=sse",
        {
            "contents": [{"parts": [{"text": "x"}]}],
            "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
        },
    ),
    "responses": (
        ResponsesDoor(lambda: 1.0), "/v1/responses", b"",
        {"model": "m", "input": "x", "stream": True},
    ),
}  # fmt: skip
DOORS = list(_ASKED)


def calls() -> Iterator[tuple[str, Call]]:
    """A call of each door, which asks for everything."""
    for name, (door, path, query, body) in _ASKED.items():
        scope = {"path": path, "query_string": query, "headers": []}
        yield name, door.read(scope, json.dumps(body).encode())


def show_answer(response: chat_pb2.ChatResponse) -> None:
    """Fails unless every door can show the answer, whoever gave it."""
    for dialect in DIALECTS:
        response.served.dialect = dialect
        for _, call in calls():
            assert isinstance(json.loads(call.answer(response)), dict)


def show_events(
    events: Sequence[chat_pb2.ChatEvent], error: GatewayError | None, dialects: Sequence[str]
) -> None:
    """Fails unless every door can show the events, whoever sent them."""
    for dialect in dialects:
        if events:
            events[0].started.served.dialect = dialect
        for name, call in calls():
            writer = call.writer()
            text = writer.write(events) if events else b""
            if error is not None:
                text += writer.error(error)
            for event in server_sent(text):
                assert isinstance(event, dict), name


def server_sent(text: bytes) -> list[Any]:
    """The data of an event stream, by the letter of the specification: any line end counts."""
    assert not text or text.endswith((b"\n\n", b"\r\n\r\n"))
    found: list[Any] = []
    data: list[str] = []
    for line in re.split(r"\r\n|\n|\r", text.decode()):
        if not line:
            if data and data != ["[DONE]"]:
                found.append(json.loads("\n".join(data)))
            data = []
            continue
        name, colon, value = line.partition(":")
        assert colon and name in ("data", "event", ""), f"no line of an event stream: {line[:80]!r}"
        if name == "data":
            data.append(value.removeprefix(" "))
    return found
