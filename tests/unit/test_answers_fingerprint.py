"""What makes two requests the same: tenants are never mixed up, and no field is overlooked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.messages import variants
from fakes.runs import ask
from headgate.v1 import chat_pb2
from headgate_server.answers.fingerprint import LABELS, exact, holder, question

# Labels, whose values the exact cache does not look at.
UNSEEN = {*LABELS, "metadata"}
NAMES = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["", "\x00", "a\x00", "a", "aa", "A", "m", "\ud800", "é", "é", " a", "a "]),
)


@given(NAMES, NAMES, NAMES, NAMES, st.text(max_size=3), st.text(max_size=3))
def test_two_tenants_never_share(
    tenant: str, other: str, route: str, second: str, text: str, another: str
) -> None:
    one = question(tenant, route, ask(text))
    two = question(other, second, ask(another))
    assert (one == two) == ((tenant, route, text) == (other, second, another))
    assert (holder(tenant, route) == holder(other, second)) == ((tenant, route) == (other, second))


def test_every_field_counts() -> None:
    found: dict[bytes, tuple[str, bytes]] = {question("t", "r", chat_pb2.ChatRequest()): ("", b"")}
    wholes: dict[bytes, bytes] = {}
    seen: set[str] = set()
    for path, request in variants(chat_pb2.ChatRequest):
        seen.add(path.partition(".")[0])
        wire = request.SerializeToString(deterministic=True)
        key = question("t", "r", request)
        assert wholes.setdefault(exact(request), wire) == wire
        known = found.setdefault(key, (path, wire))
        # The same request may come by several paths. Another one has the same key only by its label.
        if known[1] != wire:
            assert known[0] == path
            assert path in UNSEEN, path
    assert seen == {field.name for field in chat_pb2.ChatRequest.DESCRIPTOR.fields}
    assert len(found) > 300


@pytest.mark.parametrize("name", LABELS)
def test_that_a_label_is_there_counts_but_not_what_it_says(name: str) -> None:
    without = question("t", "r", ask())
    labelled = [question("t", "r", ask(**{name: value})) for value in ("", "a", "b")]
    assert labelled[0] == labelled[1] == labelled[2] != without


def test_so_with_metadata() -> None:
    without = question("t", "r", ask())
    labelled = [question("t", "r", ask(metadata=m)) for m in ({"a": "b"}, {"c": "d", "e": "f"})]
    assert labelled[0] == labelled[1] != without
    assert len({exact(ask(metadata=m)) for m in ({"a": "b"}, {"a": "c"}, {})}) == 3


def test_the_request_stays_as_it_is() -> None:
    request = ask(user="u", metadata={"a": "b"})
    before = request.SerializeToString(deterministic=True)
    question("t", "r", request)
    assert request.SerializeToString(deterministic=True) == before


@given(st.permutations(["a", "b", "c", "dd", ""]))
def test_the_order_of_maps_does_not_count(names: list[str]) -> None:
    bias = dict.fromkeys(names, 1.0)
    request, other = ask(logit_bias=bias), ask(logit_bias=dict.fromkeys(sorted(names), 1.0))
    assert question("t", "r", request) == question("t", "r", other)


def test_fields_of_a_newer_caller_count() -> None:
    newer = chat_pb2.ChatRequest.FromString(ask().SerializeToString() + b"\xba\x3e\x01x")
    assert question("t", "r", newer) != question("t", "r", ask())
