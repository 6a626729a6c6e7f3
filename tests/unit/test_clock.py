"""Which limit of an exchange passes next, whatever has happened so far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import DeadlineExceeded, UpstreamTimeout
from headgate_server.clock import Clock
from headgate_server.providers.base import Timeouts

LIMITS = Timeouts(connect=1, first_byte=20, first_token=30, idle=10, total=100)
STREAM = Clock("up", LIMITS, streamed=True, ends=1100.0, callers=False)
WHOLE = Clock("up", LIMITS, streamed=False, ends=1100.0, callers=False)


@pytest.mark.parametrize(
    ("clock", "quiet_since", "head", "begun", "expected"),
    [
        (STREAM, 1000.0, False, False, (15.0, "first_byte")),
        (STREAM, 1004.0, True, False, (9.0, "idle")),
        (STREAM, 1024.0, True, False, (25.0, "first_token")),  # pings, since the head came
        (STREAM, 1024.0, True, True, (29.0, "idle")),
        (STREAM, None, True, True, (95.0, "total")),  # the caller is slow
        (WHOLE, 1000.0, False, False, (15.0, "first_byte")),
        (WHOLE, 1024.0, True, False, (29.0, "idle")),
        (WHOLE, 1097.0, True, False, (95.0, "total")),
    ],
)
def test_what_passes_next(
    clock: Clock, quiet_since: float | None, head: bool, begun: bool, expected: tuple[float, str]
) -> None:
    assert clock.left(1005.0, 1000.0, quiet_since, head=head, begun=begun) == expected


SECONDS = st.floats(0.01, 100)


@given(*[SECONDS] * 4, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.floats(0, 50))
def test_no_limit_passes_before_the_first_look(
    first_byte: float, first_token: float, idle: float, total: float, streamed: bool, head: bool,
    begun: bool, waiting: bool, after: float,
) -> None:  # fmt: skip
    """Whatever comes after the request, a limit that begins later cannot pass sooner."""
    limits = Timeouts(1.0, first_byte, first_token, idle, total)
    clock = Clock("up", limits, streamed, 1000.0 + total, callers=False)
    first = clock.first_look(1000.0)
    quiet_since = 1000.0 + after if waiting else None
    left, limit = clock.left(1000.0, 1000.0, quiet_since, head=head, begun=begun)
    assert left >= first - 1e-9
    assert first > 0
    assert limit != "first_token" or streamed


def test_the_errors() -> None:
    for limit, seconds in (("first_byte", 20), ("first_token", 30), ("idle", 10), ("total", 100)):
        error = STREAM.late(limit)
        assert type(error) is UpstreamTimeout
        assert error.message == f"provider 'up' took longer than timeouts.{limit} = {seconds} s"
    callers = Clock("up", LIMITS, streamed=True, ends=1001.0, callers=True)
    assert type(callers.late("total")) is DeadlineExceeded
    assert type(callers.late("idle")) is UpstreamTimeout
