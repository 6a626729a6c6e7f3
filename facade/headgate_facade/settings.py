"""What an operator can set about the front doors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FacadeSettings:
    """Settings of the front doors.

    Attributes:
        body_limit: the largest request body in bytes.
        ping_interval: seconds of silence after which a stream gets a comment ping.
        reasoning_in_unary: whether unary answers carry `reasoning_content`; streams always do.
        cors_origins: origins whose pages may call; empty: none; ``*``: all.
        cors_allow_credentials: whether browsers may send credentials along.
    """

    body_limit: int = 64 * 1024 * 1024
    ping_interval: float = 15.0
    reasoning_in_unary: bool = True
    cors_origins: tuple[str, ...] = ()
    cors_allow_credentials: bool = False
