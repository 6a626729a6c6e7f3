"""The store of answers: never over its bounds, never late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate_server.answers.store import ENTRY_BYTES, Store

Step = tuple[str, int, int, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["get", "put", "wait"]),
        st.integers(0, 5),
        st.integers(0, 3000),
        st.floats(0.1, 10),
    ),
    max_size=40,
)


@given(STEPS, st.booleans(), st.integers(ENTRY_BYTES, 8000))
def test_it_is_a_dict_that_forgets(steps: list[Step], recent: bool, room: int) -> None:
    now = 0.0
    store = Store(room, lambda: now, recent=recent)
    put: dict[bytes, tuple[bytes, float]] = {}
    for what, number, size, seconds in steps:
        key = bytes([number])
        if what == "wait":
            now += seconds
        elif what == "put":
            value = bytes([number]) * size
            store.put(key, value, seconds)
            put[key] = (value, now + seconds)
            if size + ENTRY_BYTES <= room:
                assert store.get(key) == value
        else:
            found = store.get(key)
            assert found is None or (found == put[key][0] and now < put[key][1])
        assert 0 <= store.used <= room
        assert (store.used == 0) == (len(store) == 0)


def test_which_goes_first() -> None:
    for recent, gone in ((True, b"2"), (False, b"1")):
        store = Store(3 * (ENTRY_BYTES + 10), lambda: 0.0, recent=recent)
        for key in (b"1", b"2", b"3"):
            store.put(key, b"0123456789", 60)
        assert store.get(b"1")
        store.put(b"4", b"0123456789", 60)
        assert {key for key in (b"1", b"2", b"3", b"4") if not store.get(key)} == {gone}


def test_a_value_too_large_takes_the_older_one_with_it() -> None:
    store = Store(1000, lambda: 0.0, recent=True)
    store.put(b"1", b"old", 60)
    store.put(b"1", b"x" * 1000, 60)
    assert store.get(b"1") is None


def test_less_room() -> None:
    store = Store(10_000, lambda: 0.0, recent=False)
    for number in range(10):
        store.put(bytes([number]), b"x", 60)
    store.limit(ENTRY_BYTES + 1)
    assert [store.get(bytes([number])) for number in (0, 9)] == [None, b"x"]


def test_expired_entries_do_not_wait_to_be_asked_for() -> None:
    now = 0.0
    store = Store(10_000, lambda: now, recent=True)
    for number in range(5):
        store.put(bytes([number]), b"x", 1)
    now = 2.0
    store.put(b"n", b"x", 1)
    assert len(store) == 1
