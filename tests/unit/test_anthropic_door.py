"""Anthropic's door beside its golden cases: laws over random inputs, the vendor's own types, corners."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic.types as vendor
import pytest
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming as BetaParams
from pydantic import TypeAdapter

from assembly.anthropic_stream import assemble, events_of
from headgate.errors import (
    ContextTooLong,
    FieldViolation,
    GatewayError,
    InvalidRequest,
    Overloaded,
    UpstreamProtocol,
)
from headgate.fold import fold
from headgate.v1 import chat_pb2, content_pb2
from headgate_facade.anthropic.blocks_out import arguments_of
from headgate_facade.anthropic.door import betas_of
from headgate_facade.anthropic.messages_in import read_messages
from headgate_facade.anthropic.messages_out import write_message
from headgate_facade.anthropic.places import body_path
from headgate_facade.anthropic.stream_out import MessageWriter
from headgate_facade.failures import in_words
from headgate_server.validate import validate

GOLDEN = Path(__file__).parents[1] / "golden" / "door_anthropic"


def cases(name: str) -> list[Any]:
    return [pytest.param(path, id=path.parent.name) for path in sorted(GOLDEN.glob(f"*/{name}"))]


# The vendor's own types.

# With a block of the vendor's future.
OF_OTHER_TIMES = ("server_tool_blocks",)


@pytest.mark.parametrize("path", cases("http_response.json"))
def test_messages_are_what_the_sdk_expects(path: Path) -> None:
    body = path.read_text("utf-8")
    message = TypeAdapter(vendor.Message).validate_json(body, strict=False)
    TypeAdapter(BetaMessage).validate_json(body)
    for kind, block in zip(
        (b["type"] for b in json.loads(body)["content"]), message.content, strict=True
    ):
        assert block.type == kind


@pytest.mark.parametrize("path", cases("http_stream.txt"))
def test_events_are_what_the_sdk_expects(path: Path) -> None:
    for event in events_of(path.read_text("utf-8")):
        if event["type"] not in ("ping", "error"):
            TypeAdapter(vendor.RawMessageStreamEvent).validate_python(event)
            TypeAdapter(BetaRawMessageStreamEvent).validate_python(event)


@pytest.mark.parametrize("path", cases("http_error.json"))
def test_errors_are_what_the_sdk_expects(path: Path) -> None:
    facts = json.loads(path.read_text("utf-8"))
    if facts["status"] != 413:  # documented, but not among the SDK's types
        TypeAdapter(vendor.ErrorResponse).validate_python(facts["body"])


@pytest.mark.parametrize("path", [c for c in cases("request.json") if c.id not in OF_OTHER_TIMES])
def test_the_cases_are_requests_of_the_sdk(path: Path) -> None:
    body = json.loads((path.parent / "http_request.json").read_text("utf-8"))
    body.pop("stream", None)
    TypeAdapter(BetaParams).validate_python(body)


# Streams.

KINDS = ("text", "refusal", "reasoning", "tool_call", "vendor", "image", "audio")


def initial_of(kind: str, dice: random.Random, number: int) -> content_pb2.Part:
    part = content_pb2.Part()
    if kind == "reasoning":
        part.reasoning.SetInParent()
        if dice.random() < 0.3:
            part.reasoning.encrypted = "enc"
        if dice.random() < 0.3:
            part.reasoning.id = f"rs_{number}"
    elif kind == "tool_call":
        part.tool_call.id, part.tool_call.name = f"call_{number}", "f"
        if dice.random() < 0.3:
            part.thought_signature = "sig"
    elif kind == "vendor":
        part.vendor_part.dialect = dice.choice(("anthropic", "gemini"))
        part.vendor_part.json = '{"type":"container_upload","file_id":"f"}'
    elif kind in ("image", "audio"):
        getattr(part, kind).media_type = f"{kind}/x"
    else:
        setattr(part, kind, "")
    return part


def random_events(dice: random.Random) -> list[chat_pb2.ChatEvent]:
    """An answer whose parts run side by side."""
    served = chat_pb2.Served(dialect=dice.choice(("anthropic", "openai", "gemini")))
    events = [chat_pb2.ChatEvent(started=chat_pb2.Started(id="msg_1", model="x", served=served))]
    running: list[tuple[int, str]] = []
    total = dice.randint(0, 6)
    begun = 0
    arguments: dict[int, list[str]] = {}
    while running or begun < total:
        event = chat_pb2.ChatEvent()
        if begun < total and (not running or dice.random() < 0.4):
            kind = dice.choice(KINDS)
            event.part_started.part = begun
            event.part_started.initial.CopyFrom(initial_of(kind, dice, begun))
            text = dice.choice(("", " ", '{"a": "é"}', '{"a": ["b", 9007199254740993]}', "{oops"))
            arguments[begun] = [text[:4], text[4:]]
            running.append((begun, kind))
            begun += 1
        elif running and dice.random() < 0.6:
            part, kind = dice.choice(running)
            event.part_delta.part = part
            if kind == "tool_call":
                event.part_delta.text = arguments[part].pop(0) if arguments[part] else ""
            elif kind == "image" or (kind == "audio" and dice.random() < 0.5):
                event.part_delta.data = b"data"
            elif kind != "vendor":
                event.part_delta.text = dice.choice(("Hi", " ", "ünï\n", '"\\'))
            if kind == "text" and dice.random() < 0.2:
                event.part_delta.annotations.add().url_citation.url = "https://a.example"
        else:
            part, kind = running.pop(dice.randrange(len(running)))
            event.part_finished.part = part
            if kind == "reasoning" and dice.random() < 0.5:
                event.part_finished.rest.reasoning.signature = f"sig_{part}"
            if kind == "vendor" and dice.random() < 0.3:
                event.part_finished.rest.vendor_part.json = '{"type":"container_upload"}'
                event.part_finished.rest.vendor_part.dialect = "anthropic"
        events.append(event)
    finished = chat_pb2.ChatEvent()
    finished.choice_finished.finish_reason = chat_pb2.FINISH_REASON_STOP
    completed = chat_pb2.ChatEvent()
    completed.completed.usage.input_tokens = 7
    return [*events, finished, completed]


def test_streams_put_together_are_the_unary_answers() -> None:
    dice = random.Random(1)
    shown = 0
    for _ in range(3000):
        events = random_events(dice)
        writer = MessageWriter()
        cut = dice.randint(0, len(events))
        stream = (writer.write(events[:cut]) + writer.write(events[cut:])).decode()
        whole = json.loads(write_message(fold(events)))
        assert assemble(stream) == whole
        shown += len(whole["content"])
    assert shown > 3000


def started_part(part: int) -> chat_pb2.ChatEvent:
    event = chat_pb2.ChatEvent()
    event.part_started.part = part
    event.part_started.initial.tool_call.id = f"call_{part}"
    event.part_started.initial.tool_call.name = "f"
    return event


def delta(part: int, text: str) -> chat_pb2.ChatEvent:
    event = chat_pb2.ChatEvent()
    event.part_delta.part = part
    event.part_delta.text = text
    return event


def test_what_waits_is_bounded() -> None:
    writer = MessageWriter()
    writer.write([started_part(0), started_part(1)])
    with pytest.raises(UpstreamProtocol, match="ahead of each other"):
        for _ in range(100):
            assert writer.write([delta(1, "x" * 500_000)]) == b""


def test_what_waited_does_not_count_for_ever() -> None:
    writer = MessageWriter()
    finished = chat_pb2.ChatEvent()
    for part in range(0, 200, 2):
        writer.write([started_part(part), started_part(part + 1), delta(part + 1, "x" * 500_000)])
        for number in (part, part + 1):
            finished.part_finished.part = number
            writer.write([finished])


def test_an_error_in_a_stream_speaks_of_the_body() -> None:
    asked = read_messages(
        json.dumps(
            {
                "model": "m",
                "max_tokens": 1,
                "system": "S",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
            }
        ).encode()
    )
    error = InvalidRequest.of("messages[1].parts[0].image", "too large")
    error.request_id = "req_1"
    told = in_words(error, lambda path: body_path(path, asked.places))
    (event,) = events_of(MessageWriter().error(told).decode())
    assert event["error"]["message"] == "messages[0].content[0]: too large"
    assert event["request_id"] == "req_1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "{}"),
        (" \n", "{}"),
        ('{"a": 1.50}', '{"a": 1.50}'),
        ("[1]", '{"INVALID_JSON":"[1]"}'),
        ("null", '{"INVALID_JSON":"null"}'),
        ("{", '{"INVALID_JSON":"{"}'),
    ],
)
def test_arguments(text: str, found: str) -> None:
    value = arguments_of(text)
    written = json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else bytes(value)
    assert written in (found, found.encode())


def test_an_answer_without_an_id_gets_one() -> None:
    response = chat_pb2.ChatResponse()
    response.choices.add().finish_reason = chat_pb2.FINISH_REASON_STOP
    ids = {json.loads(write_message(response))["id"] for _ in range(9)}
    assert len(ids) == 9 and all(found.startswith("msg_") for found in ids)


# Words.

# system, an assistant's text, and a turn with two results and a text.
PLACES = [(-1, 0), (0, -1), (1, 0), (2, 0), (2, 2)]


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("messages[0].parts[1].image", "system[1]"),
        ("messages[0].parts", "system"),
        ("messages[1].parts[0].text", "messages[0].content"),
        ("messages[1].role", "messages[0].role"),
        ("messages[2].parts[3].tool_call.arguments_json", "messages[1].content[3].input"),
        ("messages[2].parts[3].tool_call.name", "messages[1].content[3].name"),
        ("messages[2].parts[0].reasoning", "messages[1].content[0]"),
        ("messages[3].parts[1].tool_result.tool_call_id", "messages[2].content[1].tool_use_id"),
        ("messages[3].parts[1].tool_result.parts[4].image", "messages[2].content[1].content[4]"),
        (
            "messages[3].parts[1].tool_result.parts[4].file.url",
            "messages[2].content[1].content[4].source",
        ),
        ("messages[4].parts[0].vendor_part.json", "messages[2].content[2]"),
        ("messages[4].parts[1].extra_json", "messages[2].content[3]"),
        ("messages[9].parts[1]", "messages[9].parts[1]"),
        ("messages", "messages"),
        ("tools[1].function.parameters_json", "tools[1].input_schema"),
        ("tools[1].function.name", "tools[1].name"),
        ("tools[1].provider_tool_json", "tools[1]"),
        ("tool_choice.provider_choice_json", "tool_choice"),
        ("response_format.json_schema.schema_json", "output_config.format.schema"),
        ("response_format", "output_config.format"),
        ("reasoning.budget_tokens", "thinking.budget_tokens"),
        ("reasoning.enabled", "thinking.type"),
        ("reasoning.effort", "output_config.effort"),
        ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
        ("stop", "stop_sequences"),
        ("user", "metadata.user_id"),
        ("temperature", "temperature"),
    ],
)  # fmt: skip
def test_fields(field: str, told: str) -> None:
    for kind in (InvalidRequest, ContextTooLong):
        error = kind(
            f"{field}: please stop, user",
            violations=[FieldViolation(field, "please stop, user")],
            retry_after=1,
            metadata={"provider": "p"},
        )
        error.request_id = "req_1"
        found = in_words(error, lambda path: body_path(path, PLACES))
        assert type(found) is kind and isinstance(found, InvalidRequest)
        assert found.message == f"{told}: please stop, user"
        assert found.violations == [FieldViolation(told, "please stop, user")]
        assert (found.retry_after, found.metadata) == (1, {"provider": "p"})
        assert found.request_id == "req_1"


def test_other_errors_stay_as_they_are() -> None:
    for error in (InvalidRequest("messages[1].parts[0] is bad"), Overloaded("busy")):
        assert in_words(error, lambda path: body_path(path, PLACES)) is error


def test_betas() -> None:
    def read(*values: bytes) -> list[str]:
        headers = [(b"accept", b"x"), *((b"anthropic-beta", value) for value in values)]
        return betas_of({"headers": headers})

    assert read() == []
    assert read(b"a-1, b-2 ,,c", b"d") == ["a-1", "b-2", "c", "d"]


# Hostile bodies.

Path_ = tuple[str | int, ...]
JUNK: list[Any] = [
    None, True, 0, -1, 2**63, 2**70, 1.5, "", "x", "text", "tool_use", [], [None], [[]], {},
    {"type": None}, {"type": 7}, {"type": "text"}, {"type": "image", "source": 3},
    {"type": "tool_result"}, "\ud7ff",
]  # fmt: skip


def places(value: Any, here: Path_ = ()) -> Iterator[Path_]:
    if here:
        yield here
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*here, index))


def replaced(body: Any, path: Path_, junk: Any) -> Any:
    body = copy.deepcopy(body)
    inner = body
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = junk
    return body


@pytest.mark.parametrize("path", cases("request.json"))
def test_a_body_with_junk_in_it_is_read_or_refused_in_words(path: Path) -> None:
    body = json.loads((path.parent / "http_request.json").read_text("utf-8"))
    for place in places(body):
        for junk in JUNK:
            changed = json.dumps(replaced(body, place, junk)).encode()
            try:
                asked = read_messages(changed)
                validate(asked.request)
            except InvalidRequest as error:
                told = in_words(error, lambda path: body_path(path, [])).message
                assert "_json" not in told or "INVALID" in told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b"{",
        b'{"model": "m"',
        b"\xff\xfe",
        b'{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "m", "max_tokens": 1, "messages":'
        b' [{"role": "user", "content": [{"type": "x", "a": "\xff"}]}]}',
        b"[" * 100_000,
        b'{"model": "m", "max_tokens": 1, "messages": ' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_bodies_that_are_none(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_messages(body)
    assert isinstance(caught.value, GatewayError) and caught.value.message
