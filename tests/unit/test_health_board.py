"""The board: which targets there are, who is ejected, and what a new configuration keeps."""

from __future__ import annotations

from typing import Any

import pytest

from headgate_server.config import Config
from headgate_server.faults import Fault
from headgate_server.health import Board, Position, Standing, TargetHealth
from headgate_server.health.board import MAX_UNLISTED
from headgate_server.health.outliers import outlying
from headgate_server.providers import vendor_of
from headgate_server.providers.base import Target
from headgate_server.providers.vendors import family_of


def config(**sections: Any) -> Config:
    return Config.model_validate(
        {
            "providers": {name: {"kind": "openai", "api_key": "k-12345678"} for name in "abcd"},
            "models": {
                "m": {"targets": [{"provider": name} for name in "abcd"]},
                "pair": {"targets": [{"provider": "a"}, {"provider": "b", "model": "other"}]},
            },
        }
        | sections
    )


def target(provider: str, model: str = "m") -> Target:
    return Target(provider, "openai", model, vendor_of("openai", None), family_of(model))


def attempts(health: TargetHealth, good: int, bad: int, now: float) -> None:
    """So many of each, the good ones first."""
    for number in range(good + bad):
        health.begin(now)
        health.end(Fault.NONE if number < good else Fault.PROVIDER, 0.0, now)


def four(board: Board) -> list[TargetHealth]:
    found = [board.target(target(name)) for name in "abcd"]
    board.peers("m", found)
    return found


def ejected(targets: list[TargetHealth], now: float) -> str:
    return "".join(each.provider for each in targets if each.standing(now) is Standing.EJECTED)


def test_a_target_is_the_same_for_everybody_who_names_it() -> None:
    board = Board(config())
    assert board.target(target("a")) is board.target(target("a"))
    assert board.target(target("a")) is not board.target(target("b"))
    assert board.target(target("a")) is not board.target(target("a", "other"))
    assert [(each.provider, each.model) for each in board.all()] == [
        ("a", "m"),
        ("b", "m"),
        ("a", "other"),
    ]
    assert board.budget("a") is board.budget("a")
    assert board.budget("a") is not board.budget("b")


def test_the_nearest_settings_of_concurrency_win() -> None:
    board = Board(
        config(
            concurrency={"limit": 1},
            providers={
                "a": {"kind": "openai", "api_key": "k-12345678", "concurrency": {"limit": 2}},
                "b": {"kind": "openai", "api_key": "k-12345678"},
            },
            models={
                "m": {"targets": [{"provider": "a", "concurrency": {"limit": 3}}]},
                "again": {"targets": [{"provider": "a", "model": "m"}, {"provider": "b"}]},
            },
        )
    )
    assert board.target(target("a")).limit == 3
    assert board.target(target("a", "x")).limit == 2
    assert board.target(target("b", "again")).limit == 1
    assert board.target(target("b", "again")).queue_wait == 1.0
    assert Board(config()).target(target("a")).limit is None


def test_targets_that_callers_make_up_are_bounded_and_busy_ones_stay() -> None:
    board = Board(config())
    listed, busy = board.target(target("a")), board.target(target("a", "busy"))
    busy.begin(0.0)
    idle = board.target(target("a", "idle"))
    used = board.target(target("a", "used"))
    for number in range(MAX_UNLISTED + 10):
        board.target(target("a", f"x-{number}"))
        assert board.target(target("a", "used")) is used
    assert len(board.all()) == MAX_UNLISTED + 1
    assert board.target(target("a")) is listed
    assert board.target(target("a", "busy")) is busy
    assert board.target(target("a", "idle")) is not idle
    for number in range(MAX_UNLISTED):
        board.target(target("b", f"x-{number}")).begin(0.0)
    assert len(board.all()) == MAX_UNLISTED + 1, "even if all are busy"


def test_the_one_that_fails_more_often_is_ejected() -> None:
    board = Board(config())
    targets = a, *_ = four(board)
    for each in targets:
        attempts(each, 20, 9 if each is a else 0, 1.0)
    assert all(each.calm for each in targets)
    board.look(2.0)
    assert ejected(targets, 2.0) == "a"
    assert not a.calm
    assert a.ejected_for(4.0) == 8.0
    assert a.until(4.0) == 12.0
    assert a.standing(12.0) is Standing.READY
    assert a.calm


