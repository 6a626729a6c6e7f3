"""One settlement for each call, whatever its ending.

Owns the promise "exactly once": success, error, cancellation and an abandoned stream all end in one
`Settlement` handed to the hooks. Hooks are plain functions and must be quick; one that fails is logged
and harms neither the call nor the other hooks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import msgspec

from headgate.errors import DeadlineExceeded, GatewayError, InternalError, reason_name
from headgate.v1 import chat_pb2
from headgate_server.faults import Fault

_log = logging.getLogger(__name__)

OK = "OK"
CANCELLED = "CANCELLED"
_MAX_LOGGED_NAME = 128  # callers may ask for anything
# A caller's deadline ends a call twice: on our clock, and by a cancellation from the caller, whose
# clock and whose rounding of the deadline on the wire (to 1%) differ a little.
_DEADLINE_SLACK_SECONDS = 0.05
_DEADLINE_SLACK_SHARE = 0.01


class Tried(msgspec.Struct, gc=False):
    """One upstream call.

    Attributes:
        provider, model: the target.
        key: the name of the provider's key, where there are several; else empty.
        fault: what went wrong; CANCELLED while it runs.
        status: of HTTP, where the upstream answered with another than 200; else 0.
        seconds: to the whole answer, the first content of a stream, or the fault.
        waited: seconds that the call waited before it.
        hedge: it was begun beside another.
        began: on the executor's clock.
    """

    provider: str
    model: str
    key: str = ""
    fault: Fault = Fault.CANCELLED
    status: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    hedge: bool = False
    began: float = 0.0


@dataclass(slots=True)
class Settlement:
    """How a call ended.

    Attributes:
        request_id: the call's id.
        caller: the name of the key or certificate; empty if nobody is asked for one.
        model: what was asked for.
        streamed: which RPC it was.
        outcome: ``OK``, ``CANCELLED``, or the reason of the error, such as ``RATE_LIMITED``.
        provider, target_model: who answered, or was last asked; empty if nobody was.
        attempts: upstream calls made.
        tried: each of them.
        route: the public model that served, after aliases, rules and fallbacks.
        cache: a `headgate.v1.CacheStatus`.
        repeated: the answer is that of an earlier call with the same idempotency key.
        usage: tokens used, if the upstream said so; None where the answer was made for another call.
        seconds: from the arrival of the call to its end.
        first_event_seconds: to the first event of a stream; None before it.
    """

    request_id: str
    model: str
    streamed: bool
    caller: str = ""
    outcome: str = ""
    provider: str = ""
    target_model: str = ""
    attempts: int = 0
    tried: list[Tried] = field(default_factory=list)
    route: str = ""
    cache: int = 0
    repeated: bool = False
    usage: chat_pb2.Usage | None = None
    seconds: float = 0.0
    first_event_seconds: float | None = None

    @property
    def waited(self) -> float:
        """Seconds that the call waited before its attempts: backing off, or for a free place."""
        return sum(each.waited for each in self.tried)


class Used(Protocol):
    """What counts the calls that use it."""

    running: int


Hook = Callable[[Settlement], None]


class Settling:
    """A call that is to be settled: a context manager around all that the core does for it.

    Leaving the block settles, once, whichever way it is left. A GatewayError passes through, labelled
    with the request id; any other Exception is a defect of ours, is logged, and becomes an opaque
    `InternalError`. Being cancelled at the caller's deadline counts as the deadline.

    Args:
        record: what the hooks will get.
        hooks: get it once, at the end.
        deadline: the caller's.
        used: counts the call as running, from here to its end.

    Attributes:
        record: as given.
        completed: the answer is whole, so that its reader may leave as it likes.
    """

    __slots__ = ("_deadline", "_hooks", "_settled", "_started", "_used", "completed", "record")

    def __init__(
        self,
        record: Settlement,
        hooks: Sequence[Hook],
        deadline: float | None = None,
        used: Used | None = None,
    ) -> None:
        self.record = record
        self.completed = False
        self._hooks = hooks
        self._deadline = deadline
        self._settled = False
        self._started = time.monotonic()
        self._used = used
        if used is not None:
            used.running += 1

    def first_event(self) -> None:
        """Notes the time of the first event; later calls change nothing."""
        if self.record.first_event_seconds is None:
            self.record.first_event_seconds = time.monotonic() - self._started

    def settle(self, outcome: str) -> None:
        """Ends the call. Only the first ending counts."""
        if self._settled:
            return
        self._settled = True
        if self._used is not None:
            self._used.running -= 1
        self.record.outcome = outcome
        self.record.seconds = time.monotonic() - self._started
        for hook in self._hooks:
            try:
                hook(self.record)
            except Exception:
                # A hook's defect must not become the caller's.
                _log.exception("a settlement hook failed for %s", self.record.request_id)

    def __enter__(self) -> Settling:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.settle(OK)
        elif isinstance(exc, GatewayError):
            exc.request_id = self.record.request_id
            self.settle(reason_name(exc))
        elif isinstance(exc, Exception):
            self.settle(reason_name(InternalError))
            request_id = self.record.request_id
            _log.error("call %s failed", request_id, exc_info=exc)
            opaque = InternalError(f"internal error; the log has it under {request_id}")
            opaque.request_id = request_id
            raise opaque from exc
        elif self.completed:  # the reader left after the end, without asking for more
            self.settle(OK)
        else:  # CancelledError, GeneratorExit: the caller has gone
            self.settle(reason_name(DeadlineExceeded) if self._late() else CANCELLED)

    def _late(self) -> bool:
        if self._deadline is None:
            return False
        now = time.monotonic()
        slack = _DEADLINE_SLACK_SECONDS + _DEADLINE_SLACK_SHARE * (now - self._started)
        return now + slack >= self._deadline


def log_settlement(record: Settlement) -> None:
    """The access log: a line for each call, at level INFO."""
    if not _log.isEnabledFor(logging.INFO):
        return
    usage = record.usage
    _log.info(
        "%s %s model=%s target=%s/%s attempts=%d seconds=%.3f tokens=%s+%s caller=%s",
        record.request_id,
        record.outcome,
        record.model[:_MAX_LOGGED_NAME],
        record.provider or "-",
        record.target_model or "-",
        record.attempts,
        record.seconds,
        usage.input_tokens if usage else "?",
        usage.output_tokens if usage else "?",
        record.caller or "-",
    )
