"""What comes next when an attempt has failed: decisions alone, with the time and the dice given."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.core import CallContext
from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    GatewayError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate.v1 import chat_pb2, routing_pb2
from headgate_server.auth import ANYBODY
from headgate_server.call import Call
from headgate_server.config import Config
from headgate_server.course import Course, Step, given_up, patience_of
from headgate_server.faults import VERDICTS, Fault, Unreachable, fault_of
from headgate_server.health import Board
from headgate_server.keyring import Key, Keyring
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Endpoint
from headgate_server.providers.runtime import HttpProvider
from headgate_server.routing import Router

REFUSED = UpstreamRejectedUs("no")


def _provider(name: str, keys: int = 0) -> HttpProvider:
    vendor = vendor_of("openai", None)
    ring = [
        Key(f"key-{n}", 1.0, Endpoint("https://api.example/v1", {})) for n in range(1, keys + 1)
    ]
    return HttpProvider(
        name=name,
        kind="openai",
        vendor=vendor,
        dialect=dialect_of("openai", vendor, 1 << 20),
        upstream=None,  # type: ignore[arg-type]  # nothing is sent
        endpoint=lambda: Endpoint("https://api.example/v1", {}),
        keyring=Keyring(ring, dice=lambda: 0.0) if ring else None,
    )


class World:
    """A router, a board and a course over them."""

    def __init__(
        self, models: dict[str, Any], *, keys: dict[str, int] | None = None, **sections: Any
    ) -> None:
        names = ("a", "b", "c")
        self.config = Config.model_validate({
            "providers": {name: {"kind": "openai", "api_key": "k"} for name in names},
            "models": models,
            **sections,
        })  # fmt: skip
        self.providers = {name: _provider(name, (keys or {}).get(name, 0)) for name in names}
        self.board = Board(self.config)
        self.router = Router(self.config, self.providers, self.board, dice=lambda: 0.5)

    def course(
        self,
        model: str = "m",
        *,
        deadline: float | None = None,
        dice: float = 1.0,
        request: chat_pb2.ChatRequest | None = None,
        now: float = 0.0,
    ) -> Course:
        route = self.router.route(model)
        asked = request or chat_pb2.ChatRequest(model=model)
        call = Call(asked, CallContext(deadline=deadline), ANYBODY, route)
        patience = patience_of(route, self.config.retries, self.config.keys.bench)
        return Course(call, self.router, self.board, patience, lambda: dice, now)


def three(**more: Any) -> dict[str, Any]:
    return {"targets": [{"provider": name} for name in "abc"], **more}


def one(**more: Any) -> dict[str, Any]:
    return {"targets": [{"provider": "a"}], **more}


def place(step: Step | None) -> str:
    return "" if step is None else f"{step.candidate.target.provider}/{step.candidate.target.model}"


def walk(course: Course, error: GatewayError, at: float = 0.0) -> list[str]:
    """The places of all attempts when each fails in the same way."""
    seen = []
    while (step := course.next(at)) is not None:
        seen.append(place(step))
        course.failed(step, error, at)
    return seen


def test_the_taxonomy_is_that_of_the_api() -> None:
    numbers = {name.removeprefix("FAULT_"): n for name, n in routing_pb2.Fault.items()}
    assert {fault.name: fault.value for fault in Fault} == {
        **{name: n for name, n in numbers.items() if name != "UNSPECIFIED"},
        "NONE": 0,
    }
    assert set(VERDICTS) == set(Fault)


def _all_errors(kind: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [kind, *(below for sub in kind.__subclasses__() for below in _all_errors(sub))]


@pytest.mark.parametrize("kind", _all_errors()[1:])
def test_every_error_has_a_fault(kind: type[GatewayError]) -> None:
    assert (fault_of(kind("x")) is Fault.INTERNAL) is (
        kind.__name__ in ("InternalError", "StoreUnavailable")
    )


STOPS = [InvalidRequest("x"), ModelNotFound("x"), ContextTooLong("x"), ContentFiltered("x"),
         DeadlineExceeded("x"), InternalError("x")]  # fmt: skip


@pytest.mark.parametrize("error", STOPS, ids=lambda error: type(error).__name__)
def test_what_is_not_the_targets_fault_ends_the_call(error: GatewayError) -> None:
    world = World({"m": three(fallbacks=["f"]), "f": one()})
    course = world.course()
    assert walk(course, error) == ["a/m"]
    assert course.error is error


ONWARD = [UpstreamUnavailable("x"), Overloaded("x"), UpstreamProtocol("x"), Unreachable("x"),
          UpstreamTimeout("x"), REFUSED, QuotaExhausted("x"), RateLimited("x")]  # fmt: skip


@pytest.mark.parametrize("error", ONWARD, ids=lambda error: type(error).__name__)
def test_what_is_goes_on_to_the_next_target_then_the_fallbacks(error: GatewayError) -> None:
    world = World(
        {"m": three(fallbacks=["f", "g"]), "f": one(), "g": {"targets": [{"provider": "b"}]}},
        retries={"max": 0},
    )
    assert walk(world.course(), error) == ["a/m", "b/m", "c/m", "a/f", "b/g"]


AGAIN = [UpstreamUnavailable("x"), Overloaded("x"), UpstreamProtocol("x"), Unreachable("x"),
         RateLimited("x")]  # fmt: skip


@pytest.mark.parametrize("error", AGAIN, ids=lambda error: type(error).__name__)
def test_the_same_again_comes_behind_all_others(error: GatewayError) -> None:
    world = World({"m": three(fallbacks=["f"]), "f": one()}, retries={"max": 1, "attempts": 50})
    assert walk(world.course(), error) == ["a/m", "b/m", "c/m", "a/m", "b/m", "c/m", "a/f", "a/f"]


@pytest.mark.parametrize("error", [UpstreamTimeout("x"), REFUSED, QuotaExhausted("x")])
def test_some_faults_do_not_get_better(error: GatewayError) -> None:
    assert walk(World({"m": one()}).course(), error) == ["a/m"]


def test_waits_double_and_are_drawn() -> None:
    world = World({"m": one()}, retries={"max": 4, "base": 1, "max_wait": 5})
    for dice in (1.0, 0.25):
        course, waits = world.course(dice=dice), []
        while (step := course.next(0.0)) is not None:
            waits.append(step.wait)
            course.failed(step, UpstreamUnavailable("x"), 0.0)
        assert waits == pytest.approx([0, dice, 2 * dice, 4 * dice, min(8 * dice, 5)])


def test_retry_after_is_waited_for_up_to_a_cap() -> None:
    world = World({"m": one()}, retries={"max": 1, "base": "1ms", "max_wait": 2})
    course = world.course()
    course.failed(_some(course.next(0.0)), RateLimited("x", retry_after=1.5), 0.0)
    assert _some(course.next(0.0)).wait == 1.5
    course = World({"m": one()}, retries={"max_wait": 2}).course()
    course.failed(_some(course.next(0.0)), Overloaded("x", retry_after=2.5), 0.0)
    assert course.next(0.0) is None


def _some(step: Step | None) -> Step:
    assert step is not None
    return step


def test_attempts_are_bounded_in_all() -> None:
    world = World({"m": three()}, retries={"max": 10, "attempts": 5, "budget": 1})
    assert len(walk(world.course(), UpstreamUnavailable("x"))) == 5


def test_retries_are_bounded_by_the_providers_budget() -> None:
    world = World(
        {"m": one()},
        retries={"max": 3, "budget": 0.1, "budget_min": 0},
        breaker={"enabled": False},
    )
    times = [n * 0.01 for n in range(500)]
    calls = [len(walk(world.course(now=at), UpstreamUnavailable("x"), at=at)) for at in times]
    assert sum(calls) <= 500 * 1.1 + 1
    assert sum(calls) > 500 * 1.05


def test_a_deadline_leaves_no_room_for_a_wait() -> None:
    world = World({"m": one()}, retries={"base": 1})
    course = world.course(deadline=0.9)
    course.failed(_some(course.next(0.0)), UpstreamUnavailable("x"), 0.2)
    assert course.next(0.2) is None
    assert isinstance(course.error, UpstreamUnavailable)  # the real reason


def test_no_attempt_that_cannot_be_worth_it() -> None:
    world = World({"m": three()})
    health = world.board.target(world.router.route("m").candidates[1].target)
    health.begin(0.0)
    health.first(2.0, 0.0)
    health.end(Fault.NONE, 2.0, 0.0)
    course = world.course(deadline=1.0)
    course.failed(_some(course.next(0.0)), UpstreamUnavailable("x"), 0.5)
    assert place(course.next(0.5)) == "c/m"  # b usually takes four times what is left


def test_a_deadline_that_passed_is_the_error_if_nothing_was_tried() -> None:
    course = World({"m": one()}).course(deadline=1.0)
    assert course.next(1.5) is None
    assert isinstance(given_up(course.error, 1.5, 1.0), DeadlineExceeded)


CHAINS = {
    "m": three(fallbacks=["f"], on_context_window=["big"], on_content_policy=["mild"]),
    "f": one(),
    "big": {"targets": [{"provider": "b"}], "catalog": {"context_window": 1_000_000}},
    "mild": {"targets": [{"provider": "c"}]},
}


@pytest.mark.parametrize(
    ("error", "then"), [(ContextTooLong("x"), "b/big"), (ContentFiltered("x"), "c/mild")]
)
def test_each_case_has_a_chain_of_its_own(error: GatewayError, then: str) -> None:
    assert walk(World(CHAINS).course(), error) == ["a/m", then]


def test_a_fallback_that_cannot_take_the_request_is_not_tried() -> None:
    models = {
        "m": one(fallbacks=["blind", "sees"]),
        "blind": {"targets": [{"provider": "b"}], "catalog": {"input": ["text"]}},
        "sees": {"targets": [{"provider": "c"}], "catalog": {"input": ["text", "image"]}},
    }
    request = chat_pb2.ChatRequest(model="m")
    request.messages.add().parts.add().image.url = "https://pictures.example/1.png"
    world = World(models, retries={"max": 0})
    assert walk(world.course(request=request), UpstreamUnavailable("x")) == ["a/m", "c/sees"]


def test_a_fallbacks_own_fallbacks_are_not_followed() -> None:
    models = {"m": one(fallbacks=["f"]), "f": one(fallbacks=["g"]), "g": one()}
    assert walk(World(models).course(), UpstreamTimeout("x")) == ["a/m", "a/f"]


# Keys.


def test_a_refused_key_is_benched_and_the_next_one_taken_at_once() -> None:
    world = World({"m": one()}, keys={"a": 3})
    course = world.course()
    first = _some(course.next(0.0))
    course.failed(first, REFUSED, 0.0)
    second = _some(course.next(0.0))
    assert (second.wait, second.key is first.key) == (0.0, False)
    for now in (0.0, 30.0, 59.0):
        assert _some(world.course(now=now).next(now)).key is not first.key
    keyring = world.providers["a"].keyring
    assert keyring is not None
    assert [bench.key for bench in keyring.benches(59.0)] == [first.key]
    assert keyring.benches(61.0) == []


@pytest.mark.parametrize(("models", "last"), [(one(), True), (three(), False)])
def test_another_key_waits_for_a_place_if_there_is_no_other_target(
    models: dict[str, Any], last: bool
) -> None:
    course = World({"m": models}, keys={"a": 2}).course()
    course.failed(_some(course.next(0.0)), REFUSED, 0.0)
    again = _some(course.next(0.0))
    assert (place(again), again.last) == ("a/m", last)


def test_when_all_keys_are_refused_it_says_so() -> None:
    world = World({"m": one()}, keys={"a": 2})
    course = world.course()
    assert walk(course, REFUSED) == ["a/m", "a/m"]
    assert isinstance(course.error, UpstreamRejectedUs)
    assert "all 2 keys of provider 'a' are benched" in course.error.message
    later = world.course(now=10.0)
    assert later.next(10.0) is None
    assert "key-1: CREDENTIAL" in later.error.message
    assert later.error.retry_after == pytest.approx(50)
    assert _some(world.course(now=61.0).next(61.0)).key is not None


def test_other_targets_do_not_wait_for_benched_keys() -> None:
    world = World({"m": three()}, keys={"a": 2})
    assert walk(world.course(), REFUSED) == ["a/m", "a/m", "b/m", "c/m"]
    assert place(world.course(now=1.0).next(1.0)) in ("b/m", "c/m")


def test_a_key_that_is_alone_is_always_tried() -> None:
    world = World({"m": one()}, keys={"a": 1})
    for now in (0.0, 1.0):
        course = world.course(now=now)
        assert walk(course, REFUSED, now) == ["a/m"]
        assert course.error is REFUSED


def test_a_rate_limit_rests_its_key_for_that_model_alone() -> None:
    world = World({"m": one(), "n": one()}, keys={"a": 2})
    course = world.course()
    first = _some(course.next(0.0))
    course.failed(first, RateLimited("x", retry_after=7.0), 0.0)
    second = _some(course.next(0.0))
    assert (second.wait, second.key is not first.key) == (0.0, True)
    keyring = world.providers["a"].keyring
    assert keyring is not None
    assert {_some(world.course(now=6.0).next(6.0)).key for _ in range(5)} == {second.key}
    assert [(bench.model, bench.until) for bench in keyring.benches(6.0)] == [("m", 7.0)]
    assert _some(world.course("n", now=6.0).next(6.0)).key is first.key  # the dice say the first


def test_rate_limits_without_a_time_rest_longer_each_time() -> None:
    world = World({"m": one()}, keys={"a": 2}, retries={"max": 0})
    keyring = world.providers["a"].keyring
    assert keyring is not None
    key = keyring.keys[0]
    ends = []
    now = 0.0
    for _ in range(9):
        course = world.course(now=now)
        step = _some(course.next(now))
        assert step.key is key
        course.failed(step, RateLimited("x"), now)
        ends.append(keyring.benches(now)[0].until - now)
        now += 100.0
    assert ends == pytest.approx([1, 2, 4, 8, 16, 32, 64, 64, 64])
    keyring.worked(key)
    course = world.course(now=now)
    course.failed(_some(course.next(now)), RateLimited("x"), now)
    assert keyring.benches(now)[0].until - now == pytest.approx(1)


def test_all_keys_limited_is_a_rate_limit() -> None:
    world = World({"m": one()}, keys={"a": 2}, retries={"max": 0})
    course = world.course()
    assert walk(course, RateLimited("x", retry_after=9.0)) == ["a/m", "a/m"]
    assert isinstance(course.error, RateLimited)
    assert course.error.retry_after == pytest.approx(9)


def test_a_limited_target_is_left_alone_while_there_are_others() -> None:
    world = World({"m": three()}, retries={"max": 0})
    course = world.course()
    course.failed(_some(course.next(0.0)), RateLimited("x", retry_after=5.0), 0.0)
    assert place(world.course(now=4.0).next(4.0)) == "b/m"
    assert place(world.course(now=5.5).next(5.5)) == "a/m"


# Hedges.


def test_a_hedge_goes_to_the_next_target() -> None:
    course = World({"m": three()}).course()
    first = _some(course.next(0.0))
    assert [place(course.hedge(first, 0.1)) for _ in range(2)] == ["b/m", "c/m"]


def test_a_hedge_counts_as_a_retry() -> None:
    world = World({"m": three()}, retries={"budget": 0, "budget_min": 0})
    course = world.course()
    first = _some(course.next(0.0))
    assert course.hedge(first, 0.1) is None
    course.failed(first, UpstreamUnavailable("x"), 0.2)
    assert place(course.next(0.2)) == "b/m"  # which was not used up by the hedge that was refused


def test_a_target_that_is_alone_is_hedged_by_itself() -> None:
    course = World({"m": one()}).course()
    first = _some(course.next(0.0))
    assert place(course.hedge(first, 0.1)) == "a/m"
