"""The rules in front of the models: which requests they match, which one decides, and for what share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.routers import NOBODY, asked, router
from headgate.core import CallContext
from headgate.errors import ModelNotFound
from headgate.v1 import chat_pb2, content_pb2
from headgate_server import estimate
from headgate_server.auth import Caller
from headgate_server.routing import Router, rules

ONE = {"targets": [{"provider": "openai"}]}
MODELS = dict.fromkeys(("a", "b", "c", "d"), ONE)
ACME = Caller("ci", tenant="acme")


def ruled(*rules: dict[str, Any], **options: Any) -> Router:
    return router(MODELS, sections={"routes": rules}, **options)


def route_of(
    found: Router,
    request: chat_pb2.ChatRequest,
    context: CallContext = NOBODY,
    caller: Caller = ACME,
    notes: list[str] | None = None,
) -> tuple[str, str]:
    route, shadow = found.resolve(request, context, caller, notes)
    return route.name, shadow.name if shadow is not None else ""


def matches(
    when: dict[str, Any], request: chat_pb2.ChatRequest, context: CallContext = NOBODY
) -> bool:
    return route_of(ruled({"when": when, "use": "b"}), request, context)[0] == "b"


def media(kind: str, media_type: str = "") -> chat_pb2.ChatRequest:
    thing = content_pb2.Media(url="https://x", media_type=media_type)
    part = content_pb2.Part(**{kind: thing})  # type: ignore[arg-type]
    said = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[part])
    return chat_pb2.ChatRequest(model="a", messages=[said])


PLAIN = asked("a")
TOOLS = asked("a", tools=[chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))])
RESULT = asked("a")
RESULT.messages.add(role=content_pb2.ROLE_TOOL).parts.add().tool_result.parts.add().image.url = "u"
TEAM = CallContext(headers=(("x-team", "blue"), ("x-team", "green"), ("x-empty", "")))


@pytest.mark.parametrize(
    ("when", "request_", "expected"),
    [
        ({}, PLAIN, True),
        ({"model": "a"}, PLAIN, True),
        ({"model": ["z", "?"]}, PLAIN, True),
        ({"model": "A"}, PLAIN, False),
        ({"tenant": "ac*"}, PLAIN, True),
        ({"tenant": ["beta", "gamma"]}, PLAIN, False),
        ({"metadata": {"job": "nightly-*"}}, asked("a", metadata={"job": "nightly-1"}), True),
        ({"metadata": {"job": "nightly-*"}}, asked("a", metadata={"job": "daily"}), False),
        ({"metadata": {"job": "*"}}, asked("a", metadata={"other": "x"}), False),
        ({"metadata": {"a": "1", "b": "2"}}, asked("a", metadata={"a": "1", "b": "3"}), False),
        ({"headers": {"x-team": "green"}}, PLAIN, True),
        ({"headers": {"X-Team": ["red", "blu?"]}}, PLAIN, True),
        ({"headers": {"x-team": "red"}}, PLAIN, False),
        ({"headers": {"x-none": "*"}}, PLAIN, False),
        ({"headers": {"x-empty": "*"}}, PLAIN, True),
        ({"tokens": {"min": 6, "max": 6}}, PLAIN, True),
        ({"tokens": {"min": 7}}, PLAIN, False),
        ({"tokens": {"max": 5}}, PLAIN, False),
        ({"tokens": {}}, PLAIN, True),
        ({"modality": "text"}, PLAIN, True),
        ({"modality": ["image", "audio"]}, PLAIN, False),
        ({"modality": "image"}, media("image"), True),
        ({"modality": "text"}, media("image"), False),
        ({"modality": "audio"}, media("audio"), True),
        ({"modality": "file"}, media("file", "application/pdf"), True),
        ({"modality": "video"}, media("file", "video/mp4"), True),
        ({"modality": "file"}, media("file", "video/mp4"), False),
        ({"modality": "image"}, RESULT, True),
        ({"tools": True}, TOOLS, True),
        ({"tools": True}, PLAIN, False),
        ({"tools": False}, TOOLS, False),
        ({"tools": False}, PLAIN, True),
        ({"model": "a", "tools": True}, PLAIN, False),
    ],
)
def test_conditions(when: dict[str, Any], request_: chat_pb2.ChatRequest, expected: bool) -> None:
    assert matches(when, request_, TEAM) is expected


def test_a_bare_text_to_complete_is_text() -> None:
    request = chat_pb2.ChatRequest(model="a", text_completion={"prompt_json": '"x"'})
    assert matches({"modality": "text"}, request)
    assert not matches({"modality": "image"}, request)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcz"),
            st.sampled_from(["a", "b", "c", None]),
            st.sampled_from(["a", "d", None]),
        ),
        max_size=6,
    )
)
@example([("a", None, "a"), ("a", "b", "d"), ("a", "c", None)])
def test_the_first_rule_that_matches_decides(rules: list[tuple[str, str, str]]) -> None:
    listed = [
        {
            "when": {"model": model},
            **({"use": use} if use else {}),
            **({"shadow": to} if to else {}),
        }
        for model, use, to in rules
    ]
    expected, shadow = "a", ""
    for model, use, to in rules:
        if model == "a":
            shadow = shadow or to or ""
            if use:
                expected = use
                break
    assert route_of(ruled(*listed), PLAIN) == (expected, shadow)


def test_rules_come_before_names() -> None:
    found = ruled({"when": {"model": "auto*"}, "use": "b"}, {"when": {"model": "b"}, "use": "c"})
    assert route_of(found, asked("auto-1")) == ("b", "")  # not c: rules are applied once
    assert route_of(found, asked("b")) == ("c", "")
    with pytest.raises(ModelNotFound):
        found.resolve(asked("other"), NOBODY, ACME)


def test_rules_may_lead_to_aliases_globs_and_addresses() -> None:
    models = {"a": {**ONE, "aliases": ["nick"]}, "g-*": ONE}
    for name, expected in (("nick", "a"), ("g-1", "g-1"), ("ds/x", "ds/x")):
        found = router(models, sections={"routes": [{"use": name, "shadow": name}]})
        assert route_of(found, PLAIN) == (expected, expected)
        with pytest.raises(ModelNotFound):
            router(models, sections={"routes": [{"use": "nothing"}]})


def test_notes_tell_what_had_a_say() -> None:
    found = router(
        {**MODELS, "b": {**ONE, "aliases": ["nick"]}},
        sections={
            "routes": [
                {"name": "mirror", "when": {"model": "a"}, "shadow": "d"},
                {"name": "canary", "when": {"model": "a"}, "share": 0.25, "use": "c"},
                {"when": {"model": "a"}, "use": "b"},
            ]
        },
        dice=lambda: 0.5,
    )
    notes: list[str] = []
    assert route_of(found, PLAIN, caller=Caller(), notes=notes) == ("b", "d")
    assert notes == [
        "rule 'mirror' sends a copy to 'd'",
        "rule 'canary' matches, but not its share of 0.25",
        "rule 'rule-3' leads to 'b'",
    ]
    notes.clear()
    assert route_of(found, asked("nick"), notes=notes) == ("b", "")
    assert notes == ["'nick' is an alias of 'b'"]


# --- shares ---------------------------------------------------------------------------------------


def canary(share: float, name: str = "canary", **options: Any) -> Router:
    return ruled({"name": name, "share": share, "use": "b"}, **options)


def in_canary(found: Router, users: Sequence[str]) -> set[str]:
    return {user for user in users if route_of(found, asked("a", user=user))[0] == "b"}


USERS = [f"user-{number}" for number in range(2000)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=4).map(sorted))
def test_whoever_is_in_stays_when_the_share_grows(shares: list[float]) -> None:
    before: set[str] = set()
    for share in shares:
        now = in_canary(canary(share), USERS[:50])
        assert before <= now
        before = now


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_share_is_that_share_of_the_users(share: float) -> None:
    found = canary(share)
    inside = in_canary(found, USERS)
    assert len(inside) / len(USERS) == pytest.approx(share, abs=0.035)
    assert in_canary(found, USERS) == inside


def test_rules_draw_their_shares_apart() -> None:
    one, other = in_canary(canary(0.5), USERS), in_canary(canary(0.5, "other"), USERS)
    assert len(one & other) / len(USERS) == pytest.approx(0.25, abs=0.05)


def test_a_whole_share_takes_everybody() -> None:
    assert in_canary(canary(1), USERS) == set(USERS)
    assert route_of(canary(1, dice=lambda: 1.0), PLAIN, caller=Caller())[0] == "b"


def test_who_a_share_is_sticky_by() -> None:
    """The user, else the session, else the caller, else nobody: then the dice decide."""
    throws: list[float] = []

    def dice() -> float:
        throws.append(0.0)
        return 0.0

    found = canary(0.5, dice=dice)
    inside = in_canary(found, USERS)
    for who in USERS[:40]:
        session = CallContext(headers=(("x-session-id", who),))
        for request, context, caller in (
            (asked("a", user=who, safety_identifier="z"), session, ACME),
            (
                asked("a", safety_identifier=who),
                CallContext(headers=(("x-session-id", "z"),)),
                ACME,
            ),
            (PLAIN, session, ACME),
            (PLAIN, NOBODY, Caller(who)),
        ):
            assert (route_of(found, request, context, caller)[0] == "b") is (who in inside)
    assert not throws
    assert route_of(found, PLAIN, caller=Caller())[0] == "b"
    assert throws
    assert route_of(canary(0.5, dice=lambda: 0.5), PLAIN, caller=Caller())[0] == "a"


# --- what it costs --------------------------------------------------------------------------------


def test_the_tokens_are_estimated_once_and_only_if_somebody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from headgate_server.routing import router as module

    estimates: list[chat_pb2.ChatRequest] = []

    def counting(request: chat_pb2.ChatRequest) -> int:
        estimates.append(request)
        return estimate.estimate_tokens(request)

    monkeypatch.setattr(module, "estimate_tokens", counting)
    cost = {"strategy": "cost", "targets": [{"provider": "openai"}, {"provider": "ds"}]}
    for target in cost["targets"]:
        target["price"] = {"input": 1, "output": 1}  # type: ignore[index]
    long = {"when": {"model": "a", "tokens": {"min": 10}}, "use": "b"}
    found = router(
        {**MODELS, "a": cost, "w": {**ONE, "catalog": {"context_window": 9}}},
        sections={"routes": [long, long]},
    )
    request = asked("a")
    route, _ = found.resolve(request, NOBODY, ACME)
    found.plan(route, request, NOBODY, ACME, 0.0)
    found.lacks(found.route("w"), request)
    assert estimates == [request]
    for_b = asked("b")
    route, _ = found.resolve(for_b, NOBODY, ACME)
    found.plan(route, for_b, NOBODY, ACME, 0.0)
    found.lacks(found.route("c"), for_b)
    assert estimates == [request]


@settings(deadline=None)
@given(
    texts=st.lists(st.text(max_size=40), max_size=6),
    names=st.lists(st.text(min_size=1, max_size=3), max_size=6),
    schema=st.text(max_size=20),
)
@example(texts=["a"] * 50, names=["f"] * 50, schema="")
@example(texts=["\u4e00" * 40], names=[], schema="")
def test_the_bound_of_a_plain_prompt_is_one(
    texts: list[str], names: list[str], schema: str
) -> None:
    request = chat_pb2.ChatRequest()
    for text in texts:
        request.messages.add(role=content_pb2.ROLE_USER).parts.add(text=text)
    for name in names:
        request.tools.add().function.name = name
    if schema:
        request.response_format.json_schema.schema_json = schema
    seen = rules.Asked(request, NOBODY, ACME, estimate.estimate_tokens)
    assert seen.plain
    assert seen.at_most() >= seen.tokens()


def test_outlines_are_bounded() -> None:
    found = ruled({"when": {"model": "a*"}, "use": "b"})
    for number in range(10_000):
        assert route_of(found, asked(f"a{number}")) == ("b", "")
    assert len(found._rules._concerned) <= 4096
