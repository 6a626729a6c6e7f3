"""The time limits of one exchange with an upstream: which of them passes next. Pure.

Owns what each limit is measured from, and the wording of the error. Timers are the connection's business.
"""

from __future__ import annotations

import msgspec

from headgate.errors import DeadlineExceeded, GatewayError, UpstreamTimeout
from headgate_server.providers.base import Timeouts


class Clock(msgspec.Struct, frozen=True, gc=False):
    """The limits of one exchange. All times are on the clock of `time.monotonic`.

    Attributes:
        provider: the provider's name, for error messages.
        limits: each of them.
        streamed: whether the answer is a stream, so that its content is what time is measured by.
        ends: when it is over, at the latest.
        callers: whether that is the caller's deadline, and not our limit.
    """

    provider: str
    limits: Timeouts
    streamed: bool
    ends: float
    callers: bool

    def first_look(self, now: float) -> float:
        """The seconds until a limit could pass, at the beginning.

        It is no longer than `idle`, nor may any later pause between two looks be: a silence that begins
        meanwhile, behind the head or a piece of content, ends no sooner than that.
        """
        limits = self.limits
        wait = min(limits.first_byte, limits.idle, self.ends - now)
        return limits.first_token if self.streamed and limits.first_token < wait else wait

    def left(
        self, now: float, sent: float, quiet_since: float | None, *, head: bool, begun: bool
    ) -> tuple[float, str]:
        """The seconds until the next limit passes, and its name in the section `timeouts`.

        Args:
            now: this moment.
            sent: when the request was.
            quiet_since: when the upstream last gave something; None while that is not waited for, since
                a caller who is slow to read is not the upstream's silence.
            head: whether the answer's head has come.
            begun: whether some content has.
        """
        limits = self.limits
        due = [(self.ends, "total")]
        if not head:
            due.append((sent + limits.first_byte, "first_byte"))
        elif quiet_since is not None:
            due.append((quiet_since + limits.idle, "idle"))
        if self.streamed and not begun and quiet_since is not None:
            due.append((sent + limits.first_token, "first_token"))
        ends, limit = min(due)
        return ends - now, limit

    def late(self, limit: str) -> GatewayError:
        """The error for a limit that passed."""
        if limit == "total" and self.callers:
            return DeadlineExceeded("the caller's deadline passed")
        seconds = getattr(self.limits, limit)
        return UpstreamTimeout(
            f"provider {self.provider!r} took longer than timeouts.{limit} = {seconds:g} s"
        )
