"""Upstreams that fail in every way, by the dice, and note what they saw.

Each request carries a mark in its prompt. The upstream notes which mark it saw and how it treated it, and
its answers quote the mark, so that a request that got lost, ran twice, or got another one's answer shows.
Owns the faults, and what the documentation promises for each. Judges nothing.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fakes.bodies import chunks, completion
from fakes.steps import Answer, answer, disconnect, error, hang, html, rate_limited, reset, sse
from fakes.upstream import FakeUpstream
from fakes.wire import Connection, Record, Step
from headgate_server.faults import Fault

_MARK = re.compile(rb"#\d{6}")
_MODEL = re.compile(rb'"model":\s*"([^"]+)"')
_STREAMED = re.compile(rb'"stream":\s*true')
_NO_MARK = b"#000000"


def said(upstream: str, mark: str) -> str:
    """What an upstream answers to a request."""
    return f"{upstream} got {mark}, and says so at some length."


def _words(upstream: str) -> list[str]:
    return re.findall(r"\S+ ?", said(upstream, _NO_MARK.decode()))


# -- faults ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """One way to fail, and what the documentation says about it.

    Attributes:
        unary, stream: does it.
        fault: what is told about the attempt; of one that is whole, NONE.
        late: a stream fails only after its first content, so nobody else is asked.
        again: the same target may be asked again.
        dropped: the connection is closed before anything of an answer; on a kept connection that looks
            like one that was closed before the request came, which is repeated once, unseen.
        limited: it takes a time limit to notice.
    """

    unary: Callable[[str], Step]
    stream: Callable[[str], Step]
    fault: Fault
    late: bool = False
    again: bool = True
    dropped: bool = False
    limited: bool = False


def _whole(upstream: str) -> Answer:
    return answer(completion("".join(_words(upstream))))


def _events(upstream: str) -> Answer:
    return sse(chunks(_words(upstream), usage=True))


def _both(step: Callable[[], Step]) -> tuple[Callable[[str], Step], Callable[[str], Step]]:
    return lambda _: step(), lambda _: step()


def _cut(ending: Any) -> tuple[Callable[[str], Step], Callable[[str], Step]]:
    """Ends within a whole answer, or after a stream's role, before its content."""
    half = len(_whole("x").pieces[0]) // 2  # type: ignore[index,arg-type]
    return (
        lambda up: replace(_whole(up), cut=half, pieces=_halves(up), stop_after=1, ending=ending),
        lambda up: replace(_events(up), stop_after=1, ending=ending),
    )


def _halves(upstream: str) -> list[bytes]:
    (piece,) = _whole(upstream).pieces  # type: ignore[misc]
    assert isinstance(piece, bytes)
    return [piece[:40], piece[40:]]


_ERROR_EVENT = {"error": {"message": "broken", "type": "server_error", "param": None, "code": None}}
_DUE = {"fault": Fault.TIMEOUT, "again": False, "limited": True}


def _after(*pieces: Any, ending: Any = "complete") -> Callable[[str], Step]:
    """A stream's first content, and then this."""
    return lambda up: sse([*chunks(_words(up))[:3], *pieces], done=False, ending=ending)


