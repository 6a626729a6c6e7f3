"""The order that the events of an answer must have, whoever makes them: see ChatEvent in chat.proto."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.v1 import chat_pb2


def check_order(events: Sequence[chat_pb2.ChatEvent], *, whole: bool) -> None:
    """Fails unless the events are in order; `whole`: up to and with Completed, else a beginning."""
    kinds = [event.WhichOneof("event") for event in events]
    assert None not in kinds
    assert kinds.count("started") == (1 if kinds else 0), kinds
    assert not kinds or kinds[0] == "started", kinds
    assert kinds.count("completed") == (1 if whole else 0), kinds
    assert not whole or kinds[-1] == "completed", kinds
    open_parts: set[tuple[int, int]] = set()
    begun: dict[int, int] = {}
    finished: set[int] = set()
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "part_started":
            started = event.part_started
            assert started.choice not in finished
            assert started.part == begun.get(started.choice, 0), "parts are numbered without gaps"
            assert started.initial.WhichOneof("kind"), started
            begun[started.choice] = started.part + 1
            open_parts.add((started.choice, started.part))
        elif kind == "part_delta":
            assert (event.part_delta.choice, event.part_delta.part) in open_parts, event
        elif kind == "part_finished":
            open_parts.remove((event.part_finished.choice, event.part_finished.part))
        elif kind == "choice_finished":
            choice = event.choice_finished.choice
            assert choice not in finished
            assert not any(part[0] == choice for part in open_parts), open_parts
            assert event.choice_finished.finish_reason
            finished.add(choice)
    if whole:
        assert not open_parts
        assert finished and finished >= set(begun)
