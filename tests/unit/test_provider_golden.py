"""The provider dialects against their golden folders, and the laws that hold over all of them.

A case is a folder `golden/<dialect>/<case>`. Inputs, written by hand in the shapes that vendors document:

- `target.json`: kind, model, policy, ... where they differ from those in the dialect's own `target.json`
- `request.json`: a ChatRequest
- `upstream_response.json`, `upstream_error.json`: what the upstream answers
- `upstream.sse` (or `upstream.ndjson`): the same as a stream
- `upstream.eventstream.jsonl`: the same in AWS's binary framing: a line `[event type, payload]` each,
  or `{"exception": type, "payload": ...}`

Outputs, written by `pytest tests/unit/test_provider_golden.py --update-golden` and reviewed:

- `upstream_request.json`: address, body (member order counts), warnings
- `response.json`, `events.jsonl`: the same answer, whole and as events
- `error.json`: the GatewayError of whichever step failed
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from fakes.eventstream import event_stream
from headgate.errors import GatewayError, InvalidRequest, UpstreamProtocol
from headgate.fold import fold
from headgate.v1 import chat_pb2
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.vendors import family_of

ROOT = Path(__file__).parents[1] / "golden"
ENOUGH = {"openai": 90, "anthropic": 20, "gemini": 20}  # cases; of the others 10
DIALECTS = sorted(path.parent for path in ROOT.glob("*/target.json"))
CASES = sorted(path for dialect in DIALECTS for path in dialect.iterdir() if path.is_dir())
STREAM_FILES = ("upstream.sse", "upstream.ndjson", "upstream.eventstream.jsonl")

Events = list[chat_pb2.ChatEvent]


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


class Case:
    def __init__(self, folder: Path, *, update: bool = False) -> None:
        self.folder = folder
        self.update = update
        usual = json.loads((folder.parent / "target.json").read_text())
        given = {**usual, **(self.json("target.json") or {})}
        policy = given.pop("policy", "drop")
        facts = {"provider": given["kind"], **given}
        base_url = facts.get("base_url")
        vendor = vendor_of(facts["kind"], base_url)
        self.dialect = dialect_of(facts["kind"], vendor, 1 << 20)
        self.target = Target(
            provider=facts["provider"],
            kind=facts["kind"],
            model=facts["model"],
            vendor=vendor,
            family=family_of(facts["model"]),
            policy=policy,
            api_version=facts.get("api_version"),
        )
        place = {key: facts.get(key) for key in ("region", "project")}
        url = (base_url or vendor.base_url or "").format(**place)
        self.endpoint = Endpoint(url, {"authorization": "Bearer k"}, **place)

    def text(self, name: str) -> str | None:
        path = self.folder / name
        return path.read_text("utf-8") if path.exists() else None

    def bytes(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    def stream(self) -> bytes | None:
        """The bytes of the streamed answer."""
        for name in STREAM_FILES[:2]:
            if (found := self.bytes(name)) is not None:
                return found
        text = self.text(STREAM_FILES[2])
        return None if text is None else event_stream(text)

    def json(self, name: str) -> Any:
        text = self.text(name)
        return None if text is None else json.loads(text)

    def request(self) -> chat_pb2.ChatRequest:
        text = self.text("request.json") or '{"model": "m"}'
        return json_format.Parse(text, chat_pb2.ChatRequest())

    def encode(self, *, stream: bool) -> HttpCall:
        return self.dialect.encode(self.request(), self.target, self.endpoint, stream=stream)

    def decode_stream(self, pieces: list[bytes]) -> tuple[Events, GatewayError | None]:
        """The events of a stream that comes in these pieces, and how it failed, if it did."""
        decoder = self.dialect.stream_decoder(self.request(), self.target)
        events: Events = []
        try:
            for piece in pieces:
                events += decoder.feed(piece)
            events += decoder.finish()
        except GatewayError as error:
            return events, error
        return events, None

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


def dump(message: Message, indent: int | None = 2) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, indent=indent, ensure_ascii=False
    )


def dump_call(call: HttpCall) -> str:
    """Written by hand around the body, which must stay as it is to the last digit."""
    warnings = [{"field": w.field, "message": w.message} for w in call.warnings]
    return (
        f'{{\n"url": {json.dumps(call.url)},\n"body": {call.body.decode()},\n'
        f'"warnings": {json.dumps(warnings)}\n}}\n'
    )


def dump_error(error: GatewayError | None) -> str | None:
    if error is None:
        return None
    facts: dict[str, Any] = {"kind": type(error).__name__, "message": error.message}
    if isinstance(error, InvalidRequest) and error.violations:
        facts["fields"] = [violation.field for violation in error.violations]
    if error.retry_after is not None:
        facts["retry_after"] = error.retry_after
    if error.metadata:
        facts["metadata"] = error.metadata
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def messages_of(kind: type[Message]) -> Callable[[str], Any]:
    return lambda text: [json_format.Parse(line, kind()) for line in text.splitlines() if line]


@pytest.mark.parametrize("folder", CASES, ids=name_of)
def test_golden(folder: Path, update_golden: bool) -> None:
    case = Case(folder, update=update_golden)
    errors: list[GatewayError] = []

    call: HttpCall | None = None
    if case.text("request.json") is not None:
        try:
            call = case.encode(stream=False)
        except GatewayError as error:
            errors.append(error)
    case.check("upstream_request.json", dump_call(call) if call else None, with_order)

    response: chat_pb2.ChatResponse | None = None
    body = case.bytes("upstream_response.json")
    if body is not None:
        try:
            response = case.dialect.decode(body, case.request(), case.target)
        except GatewayError as error:
            errors.append(error)
    case.check(
        "response.json",
        dump(response) + "\n" if response else None,
        lambda text: json_format.Parse(text, chat_pb2.ChatResponse()),
    )

    events: Events | None = None
    stream = case.stream()
    if stream is not None:
        # Event by event, so that what came before an error is seen, too.
        events, failure = case.decode_stream(lines_of(stream))
        errors += [failure] if failure else []
    lines = None if events is None else "".join(dump(e, None) + "\n" for e in events)
    case.check("events.jsonl", lines, messages_of(chat_pb2.ChatEvent))

    failed = case.json("upstream_error.json")
    if failed is not None:
        text = failed["body"]
        raw = text if isinstance(text, str) else json.dumps(text)
        errors.append(case.dialect.decode_error(failed["status"], failed["headers"], raw.encode()))

    assert len(errors) <= 1
    case.check("error.json", dump_error(errors[0] if errors else None), json.loads)


def test_there_are_enough_cases_and_none_is_empty() -> None:
    for name in {folder.parent.name for folder in CASES}:
        assert sum(folder.parent.name == name for folder in CASES) >= ENOUGH.get(name, 10)
    for folder in CASES:
        names = {path.name for path in folder.iterdir()}
        assert names & {"upstream_request.json", "response.json", "events.jsonl", "error.json"}


OPENAI = [c for c in CASES if c.parent.name == "openai"]


@pytest.mark.parametrize(
    "folder", [c for c in OPENAI if (c / "upstream_request.json").exists()], ids=name_of
)
def test_a_streamed_call_differs_in_the_stream_members_only(folder: Path) -> None:
    case = Case(folder)
    whole = json.loads(case.encode(stream=False).body)
    streamed = json.loads(case.encode(stream=True).body)
    assert streamed.pop("stream") is True
    options = streamed.pop("stream_options", None)
    assert options == ({"include_usage": True} if case.target.vendor.stream_usage else None)
    assert streamed == whole


@pytest.mark.parametrize("folder", CASES, ids=name_of)
def test_encode_does_not_touch_the_request(folder: Path) -> None:
    case = Case(folder)
    request = case.request()
    before = request.SerializeToString(deterministic=True)
    try:
        case.dialect.encode(request, case.target, case.endpoint, stream=True)
    except InvalidRequest:
        pass
    assert request.SerializeToString(deterministic=True) == before


# The laws of streams.

STREAMS = [c for c in CASES if any((c / name).exists() for name in STREAM_FILES)]


def lines_of(stream: bytes) -> list[bytes]:
    return stream.splitlines(keepends=True)


def cuts_of(stream: bytes) -> Iterator[list[bytes]]:
    yield [stream]
    yield [stream[i : i + 1] for i in range(len(stream))]
    for place in range(1, len(stream)):
        yield [stream[:place], stream[place:]]
    dice = random.Random(len(stream))
    for _ in range(50):
        places = sorted(dice.sample(range(len(stream)), min(len(stream), dice.randint(2, 20))))
        yield [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


@pytest.mark.parametrize("folder", STREAMS, ids=name_of)
def test_every_cut_gives_the_same_events(folder: Path) -> None:
    case = Case(folder)
    stream = case.stream() or b""
    expected, failure = case.decode_stream(lines_of(stream))
    for pieces in cuts_of(stream):
        events, error = case.decode_stream(pieces)
        assert dump_error(error) == dump_error(failure)
        if failure is None:
            assert events == expected
        else:
            # An error drops the events of its own read, so that the call can still be retried.
            assert events == expected[: len(events)]


@pytest.mark.parametrize("folder", STREAMS, ids=name_of)
def test_the_order_of_events(folder: Path) -> None:
    events, failure = Case(folder).decode_stream([Case(folder).stream() or b""])
    if failure is not None:
        return
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "completed"
    assert kinds.count("started") == kinds.count("completed") == 1
    open_parts: set[tuple[int, int]] = set()
    finished: set[int] = set()
    for event in events[1:-1]:
        kind = event.WhichOneof("event")
        body = getattr(event, str(kind))
        assert body.choice not in finished
        if kind == "choice_finished":
            assert not {part for choice, part in open_parts if choice == body.choice}
            finished.add(body.choice)
        elif kind == "part_started":
            open_parts.add((body.choice, body.part))
        else:
            assert (body.choice, body.part) in open_parts
            if kind == "part_finished":
                open_parts.remove((body.choice, body.part))
    assert finished


BOTH = [c for c in STREAMS if (c / "response.json").exists()]


@pytest.mark.parametrize("folder", BOTH, ids=name_of)
def test_the_fold_of_the_events_is_the_unary_answer(folder: Path) -> None:
    case = Case(folder)
    events, failure = case.decode_stream([case.stream() or b""])
    assert failure is None
    body = case.bytes("upstream_response.json") or b""
    whole = case.dialect.decode(body, case.request(), case.target)
    assert normal(fold(events)) == normal(whole)


def normal(response: chat_pb2.ChatResponse) -> dict[str, Any]:
    """As JSON, with JSON inside JSON parsed: its white space may differ."""

    def parsed(value: Any) -> Any:
        if isinstance(value, list):
            return [parsed(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: json.loads(inner) if key in ("extra_json", "other_json") else parsed(inner)
            for key, inner in value.items()
        }

    found = parsed(json_format.MessageToDict(response, preserving_proto_field_name=True))
    assert isinstance(found, dict)
    return found


WHOLE = [c for c in OPENAI if c in STREAMS and not (c / "error.json").exists()]


@pytest.mark.parametrize("folder", WHOLE, ids=name_of)
def test_done_may_be_missing_but_a_finish_reason_may_not(folder: Path) -> None:
    case = Case(folder)
    stream = case.stream() or b""
    expected, _ = case.decode_stream([stream])
    assert case.decode_stream([stream.replace(b"data: [DONE]", b"")]) == (expected, None)

    lines = lines_of(stream)
    first = next(i for i, line in enumerate(lines) if b'"finish_reason":"' in line)
    events, failure = case.decode_stream(lines[:first])
    assert isinstance(failure, UpstreamProtocol)
    assert "finish reason" in failure.message
    assert not any(event.HasField("completed") for event in events)