def test_it_is_compared_once_in_an_interval() -> None:
    board = Board(config())
    targets = a, *_ = four(board)
    board.look(0.0)
    for each in targets:
        attempts(each, 20, 9 if each is a else 0, 1.0)
    board.look(9.9)
    assert ejected(targets, 9.9) == ""
    board.look(10.0)
    assert ejected(targets, 10.0) == "a"


def test_ejections_in_a_row_last_longer_and_old_failures_do_not_count_again() -> None:
    board = Board(config(breaker={"enabled": False}))
    targets = a, *_ = four(board)
    now = 0.0
    lengths = []
    for _ in range(3):
        for each in targets:
            attempts(each, 20, 20 if each is a else 0, now)
        board.look(now)
        lengths.append(a.ejected_for(now))
        now += a.ejected_for(now)
        board.look(now)
        assert ejected(targets, now) == ""
        now += 10
    assert lengths == [10.0, 20.0, 30.0]
    for _ in range(2):  # as good as the others twice
        for each in targets:
            attempts(each, 20, 0, now)
        board.look(now)
        now += 10
    for each in targets:
        attempts(each, 20, 40 if each is a else 0, now)
    board.look(now)
    assert a.ejected_for(now) == 20.0


def test_what_was_under_way_when_it_was_ejected_does_not_count() -> None:
    board = Board(config())
    targets = a, *_ = four(board)
    for each in targets:
        attempts(each, 20, 9 if each is a else 0, 1.0)
    for _ in range(30):
        a.begin(1.5)
    board.look(2.0)
    for _ in range(30):
        a.end(Fault.PROVIDER, 2.5, 4.0)
    assert a.window_calls(4.0) == 0


@pytest.mark.parametrize(("share", "expected"), [(0.0, ""), (0.25, "a"), (0.5, "ab"), (1.0, "ab")])
def test_only_a_share_is_ejected_at_a_time(share: float, expected: str) -> None:
    board = Board(config(breaker={"enabled": False}, outliers={"max_share": share}))
    targets = a, b, *_ = four(board)
    for look in range(4):  # the worst hides the next one at first
        now = look * 10.0
        for each in targets:
            if each.standing(now) is Standing.READY:
                attempts(each, 20 if each is not a else 0, {a: 40, b: 10}.get(each, 0), now)
        board.look(now)
        if not look:
            assert ejected(targets, now) == expected[:1]
    assert set(expected) >= set(ejected(targets, 30.0))
    assert len(ejected(targets, 30.0)) <= share * 4


def test_the_last_one_is_never_ejected() -> None:
    board = Board(config(outliers={"max_share": 1.0}))
    a, b = board.target(target("a", "pair")), board.target(target("b", "other"))
    board.peers("pair", [a, b])
    attempts(b, 0, 10, 1.0)
    assert b.breaker(1.0)[0] is Position.OPEN
    attempts(a, 20, 15, 1.0)
    board.look(1.0)
    assert ejected([a, b], 1.0) == ""


def test_one_with_an_open_breaker_hides_no_outlier() -> None:
    board = Board(config(outliers={"max_share": 1.0}))
    a, b, c, _ = four(board)
    attempts(a, 15, 15, 1.0)
    attempts(b, 21, 9, 1.0)
    attempts(c, 30, 0, 1.0)
    assert a.standing(1.0) is Standing.OPEN
    board.look(1.0)
    assert ejected([a, b, c], 1.0) == "b"


def test_a_target_of_two_models_is_spared_if_one_of_them_needs_it() -> None:
    board = Board(config(outliers={"max_share": 0.3}))
    targets = a, *_ = four(board)
    other = board.target(target("b", "other"))
    board.peers("pair", [a, other])  # 0.3 of two is none
    for each in targets:
        attempts(each, 20, 9 if each is a else 0, 1.0)
    board.look(1.0)
    assert ejected(targets, 1.0) == ""


