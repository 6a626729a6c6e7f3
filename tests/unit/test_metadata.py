"""What callers may say beside their request, in the form in which it travels."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.metadata import cache_wish, callers_headers, idempotency_key

# What gRPC sends: https://grpc.github.io/grpc/core/md_doc__p_r_o_t_o_c_o_l-_h_t_t_p2.html
NAME = re.compile(r"[0-9a-z_.-]+")
VALUE = re.compile(r"[ -~]*")

names = st.one_of(
    st.text(st.characters(max_codepoint=0xFF), max_size=20).map(lambda text: f"x-{text}".lower()),
    st.from_regex(r"x-[a-z0-9_.-]{0,150}", fullmatch=True),
    st.sampled_from(["x-team", "x-team-bin", "x-headgate-hops", "authorization", "x-api-key"]),
)
values = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=600),
)


@given(st.lists(st.tuples(names, values), max_size=60))
def test_callers_headers_can_travel_and_are_the_same_wherever_they_are_taken(
    given: list[tuple[str, str]],
) -> None:
    found = callers_headers(given)
    assert callers_headers(found) == found
    assert len(found) <= 32
    assert sum(len(name) + len(value) for name, value in found) <= 2048
    for name, value in found:
        assert NAME.fullmatch(name)
        assert name.startswith("x-") and not name.endswith("-bin")
        assert VALUE.fullmatch(value)
        assert (name, value) in [(each, text.strip(" \t")) for each, text in given]


def test_callers_headers_are_those_of_callers() -> None:
    given = [
        ("host", "a"),
        ("x-team", " red "),
        ("x-request-id", "r"),
        ("x-stainless-lang", "python"),
        ("x-headgate-cache", "on"),
        ("x-api-key", "secret"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-long", "x" * 513),
        ("x-unprintable", "a\nb"),
        ("x-foreign", "é"),
        ("x-odd!", "a"),
        ("x-team", "blue"),
        ("x-empty", ""),
    ]
    assert callers_headers(given) == (("x-empty", ""), ("x-team", "red"), ("x-team", "blue"))


@given(st.text(max_size=400))
def test_an_idempotency_key_can_travel_and_stays_itself(given: str) -> None:
    found = idempotency_key(given)
    if found is None:
        assert not given.strip(" \t")
        return
    assert VALUE.fullmatch(found)
    assert 0 < len(found) <= 255
    assert idempotency_key(found) == found


def test_idempotency_keys_differ_as_they_did() -> None:
    assert idempotency_key("order-1") == "order-1"
    assert idempotency_key(None) is None
    odd = ["é", "è", "a\n", "x" * 256, "x" * 257, "\ud800"]
    assert len({idempotency_key(key) for key in odd}) == len(odd)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, None),
        ("", None),
        (" Refresh ", "refresh"),
        ("OFF", "off"),
        ("maybe", "maybe"),
        ("on; off", None),
        ("ön", None),
        ("o\nn", None),
        ("o" * 33, None),
    ],
)
def test_cache_wishes(given: str | None, found: str | None) -> None:
    assert cache_wish(given) == found
