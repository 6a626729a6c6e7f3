"""The REST front doors against their golden folders, and the laws that hold over all of them.

A case is a folder `golden/door_<name>/<case>`. Inputs, written by hand in the shapes that the door's
vendor documents:

- `http_request.json`: the body of a request. Without one, the door's usual request (`UnderTest.body`)
  is read, because the form of an answer depends on what was asked.
- `http.json`: `{"path", "query", "headers"}` of the request, where they matter
- `response.json`: a ChatResponse
- `events.jsonl`: the ChatEvents of the same answer, a line each
- `error_in.json`: `{"kind", "message", "fields", "retry_after"}` of a GatewayError, all but the kind
  optional; with `events.jsonl` beside it, it ends the stream

Outputs, written by `pytest tests/unit/test_door_golden.py -k door_<name> --update-golden` and reviewed:

- `request.json`: the ChatRequest
- `http_response.json`, `http_stream.txt`: the same answer, whole and as a stream
- `http_error.json`: status, headers and body of an error: the one of `error_in.json`, or that of a
  request that cannot be read

A door comes in by one line of `DOORS`. What puts its streams together again, as its vendor's SDK does,
lives in `tests/assembly/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from assembly import anthropic_stream, gemini_stream, responses_stream
from headgate import errors
from headgate.errors import FieldViolation, GatewayError, InvalidRequest
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_facade.anthropic.door import MessagesDoor
from headgate_facade.endpoint import Call, Door
from headgate_facade.failures import in_words
from headgate_facade.gemini.door import GeminiDoor
from headgate_facade.responses.door import ResponsesDoor
from headgate_server.validate import validate

ROOT = Path(__file__).parents[1] / "golden"
REQUEST_ID = "req_0123456789"


@dataclass(frozen=True)
class UnderTest:
    """A door, and what the laws need to know about its format.

    Attributes:
        door: makes one.
        path: of its usual request.
        body: of its usual request.
        assemble: puts the text of a whole stream together to the body of a unary answer.
        comparable: takes out of both bodies what only one of them can hold.
        enough: the least number of cases.
    """

    door: Callable[[], Door]
    path: str
    body: Any
    assemble: Callable[[str], Any]
    comparable: Callable[[Any], Any] = field(default=lambda body: body)
    enough: int = 20


DOORS: dict[str, UnderTest] = {
    "anthropic": UnderTest(
        door=MessagesDoor,
        path="/v1/messages",
        body={
            "model": "m",
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": "Hello, Claude"}],
        },
        assemble=anthropic_stream.assemble,
        enough=40,
    ),
    "gemini": UnderTest(
        door=GeminiDoor,
        path="/v1beta/models/m:generateContent",
        body={"contents": [{"parts": [{"text": "How does AI work?"}]}]},
        assemble=gemini_stream.assemble,
        comparable=gemini_stream.comparable,
        enough=60,
    ),
    "responses": UnderTest(
        door=lambda: ResponsesDoor(lambda: 1760000000.5),
        path="/v1/responses",
        body={"model": "m", "input": "Hello!"},
        assemble=responses_stream.assemble,
        enough=60,
    ),
}
CASES = sorted(
    path for name in DOORS for path in (ROOT / f"door_{name}").glob("*") if path.is_dir()
)

Events = list[chat_pb2.ChatEvent]


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


class Case:
    def __init__(self, folder: Path, *, update: bool = False) -> None:
        self.folder = folder
        self.update = update
        self.facts = DOORS[folder.parent.name.removeprefix("door_")]
        self.door = self.facts.door()

    def text(self, name: str) -> str | None:
        path = self.folder / name
        # As bytes, because it matters how a stream's lines end.
        return path.read_bytes().decode() if path.exists() else None

    def json(self, name: str) -> Any:
        text = self.text(name)
        return None if text is None else json.loads(text)

    def read(self) -> Call:
        """The request as the door understands it."""
        http = self.json("http.json") or {}
        headers = {"content-type": "application/json", **http.get("headers", {})}
        path = http.get("path", self.facts.path)
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": http.get("query", "").encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }
        text = self.text("http_request.json")
        body = json.dumps(self.facts.body) if text is None else text
        return self.door.read(scope, body.encode())

    def response(self) -> chat_pb2.ChatResponse | None:
        text = self.text("response.json")
        return None if text is None else json_format.Parse(text, chat_pb2.ChatResponse())

    def events(self) -> Events | None:
        text = self.text("events.jsonl")
        if text is None:
            return None
        return [json_format.Parse(line, chat_pb2.ChatEvent()) for line in text.splitlines() if line]

    def error(self) -> GatewayError | None:
        given = self.json("error_in.json")
        if given is None:
            return None
        kind: type[GatewayError] = getattr(errors, given["kind"])
        message, retry_after = given.get("message", "Something failed."), given.get("retry_after")
        if issubclass(kind, InvalidRequest):
            fields = [FieldViolation(name, message) for name in given.get("fields", [])]
            return kind(message, violations=fields, retry_after=retry_after)
        return kind(message, retry_after=retry_after)

    def stream(self) -> str | None:
        """The text of the streamed answer, ended by the error if there is one."""
        events = self.events()
        if events is None:
            return None
        writer = self.read().writer()
        out = writer.write(events)
        error = self.error()
        if error is not None:
            out += writer.error(in_words(error, self.read().words))
        return out.decode()

    def check(self, name: str, found: str | None, parse: Callable[[str], Any]) -> None:
        """Compares with the file of that name, or writes it."""
        path = self.folder / name
        if self.update:
            if found is not None:
                path.write_text(found, "utf-8")
            else:
                path.unlink(missing_ok=True)
            return
        expected = self.text(name)
        assert (found is None) == (expected is None), f"{name}: {found}"
        if found is not None and expected is not None:
            assert parse(found) == parse(expected)


def with_order(text: str) -> Any:
    """JSON in which the order of members, and how numbers are written, make a difference."""
    return json.loads(text, object_pairs_hook=list, parse_float=str, parse_int=str)


def dump(message: Message) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, indent=2, ensure_ascii=False
    )


def dump_error(door: Door, error: GatewayError) -> str:
    """Written by hand around the body, which must stay as it is."""
    headers = {k.decode(): v.decode() for k, v in door.error_headers(error, REQUEST_ID)}
    body = door.error(error, REQUEST_ID).decode()
    return f'{{\n"status": {error.http_status},\n"headers": {json.dumps(headers)},\n"body": {body}\n}}\n'


def request_of(text: str) -> chat_pb2.ChatRequest:
    return json_format.Parse(text, chat_pb2.ChatRequest())


@pytest.mark.parametrize("folder", CASES, ids=name_of)
def test_door_golden(folder: Path, update_golden: bool) -> None:
    case = Case(folder, update=update_golden)
    call: Call | None = None
    failure = case.error() if case.events() is None else None
    try:
        call = case.read()
        failure = failure and in_words(failure, call.words)
    except GatewayError as error:
        assert failure is None, "a request that cannot be read, and an error beside it"
        failure = error

    asked = call.request if call is not None and case.text("http_request.json") else None
    case.check("request.json", dump(asked) + "\n" if asked is not None else None, request_of)

    response = case.response()
    body = call.answer(response).decode() + "\n" if call and response is not None else None
    case.check("http_response.json", body, with_order)
    case.check("http_stream.txt", case.stream() if call else None, str)
    failed = dump_error(case.door, failure) if failure is not None else None
    case.check("http_error.json", failed, with_order)


@pytest.mark.parametrize("name", DOORS)
def test_there_are_enough_cases_and_none_is_empty(name: str) -> None:
    cases = [folder for folder in CASES if folder.parent.name == f"door_{name}"]
    assert len(cases) >= DOORS[name].enough
    for folder in cases:
        names = {path.name for path in folder.iterdir()}
        assert names & {"request.json", "http_response.json", "http_stream.txt", "http_error.json"}


@pytest.mark.parametrize("folder", [c for c in CASES if (c / "request.json").exists()], ids=name_of)
def test_what_a_door_reads_is_valid(folder: Path) -> None:
    validate(Case(folder).read().request)


# The laws of answers.

STREAMS = [c for c in CASES if (c / "events.jsonl").exists()]


@pytest.mark.parametrize("folder", STREAMS, ids=name_of)
def test_the_stream_does_not_depend_on_how_events_come(folder: Path) -> None:
    case = Case(folder)
    events = case.events() or []
    whole = case.read().writer()
    expected = whole.write(events)
    for size in (1, 2, 3):
        writer = case.read().writer()
        batches = [events[at : at + size] for at in range(0, len(events), size)]
        assert b"".join(writer.write(batch) for batch in batches) == expected


@pytest.mark.parametrize(
    "folder", [c for c in STREAMS if not (c / "error_in.json").exists()], ids=name_of
)
def test_the_stream_put_together_is_the_unary_answer(folder: Path) -> None:
    case = Case(folder)
    folded = fold(case.events() or [])
    given = case.response()
    assert given is None or folded == given, "response.json is not what the events say"
    unary = json.loads(case.read().answer(folded))
    assembled = case.facts.assemble(case.stream() or "")
    assert case.facts.comparable(assembled) == case.facts.comparable(unary)


@pytest.mark.parametrize("folder", CASES, ids=name_of)
def test_answers_do_not_touch_the_messages(folder: Path) -> None:
    case = Case(folder)
    response, events = case.response(), case.events() or []
    if response is None and not events:
        return
    call = case.read()
    if response is not None:
        call.answer(response)
    call.writer().write(events)
    assert response == case.response()
    assert events == (case.events() or [])