def test_too_few_requests_are_not_compared_and_it_can_be_turned_off() -> None:
    board = Board(config())
    targets = a, *_ = four(board)
    for each in targets:
        attempts(each, 10, 9 if each is a else 0, 1.0)
    board.look(1.0)
    assert ejected(targets, 1.0) == ""
    off = Board(config(outliers={"enabled": False}))
    targets = a, *_ = four(off)
    for each in targets:
        attempts(each, 20, 15 if each is a else 0, 1.0)
    off.look(1.0)
    assert ejected(targets, 1.0) == ""


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ([], []),
        ([(0.0, 100)], []),
        ([(1.0, 100), (0.95, 100)], []),  # two that hardly differ
        ([(1.0, 100), (0.85, 100)], [1]),
        ([(0.5, 20), (0.35, 20)], []),  # by chance
        ([(0.5, 2000), (0.35, 2000)], [1]),
        ([(1.0, 100), (1.0, 100), (0.8, 100)], [2]),
        ([(1.0, 100), (0.99, 100), (0.98, 100), (0.97, 100)], []),
        ([(0.9, 100), (0.6, 100), (0.8, 100), (0.55, 100)], []),  # a wide field has no outlier
        ([(1.0, 50)] * 8 + [(0.45, 50), (0.3, 50)], [9, 8]),  # the worst first
        ([(0.5, 50)] * 3, []),
    ],
)
def test_who_is_an_outlier(rates: list[tuple[float, int]], found: list[int]) -> None:
    assert outlying(rates, 1.9) == found


def test_asking_to_be_left_alone() -> None:
    health = Board(config()).target(target("a"))
    health.cool(20.0)
    health.cool(15.0)
    assert not health.calm
    assert health.standing(10.0) is Standing.COOLING
    assert (health.cooling_for(10.0), health.until(10.0)) == (10.0, 20.0)
    assert health.standing(20.0) is Standing.READY
    assert health.calm
    assert (health.cooling_for(21.0), health.until(21.0)) == (0.0, 21.0)


def test_the_gravest_reason_is_told_and_the_longest_time() -> None:
    board = Board(config(concurrency={"limit": 1}, breaker={"min_requests": 1}))
    health = board.target(target("a"))
    health.begin(0.0)
    assert health.standing(0.0) is Standing.FULL
    health.cool(50.0)
    assert health.standing(0.0) is Standing.COOLING
    health.eject(30.0, 0.0)
    assert health.standing(0.0) is Standing.EJECTED
    health.begin(0.0)
    health.end(Fault.PROVIDER, 0.0, 0.0)
    assert health.standing(0.0) is Standing.OPEN
    assert health.until(0.0) == 50.0
    assert [health.standing(now) for now in (5.0, 30.0, 50.0)] == [
        Standing.EJECTED,
        Standing.COOLING,
        Standing.FULL,
    ]


def test_a_new_configuration_keeps_what_has_the_same_settings() -> None:
    old = Board(config())
    a, b, loose = (old.target(target(*each)) for each in (("a",), ("b",), ("a", "loose")))
    attempts(a, 0, 10, 1.0)
    spent, changed = old.budget("a"), old.budget("b")
    new = Board(
        config(
            providers={
                "a": {"kind": "openai", "api_key": "k-12345678"},
                "b": {"kind": "openai", "api_key": "k-12345678", "base_url": "http://b.example/v1"},
            },
            models={"m": {"targets": [{"provider": "a"}, {"provider": "b"}]}},
        )
    )
    new.adopt(old)
    assert new.target(target("a")) is a
    assert new.target(target("a")).standing(1.0) is Standing.OPEN
    assert new.target(target("a", "loose")) is loose
    assert new.target(target("b")) is not b, "another upstream by the same name"
    assert new.budget("a") is spent
    assert new.budget("b") is changed
    assert len(new.all()) == 3


@pytest.mark.parametrize("section", ["breaker", "concurrency"])
def test_other_settings_are_a_new_beginning(section: str) -> None:
    changes = {"breaker": {"window": 60}, "concurrency": {"limit": 7}}
    old = Board(config())
    a = old.target(target("a"))
    new = Board(config(**{section: changes[section]}))
    new.adopt(old)
    assert new.target(target("a")) is not a
    fewer = Board(config(retries={"budget": 0.5}))
    budget = old.budget("a")
    fewer.adopt(old)
    assert fewer.budget("a") is not budget


def test_adopting_comes_first() -> None:
    board = Board(config())
    board.target(target("a"))
    with pytest.raises(RuntimeError, match="before it is used"):
        board.adopt(Board(config()))
