"""The headers that tell how an answer came about."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from headgate import errors
from headgate.core import CallContext
from headgate.v1 import chat_pb2, routing_pb2
from headgate_facade.failures import error_headers
from headgate_facade.served import answer_headers, served_headers

Attempt = routing_pb2.Attempt


def attempt(provider: str, model: str, seconds: float = 0.0, **fields: object) -> Attempt:
    made = Attempt(provider=provider, model=model, **fields)  # type: ignore[arg-type]
    made.elapsed.FromMicroseconds(round(seconds * 1e6))
    return made


def test_a_call_that_took_three_attempts() -> None:
    served = chat_pb2.Served(
        provider="azure",
        model="gpt-5.4",
        attempts=3,
        route="fast",
        tried=[
            attempt("openai", "gpt-5.4", 0.2014, fault=routing_pb2.FAULT_OVERLOAD, key="eu"),
            attempt("openai", "gpt-5.4", 1.5, fault=routing_pb2.FAULT_CANCELLED),
            attempt("azure", "gpt-5.4", 0.532, hedge=True),
        ],
        cache=routing_pb2.CACHE_STATUS_MISS,
        repeated_answer=True,
    )
    served.tried[1].waited.FromMilliseconds(250)
    served.tried[2].waited.FromMilliseconds(1500)
    assert dict(served_headers(served)) == {
        b"x-headgate-provider": b"azure",
        b"x-headgate-model": b"gpt-5.4",
        b"x-headgate-attempts": b"3",
        b"x-headgate-route": b"fast",
        b"x-headgate-tried": (
            b"openai/gpt-5.4 key=eu OVERLOAD 0.201s, openai/gpt-5.4 CANCELLED 1.500s, "
            b"azure/gpt-5.4 OK 0.532s hedge"
        ),
        b"x-headgate-waited": b"1.750",
        b"x-headgate-cache": b"miss",
        b"x-headgate-repeated": b"true",
    }


def test_a_plain_call_says_no_more_than_there_is() -> None:
    served = chat_pb2.Served(provider="up", model="m", attempts=1, tried=[attempt("up", "m", 0.1)])
    assert dict(served_headers(served)) == {
        b"x-headgate-provider": b"up",
        b"x-headgate-model": b"m",
        b"x-headgate-attempts": b"1",
        b"x-headgate-tried": b"up/m OK 0.100s",
    }
    context = CallContext(request_id="r")
    assert answer_headers(context, None, ()) == [(b"x-request-id", b"r")]


def test_many_attempts_are_counted() -> None:
    tried = [attempt("up", "m", fault=routing_pb2.FAULT_TRANSPORT)] * 20
    (found,) = [
        value
        for name, value in served_headers(chat_pb2.Served(attempts=20, tried=tried))
        if name == b"x-headgate-tried"
    ]
    assert found.count(b"TRANSPORT") == 8
    assert found.endswith(b", and 12 more")


def test_a_fault_and_a_cache_status_that_are_not_known_here() -> None:
    served = chat_pb2.Served(tried=[attempt("up", "m", fault=99)], cache=99)  # type: ignore[arg-type]
    found = dict(served_headers(served))
    assert found[b"x-headgate-tried"] == b"up/m ? 0.000s"
    assert found[b"x-headgate-cache"] == b"?"


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    provider=names,
    model=st.builds(lambda text, times: text * times, names, st.sampled_from([1, 200])),
    key=names,
    times=st.integers(0, 30),
)
def test_no_name_can_break_a_header(provider: str, model: str, key: str, times: int) -> None:
    served = chat_pb2.Served(
        provider=provider,
        model=model,
        route=model,
        tried=[attempt(provider, model, key=key)] * times,
    )
    error = errors.Overloaded("x")
    error.served = served
    for name, value in (*served_headers(served), *error_headers(error, "r")):
        assert re.fullmatch(rb"[ -~]*", value)
        assert len(value) < 256 * 2 * 9, name


def test_errors_tell_it_too() -> None:
    error = errors.Overloaded("x", retry_after=2)
    assert dict(error_headers(error, "r")).keys() & {b"x-headgate-attempts"} == set()
    error.served = chat_pb2.Served(attempts=1, tried=[attempt("up", "m", 0.1, fault=6)])  # type: ignore[arg-type]
    found = dict(error_headers(error, "r"))
    assert found[b"x-headgate-tried"] == b"up/m OVERLOAD 0.100s"
    assert found[b"retry-after"] == b"2"
    assert b"x-headgate-provider" not in found