TROUBLES: dict[str, Trouble] = {
    "healthy": Trouble(_whole, _events, Fault.NONE),
    "trickle": Trouble(
        lambda up: replace(_whole(up), cut=60, delay=0.002, cut_head=True),
        lambda up: replace(_events(up), cut=60, delay=0.002, cut_head=True),
        Fault.NONE,
    ),
    "reset": Trouble(*_both(reset), Fault.TRANSPORT, dropped=True),
    "close": Trouble(*_both(disconnect), Fault.TRANSPORT, dropped=True),
    "cut": Trouble(*_cut("fin"), Fault.TRANSPORT),
    "torn": Trouble(*_cut("rst"), Fault.TRANSPORT),
    "silence": Trouble(*_both(hang), **_DUE),  # type: ignore[arg-type]
    "silence-after-head": Trouble(
        lambda up: replace(_whole(up), stop_after=0, ending="hang"),
        lambda up: replace(_events(up), stop_after=0, ending="hang"),
        **_DUE,  # type: ignore[arg-type]
    ),
    "stall": Trouble(*_cut("hang"), **_DUE),  # type: ignore[arg-type]
    "late-stall": Trouble(_whole, _after(ending="hang"), Fault.NONE, late=True, limited=True),
    "late-cut": Trouble(_whole, _after(ending="fin"), Fault.NONE, late=True),
    "late-reset": Trouble(_whole, _after(ending="rst"), Fault.NONE, late=True),
    "late-end": Trouble(_whole, _after(), Fault.NONE, late=True),
    "late-error": Trouble(_whole, _after(_ERROR_EVENT), Fault.NONE, late=True),
    "late-nonsense": Trouble(_whole, _after(b"data: {nope\n\n"), Fault.NONE, late=True),
    "429": Trouble(*_both(lambda: rate_limited(1)), Fault.RATE_LIMIT),
    "500": Trouble(*_both(lambda: error(500)), Fault.PROVIDER),
    "503": Trouble(*_both(lambda: error(503)), Fault.OVERLOAD),
    "529": Trouble(*_both(lambda: error(529)), Fault.OVERLOAD),
    "html": Trouble(*_both(lambda: html(200)), Fault.PROVIDER),
    "nonsense": Trouble(
        lambda up: answer(b'{"choices": [{'),
        lambda up: sse([b"data: {nope\n\n"], done=False),
        Fault.PROVIDER,
    ),
    "error-in-200": Trouble(*_both(lambda: answer(_ERROR_EVENT)), Fault.PROVIDER),
    "error-event": Trouble(
        lambda up: error(500), lambda up: sse([_ERROR_EVENT], done=False), Fault.PROVIDER
    ),
    "400": Trouble(
        *_both(lambda: error(400, "a caller's mistake", type="invalid_request_error")),
        Fault.CALLER,
        again=False,
    ),
}

# Without the one that may meet a limit, or may not.
_DICE = [name for name in TROUBLES if name != "trickle"]


class Seen(NamedTuple):
    """What an upstream saw of one request.

    Attributes:
        upstream: which.
        trouble: what it did.
        unseen: the gateway takes it for a connection that had been closed before, and sends it anew.
    """

    upstream: str
    trouble: str
    unseen: bool


class Chaos(FakeUpstream):
    """An upstream that treats a request as its model's name says: ``TROUBLE``, ``TROUBLE.anything``.

    ``flaky-TROUBLE`` is in trouble the first time that it sees a mark, and well afterwards; ``dice`` is
    in any trouble, by the dice.

    Args:
        name: quoted in answers.
        seen: where it notes what it saw, by mark; shared with others.
        seed: of the dice.
    """

    def __init__(self, name: str, seen: dict[str, list[Seen]], seed: int = 1) -> None:
        super().__init__()
        self.name = name
        self.seen = seen
        self.dice = random.Random(seed)
        self._connections: dict[int, Connection] = {}
        self._steps_made: dict[tuple[str, bool], Step] = {}

    def adopt(self, connection: Connection) -> int:
        number = super().adopt(connection)
        self._connections[number] = connection
        return number

    def drop(self, connection: Connection) -> None:
        super().drop(connection)
        del self._connections[connection.number]

    def take(self, record: Record) -> Step:
        mark, model, streamed = _facts(record.body)
        kind = model.partition(".")[0]
        if kind == "dice":
            kind = self.dice.choice(_DICE)
        elif kind.startswith("flaky-"):
            kind = "healthy" if mark in self.seen else kind.removeprefix("flaky-")
        records = self._connections[record.connection].records
        reused = len(records) > 1
        records[:] = [record, record]  # not all of them: they would look like a leak
        self.seen[mark].append(Seen(self.name, kind, reused and TROUBLES[kind].dropped))
        made = self._steps_made.get((kind, streamed))
        if made is None:
            trouble = TROUBLES[kind]
            made = (trouble.stream if streamed else trouble.unary)(self.name)
            self._steps_made[kind, streamed] = made
        if not isinstance(made, Answer):
            return made
        quoted = mark.encode()
        pieces = [
            piece.replace(_NO_MARK, quoted) if isinstance(piece, bytes) else piece
            for piece in made.pieces  # type: ignore[union-attr]
        ]
        return replace(made, pieces=pieces)


def _facts(body: bytes) -> tuple[str, str, bool]:
    """Mark, model and whether a stream is wanted; not parsed, to be quick."""
    mark, model = _MARK.search(body), _MODEL.search(body)
    assert mark and model, body[:200]
    return mark[0].decode(), model[1].decode(), _STREAMED.search(body) is not None


def marks() -> Callable[[], str]:
    """Gives out marks, each once."""
    given = 0

    def mark() -> str:
        nonlocal given
        given += 1
        return f"#{given:06}"

    return mark


def noted() -> dict[str, list[Seen]]:
    """An empty book of what upstreams saw."""
    return defaultdict(list)
