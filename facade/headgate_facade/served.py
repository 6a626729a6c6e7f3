"""The headers of an answer or an error that tell how it came about. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from google.protobuf import duration_pb2

from headgate.core import CallContext
from headgate.v1 import chat_pb2, routing_pb2
from headgate_facade.http import Headers

_UNPRINTABLE = re.compile(r"[^ -~]")
_MAX_NAME_CHARACTERS = 256
_MAX_WARNINGS_CHARACTERS = 2000
# What `x-headgate-tried` names; more calls than these are only counted.
_MAX_TRIED = 8
_FAULTS = {number: name.removeprefix("FAULT_") for name, number in routing_pb2.Fault.items()} | {
    routing_pb2.FAULT_UNSPECIFIED: "OK"
}
_CACHE = {
    number: name.removeprefix("CACHE_STATUS_").lower().encode()
    for name, number in routing_pb2.CacheStatus.items()
}


def answer_headers(
    context: CallContext,
    served: chat_pb2.Served | None,
    warnings: Sequence[chat_pb2.Warning],
) -> Headers:
    """Whose answer it is.

    Args:
        context: of the call.
        served: None if no provider had a part in it.
        warnings: what was left out.
    """
    headers = [(b"x-request-id", context.request_id.encode())]
    if served is not None:
        headers += served_headers(served)
    if warnings:
        text = "; ".join(f"{warning.field}: {warning.message}" for warning in warnings)
        headers.append((b"x-headgate-warnings", _printable(text[:_MAX_WARNINGS_CHARACTERS])))
    return headers


def served_headers(served: chat_pb2.Served) -> Headers:
    """Who answered, or was asked in vain; and what was tried, and waited for."""
    tried = served.tried
    alone = not tried and served.attempts == 1
    headers = [*_who(served.provider, served.model, served.route, alone=alone)]
    headers.append((b"x-headgate-attempts", b"%d" % served.attempts))
    if tried:
        told, waited = _tried(tried)
        headers.append((b"x-headgate-tried", told))
        if waited:
            headers.append((b"x-headgate-waited", b"%.3f" % waited))
    if cache := served.cache:
        headers.append((b"x-headgate-cache", _CACHE.get(cache, b"?")))
    if served.repeated_answer:
        headers.append((b"x-headgate-repeated", b"true"))
    return headers


def _tried(tried: Sequence[routing_pb2.Attempt]) -> tuple[bytes, float]:
    """The header's value, and the seconds waited in between.

    Such as ``openai/gpt-5.4 key=eu OVERLOAD 0.201s, azure/gpt-5.4 OK 0.532s hedge``.
    """
    entries: list[str] = []
    waited = 0.0
    for each in tried[:]:  # a list, which is quicker to walk
        if each.HasField("waited"):
            waited += _seconds(each.waited)
        if len(entries) == _MAX_TRIED:
            continue
        target = f"{each.provider}/{each.model}"[:_MAX_NAME_CHARACTERS]
        if key := each.key:
            target = f"{target} key={key[:_MAX_NAME_CHARACTERS]}"
        hedge = " hedge" if each.hedge else ""
        fault = _FAULTS.get(each.fault, "?")
        entries.append(f"{target} {fault} {_seconds(each.elapsed):.3f}s{hedge}")
    if len(tried) > _MAX_TRIED:
        entries.append(f"and {len(tried) - _MAX_TRIED} more")
    return _printable(", ".join(entries)), waited


@functools.lru_cache(maxsize=512)
def _who(provider: str, model: str, route: str, *, alone: bool) -> Headers:
    """The target and the route; few of them take all the traffic. `alone`: it answered at once."""
    headers: Headers = []
    if provider:
        headers.append((b"x-headgate-provider", _name(provider)))
        headers.append((b"x-headgate-model", _name(model)))
        if alone:
            told = f"{provider}/{model}"[:_MAX_NAME_CHARACTERS] + " OK"
            headers.append((b"x-headgate-tried", _printable(told)))
    if route:
        headers.append((b"x-headgate-route", _name(route)))
    return headers


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _name(text: str) -> bytes:
    return _printable(text[:_MAX_NAME_CHARACTERS])


def _printable(text: str) -> bytes:
    """Printable ASCII: names come from upstreams and callers, and must not break the header."""
    if not (text.isascii() and text.isprintable()):
        text = _UNPRINTABLE.sub("?", text)
    return text.encode()
