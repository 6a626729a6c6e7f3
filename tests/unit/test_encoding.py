"""What every dialect's encoding does with extras and options: which of them win, and what is mixed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headgate.v1 import chat_pb2
from headgate_server.providers.base import Target, UnsupportedPolicy
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.vendors import UNKNOWN_FAMILY, vendors


def merge(body: Json, policy: UnsupportedPolicy = "drop", **fields: Any) -> Encoding:
    request = chat_pb2.ChatRequest(model="m", **fields)
    target = Target("mine", "cohere", "m", vendors()["cohere"], UNKNOWN_FAMILY, policy)
    encoding = Encoding(request, target, "cohere")
    encoding.body = body
    encoding.merge_extras(frozenset({"model"}))
    return encoding


def body_of(encoding: Encoding) -> Any:
    return msgspec.json.decode(msgspec.json.encode(encoding.body))


def with_extra(body: Json, extra: str, **fields: Any) -> Any:
    return body_of(merge(body, extra_body_json=extra, extra_dialect="cohere", **fields))


def with_options(body: Json, options: str, **fields: Any) -> Any:
    return body_of(merge(body, provider_options_json={"mine": options}, **fields))


def test_objects_are_mixed_at_every_depth() -> None:
    body = {"o": {"a": 1, "i": {"b": 2}}}
    more = '{"o": {"a": 9, "c": 3, "i": {"b": 9, "d": 4}}, "e": 5}'
    assert with_extra(dict(body), more) == {"o": {"a": 1, "i": {"b": 2, "d": 4}, "c": 3}, "e": 5}
    assert with_options(dict(body), more) == {"o": {"a": 9, "i": {"b": 9, "d": 4}, "c": 3}, "e": 5}


@pytest.mark.parametrize("theirs", ["[1]", "7", "null", '"x"'])
def test_other_values_are_one_or_the_other(theirs: str) -> None:
    assert with_extra({"o": {"a": 1}}, f'{{"o": {theirs}}}') == {"o": {"a": 1}}
    found = with_options({"o": {"a": 1}}, f'{{"o": {theirs}}}')
    assert found == {"o": msgspec.json.decode(theirs)}
    assert with_options({"o": 1}, '{"o": {"a": 2}}') == {"o": {"a": 2}}


def test_a_schema_of_the_callers_is_not_mixed_with_another() -> None:
    body: Json = {"text": {"schema": msgspec.Raw(b'{"properties":{"a":{}}}'), "x": 1}}
    other = '{"text": {"schema": {"properties": {"b": {}}}}}'
    assert with_extra(dict(body), other)["text"]["schema"] == {"properties": {"a": {}}}
    assert with_options(dict(body), other) == {
        "text": {"schema": {"properties": {"b": {}}}, "x": 1}
    }


def test_objects_of_different_types_are_not_mixed() -> None:
    thinking = {"type": "enabled", "budget_tokens": 5}
    assert with_options({"t": thinking}, '{"t": {"type": "disabled"}}') == {
        "t": {"type": "disabled"}
    }
    assert with_extra({"t": thinking}, '{"t": {"type": "adaptive", "x": 1}}') == {"t": thinking}
    assert with_options({"t": thinking}, '{"t": {"type": "enabled", "x": 1}}') == {
        "t": {**thinking, "x": 1}
    }


def test_extras_and_options_are_mixed_too() -> None:
    options = {"cohere": '{"o": {"b": 2, "c": 2}}', "mine": '{"o": {"c": 3}}'}
    found = with_extra({}, '{"o": {"a": 1, "b": 1}}', provider_options_json=options)
    assert found == {"o": {"a": 1, "b": 2, "c": 3}}


def test_what_the_gateway_decides_stays() -> None:
    assert with_extra({"model": "m"}, '{"model": "other"}') == {"model": "m"}
    assert with_options({"model": "m"}, '{"model": "other"}') == {"model": "m"}


def test_extras_of_another_api_are_left_out_unless_everything_passes() -> None:
    extra = {"extra_body_json": '{"o": {"b": 2}}', "extra_dialect": "gemini"}
    dropped, passed = merge({"o": {"a": 1}}, **extra), merge({"o": {"a": 1}}, "pass", **extra)
    assert body_of(dropped) == {"o": {"a": 1}}
    assert [warning.field for warning in dropped.warnings] == ["o"]
    assert body_of(passed) == {"o": {"a": 1, "b": 2}}
    assert passed.warnings == []


def test_numbers_stay_as_they_are_written() -> None:
    options = {"mine": '{"o": {"n": 1.0, "big": 12345678901234567890}}'}
    encoding = merge({"o": {"a": 1}}, provider_options_json=options)
    text = b'{"o":{"a":1,"n":1.0,"big":12345678901234567890}}'
    assert msgspec.json.encode(encoding.body) == text
