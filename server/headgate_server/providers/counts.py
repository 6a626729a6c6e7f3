"""Numbers in answers: counts, indexes and offsets. Pure."""

from __future__ import annotations

from headgate.errors import UpstreamProtocol
from headgate_server.providers.shapes import Number


def count(number: Number | None) -> int:
    """A number of tokens, or the index of a part; nothing is none. Some vendors send 1.0 for 1."""
    value = int(number or 0)
    if not 0 <= value < 2**60:  # so that sums of them fit into 64 bits
        raise UpstreamProtocol("the upstream sent a number out of range")
    return value


def offset(number: Number) -> int:
    """A place in a text; what the vendor means by one below 0 is its business."""
    value = int(number)
    if not -(2**31) <= value < 2**60:
        raise UpstreamProtocol("the upstream sent a number out of range")
    return value
