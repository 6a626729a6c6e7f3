"""Events folded into an answer, and event orders that are none."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headgate import fold
from headgate.errors import UpstreamProtocol
from headgate.fold import Folder
from headgate.v1 import chat_pb2, content_pb2

Event = chat_pb2.ChatEvent
Part = content_pb2.Part


def started(**fields: Any) -> Event:
    return Event(started=chat_pb2.Started(**({"id": "1", "model": "m"} | fields)))


def begin(part: int, initial: Part, choice: int = 0) -> Event:
    return Event(part_started=chat_pb2.PartStarted(choice=choice, part=part, initial=initial))


def delta(part: int, text: str = "", choice: int = 0, **fields: Any) -> Event:
    return Event(part_delta=chat_pb2.PartDelta(choice=choice, part=part, text=text, **fields))


def finish_part(part: int, choice: int = 0, rest: Part | None = None) -> Event:
    return Event(part_finished=chat_pb2.PartFinished(choice=choice, part=part, rest=rest))


def finish(choice: int = 0, **fields: Any) -> Event:
    fields = {
        "finish_reason": chat_pb2.FINISH_REASON_STOP,
        "provider_finish_reason": "stop",
    } | fields
    return Event(choice_finished=chat_pb2.ChoiceFinished(choice=choice, **fields))


def completed(**fields: Any) -> Event:
    return Event(completed=chat_pb2.Completed(**fields))


def text() -> Part:
    return Part(text="")


def test_text() -> None:
    answer = fold(
        [started(), begin(0, text()), delta(0, "Hel"), delta(0, "lo"), finish(), completed()]
    )
    (choice,) = answer.choices
    assert choice.message.role == content_pb2.ROLE_ASSISTANT
    assert [part.text for part in choice.message.parts] == ["Hello"]
    assert choice.finish_reason == chat_pb2.FINISH_REASON_STOP
    assert choice.provider_finish_reason == "stop"
    assert not answer.HasField("usage")
    assert not choice.HasField("logprobs")


def test_what_started_and_completed_say() -> None:
    served = chat_pb2.Served(provider="p", model="m", attempts=2)
    usage = chat_pb2.Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    early, late = chat_pb2.Warning(field="a"), chat_pb2.Warning(field="b")
    answer = fold(
        [
            started(
                create_time=Timestamp(seconds=5),
                served=served,
                system_fingerprint="first",
                service_tier="auto",
                warnings=[early],
            ),
            finish(),
            completed(
                usage=usage, system_fingerprint="last", warnings=[late], extra_json='{"x":1}'
            ),
        ]
    )
    assert (answer.id, answer.model, answer.create_time.seconds) == ("1", "m", 5)
    assert answer.served == served
    assert answer.usage == usage
    assert answer.system_fingerprint == "last"
    assert answer.service_tier == "auto"
    assert list(answer.warnings) == [early, late]
    assert answer.extra_json == '{"x":1}'


def test_choices_that_interleave() -> None:
    answer = fold(
        [
            started(),
            begin(0, text(), choice=1),
            delta(0, "b", choice=1),
            begin(0, text(), choice=0),
            delta(0, "a", choice=0),
            delta(0, "B", choice=1),
            finish(1, finish_reason=chat_pb2.FINISH_REASON_LENGTH),
            delta(0, "A", choice=0),
            finish(0),
            completed(),
        ]
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.message.parts[0].text for choice in answer.choices] == ["aA", "bB"]
    assert answer.choices[1].finish_reason == chat_pb2.FINISH_REASON_LENGTH


def test_parts_that_interleave_keep_their_order() -> None:
    first = Part(tool_call=content_pb2.ToolCall(id="1", name="f"))
    second = Part(tool_call=content_pb2.ToolCall(id="2", name="g"))
    answer = fold(
        [
            started(),
            begin(0, Part(reasoning=content_pb2.Reasoning())),
            begin(1, first),
            begin(2, second),
            delta(2, '{"b":'),
            delta(1, '{"a":'),
            delta(0, "hm"),
            delta(2, "2}"),
            delta(1, "1}"),
            finish(),
            completed(),
        ]
    )
    reasoning, one, two = answer.choices[0].message.parts
    assert reasoning.reasoning.text == "hm"
    assert (one.tool_call.id, one.tool_call.arguments_json) == ("1", '{"a":1}')
    assert (two.tool_call.id, two.tool_call.arguments_json) == ("2", '{"b":2}')


def test_a_reasoning_signature_comes_last() -> None:
    rest = Part(reasoning=content_pb2.Reasoning(signature="sig", encrypted="enc", id="r1"))
    answer = fold(
        [
            started(),
            begin(0, Part(reasoning=content_pb2.Reasoning())),
            delta(0, "I think"),
            finish_part(0, rest=rest),
            begin(1, text()),
            delta(1, "42"),
            finish_part(1),
            finish(),
            completed(),
        ]
    )
    thinking = answer.choices[0].message.parts[0].reasoning
    assert thinking == content_pb2.Reasoning(
        text="I think", signature="sig", encrypted="enc", id="r1"
    )


def test_media_come_in_pieces() -> None:
    initial = Part(audio=content_pb2.Media(id="a1", media_type="audio/wav", data=b"\x00"))
    rest = Part(audio=content_pb2.Media(expire_time=Timestamp(seconds=9)))
    answer = fold(
        [
            started(),
            begin(0, initial),
            delta(0, "Hel", data=b"\x01"),
            delta(0, "lo", data=b"\x02\x03"),
            finish_part(0, rest=rest),
            finish(),
            completed(),
        ]
    )
    audio = answer.choices[0].message.parts[0].audio
    assert audio.data == b"\x00\x01\x02\x03"
    assert audio.transcript == "Hello"
    assert (audio.id, audio.media_type, audio.expire_time.seconds) == ("a1", "audio/wav", 9)


def test_media_without_bytes_stay_as_they_are() -> None:
    initial = Part(image=content_pb2.Media(url="https://x.test/y.png"))
    answer = fold([started(), begin(0, initial), finish(), completed()])
    assert answer.choices[0].message.parts[0] == initial


def test_logprobs_of_text_and_of_refusals() -> None:
    def token(word: str) -> chat_pb2.TokenLogprob:
        return chat_pb2.TokenLogprob(token=word, logprob=-1.5)

    answer = fold(
        [
            started(),
            begin(0, text()),
            delta(0, "a", logprobs=[token("a")]),
            delta(0, logprobs=[token("b"), token("c")]),
            begin(1, Part(refusal="")),
            delta(1, "No", logprobs=[token("No")]),
            finish(),
            completed(),
        ]
    )
    choice = answer.choices[0]
    assert [each.token for each in choice.logprobs.content] == ["a", "b", "c"]
    assert [each.token for each in choice.logprobs.refusal] == ["No"]
    assert choice.message.parts[1].refusal == "No"


def test_annotations_and_extras() -> None:
    note = content_pb2.Annotation(url_citation=content_pb2.UrlCitation(url="https://x.test"))
    answer = fold(
        [
            started(),
            begin(0, text()),
            delta(0, "See", annotations=[note]),
            finish(stop_sequence="END", extra_json="{}", message_extra_json='{"y":1}'),
            completed(),
        ]
    )
    choice = answer.choices[0]
    assert list(choice.message.parts[0].annotations) == [note]
    assert (choice.stop_sequence, choice.extra_json) == ("END", "{}")
    assert choice.message.extra_json == '{"y":1}'


def test_an_answer_may_have_no_parts() -> None:
    answer = fold([started(), finish(), completed()])
    assert not answer.choices[0].message.parts


def test_the_events_stay_as_they_were() -> None:
    initial = text()
    events = [started(), begin(0, initial), delta(0, "x"), finish(), completed()]
    before = [event.SerializeToString(deterministic=True) for event in events]
    assert fold(events) == fold(events)
    assert [event.SerializeToString(deterministic=True) for event in events] == before


GOOD = [started(), begin(0, text()), delta(0, "x"), finish_part(0), finish(), completed()]
WRONG: dict[str, list[Event]] = {
    "nothing": [],
    "no Started": GOOD[1:],
    "no Completed": GOOD[:-1],
    "two Started": [started(), *GOOD],
    "two Completed": [*GOOD, completed()],
    "a choice that never finishes": [started(), begin(0, text()), completed()],
    "a delta without a part": [started(), delta(0, "x"), finish(), completed()],
    "a delta of the next part": [started(), begin(0, text()), delta(1, "x"), finish(), completed()],
    "a delta of a negative part": [
        *(started(), begin(0, text()), delta(-1, "x"), finish(), completed()),
    ],
    "an end without a part": [started(), finish_part(0), finish(), completed()],
    "a part that is skipped": [started(), begin(1, text()), finish(), completed()],
    "a part that begins twice": [
        *(started(), begin(0, text()), begin(0, text()), finish(), completed()),
    ],
    "something before Started": [begin(0, text()), started(), finish(), completed()],
    "something after Completed": [*GOOD, delta(0, "late")],
    "a delta after the choice's end": [
        *(started(), begin(0, text()), finish(), delta(0, "late"), completed()),
    ],
    "a choice that finishes twice": [started(), finish(), finish(), completed()],
}


@pytest.mark.parametrize("case", WRONG)
def test_orders_that_are_none(case: str) -> None:
    with pytest.raises(UpstreamProtocol):
        fold(WRONG[case])


def test_kinds_that_are_newer_than_we_are_change_nothing() -> None:
    newer = Event.FromString(b"\xfa\x01\x02\x08\x01")  # field 31
    assert newer.WhichOneof("event") is None
    assert fold([GOOD[0], newer, *GOOD[1:]]) == fold(GOOD)


def test_the_good_order_is_good() -> None:
    assert fold(GOOD).choices[0].message.parts[0].text == "x"


def test_a_folder_that_is_asked_too_early() -> None:
    folder = Folder()
    folder.add(started())
    with pytest.raises(UpstreamProtocol):
        folder.response()


@given(words=st.lists(st.text(max_size=8), max_size=40), choices=st.integers(1, 4))
def test_cutting_texts_differently_changes_nothing(words: list[str], choices: int) -> None:
    def events(pieces: list[str]) -> list[Event]:
        made = [started()]
        made += [begin(0, text(), choice=number) for number in range(choices)]
        for piece in pieces:
            made += [delta(0, piece, choice=number) for number in range(choices)]
        made += [finish(number) for number in range(choices)]
        return [*made, completed()]

    assert fold(events(words)) == fold(events(["".join(words)]))
