"""JSON whose unknown members stay as they are."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire import (
    EXTRA_SLOT,
    Extra,
    MalformedJson,
    ShapeDecoder,
    extra_slot,
    json_text,
    merge_objects,
    raw_array,
    raw_object,
    raw_text,
)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0
    extra: Extra = extra_slot()


class Square(msgspec.Struct, tag="square", tag_field="type", forbid_unknown_fields=True):
    side: int = 0
    extra: Extra = extra_slot()


class Circle(msgspec.Struct, tag="circle", tag_field="type", forbid_unknown_fields=True):
    radius: int = 0
    inner: Inner | None = None
    extra: Extra = extra_slot()


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    inner: Inner | None = None
    items: list[Inner] | None = None
    shapes: list[Square | Circle] | None = None
    either: str | list[Square | Circle] | None = None
    anything: msgspec.Raw = msgspec.Raw()
    extra: Extra = extra_slot()


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None


OUTER = ShapeDecoder(Outer)
ODD = '{"z":1,"a":[12345678901234567890123,1.50,-0.0,1E+2],"u":"\\u00e9é\\ud83d\\ude00", "n":null }'


def unknown(value: Outer | Inner | Square | Circle | None) -> str | None:
    assert value is not None
    return json_text(value.extra)


def test_nothing_unknown() -> None:
    found = OUTER.decode(b' {"name":"n","inner":{"a":1},"items":[{"a":2}],"either":"x"} ')
    assert found == Outer("n", Inner(1), [Inner(2)], None, "x")


def test_unknown_members_at_every_level_are_kept_verbatim() -> None:
    text = (
        f'{{"x":{ODD},"name":"n","inner":{{"y":{ODD},"a":1}},"items":[{{}},{{"i":{ODD}}}],'
        f'"shapes":[{{"type":"circle","radius":2,"c":{ODD},"inner":{{"d":{ODD}}}}},'
        f'{{"side":3,"type":"square"}}],"either":[{{"type":"square","s":{ODD}}}],"w":{ODD}}}'
    )
    found = OUTER.decode(text.encode())
    assert found.name == "n"
    assert unknown(found) == f'{{"x":{ODD},"w":{ODD}}}'
    assert unknown(found.inner) == f'{{"y":{ODD}}}'
    assert found.inner is not None
    assert found.inner.a == 1
    assert found.items is not None
    assert [unknown(item) for item in found.items] == [None, f'{{"i":{ODD}}}']
    circle, square = found.shapes or ()
    assert isinstance(circle, Circle)
    assert (unknown(circle), circle.radius) == (f'{{"c":{ODD}}}', 2)
    assert unknown(circle.inner) == f'{{"d":{ODD}}}'
    assert unknown(square) is None
    assert isinstance(found.either, list)
    assert unknown(found.either[0]) == f'{{"s":{ODD}}}'


def test_known_members_are_kept_verbatim_beside_unknown_ones() -> None:
    found = OUTER.decode(f'{{"anything":{ODD},"x":1}}'.encode())
    assert bytes(found.anything).decode() == ODD


def test_duplicates_the_last_one_counts() -> None:
    found = OUTER.decode(b'{"x":1,"name":"a","x":2,"name":"b","inner":{"a":1},"inner":{"b":2}}')
    assert (found.name, unknown(found), unknown(found.inner)) == ("b", '{"x":2}', '{"b":2}')


def test_escaped_names_are_the_same_names() -> None:
    found = OUTER.decode(b'{"\\u006eame":"n","\\u0078":1}')
    assert (found.name, unknown(found)) == ("n", '{"x":1}')


@pytest.mark.parametrize("sent", ["\x7f", "extra", EXTRA_SLOT[:-1], ""])
def test_no_member_name_is_reserved(sent: str) -> None:
    text = json.dumps({sent: {"name": "smuggled"}, "name": "n"})
    for more in (text, text[:-1] + ',"other":1}'):
        found = OUTER.decode(more.encode())
        assert found.name == "n"
        assert json.loads(unknown(found) or "")[sent] == {"name": "smuggled"}


def test_nobody_can_know_the_slots_name() -> None:
    code = "from headgate.wire import EXTRA_SLOT; print(repr(EXTRA_SLOT))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert repr(EXTRA_SLOT).encode() != other.strip()
    assert len(EXTRA_SLOT) >= 16


@pytest.mark.parametrize(
    ("text", "path", "said", "is_json"),
    [
        (b"", "", "truncated", False),
        (b"{", "", "truncated", False),
        (b"nope", "", "invalid", False),
        (b'{"name":"a"} x', "", "trailing", False),
        (b'{"name":1}', "name", "expected `str`", True),
        (b'{"name":1,"x":1}', "name", "expected `str`", True),
        (b'{"inner":{"a":"x"},"x":1}', "inner.a", "expected `int`", True),
        (b'{"items":[{},{"a":"x"}]}', "items[1].a", "expected `int`", True),
        (b'{"items":[{"y":1},{"a":"x"}]}', "items[1].a", "expected `int`", True),
        (b'{"shapes":[{"type":"x","q":1}]}', "shapes[0].type", "invalid value", True),
        (b'{"shapes":[{"type":1,"q":1}],"x":1}', "shapes[0].type", "expected `str`", True),
        (b'{"shapes":[{"q":1}],"x":1}', "shapes[0]", "missing required field `type`", True),
        (b"[1]", "", "expected `object`", True),
        (b'{"name":"\xff"}', "", "utf-8", False),
        (b'{"x":1,"\xff":1}', "", "utf-8", False),
        (b'{"name":"\\ud800 and more"}', "", "surrogate", False),
        (b'{"inner":{"a":NaN}}', "", "invalid", False),
    ],
)
def test_malformed(text: bytes, path: str, said: str, is_json: bool) -> None:
    with pytest.raises(MalformedJson) as caught:
        OUTER.decode(text)
    assert said in str(caught.value).lower()
    assert (caught.value.path, caught.value.is_json) == (path, is_json)


def test_an_unknown_member_where_none_is_allowed() -> None:
    decoder = ShapeDecoder(Closed)
    with pytest.raises(MalformedJson, match="unknown field `x`"):
        decoder.decode(b'{"x":1}')
    assert unknown(decoder.decode(b'{"inner":{"x":1}}').inner) == '{"x":1}'


@pytest.mark.parametrize("opened", [b"[", b'{"x":', b'{"items":[{"x":'])
@pytest.mark.parametrize("start", [b"", b'{"x":', b'{"anything":', b'{"name":"n","x":1,"y":'])
def test_depth_bombs(start: bytes, opened: bytes) -> None:
    with pytest.raises(MalformedJson):
        OUTER.decode(start + opened * 200_000)
    with pytest.raises(MalformedJson):
        raw_object(start + opened * 200_000)


def test_bytes_that_are_not_utf8_are_found_when_they_become_text() -> None:
    found = OUTER.decode(b'{"anything":"\xff","x":"\xff"}')
    with pytest.raises(MalformedJson, match="UTF-8"):
        raw_text(found.anything)
    with pytest.raises(MalformedJson, match="UTF-8"):
        json_text(found.extra)


def test_raw_text() -> None:
    assert raw_text(msgspec.Raw()) is None
    assert raw_text(msgspec.Raw(b"null")) is None
    assert raw_text(msgspec.Raw(b"[1]")) == "[1]"


def test_json_text_of_nothing() -> None:
    assert json_text(None) is None
    assert json_text({}) is None


@pytest.mark.parametrize(
    ("base", "more", "merged"),
    [
        (None, None, None),
        ('{"a":1}', None, '{"a":1}'),
        (None, '{"a":1}', '{"a":1}'),
        ("", '{"a":1}', '{"a":1}'),
        ("{}", "{}", "{}"),
        ('{"a":1,"b":2}', '{"b":[3],"c":4.0}', '{"a":1,"b":[3],"c":4.0}'),
        ('{"a":[1]}', '{"a":[2]}', '{"a":[2]}'),
    ],
)
def test_merge_objects(base: str | None, more: str | None, merged: str | None) -> None:
    assert merge_objects(base, more) == merged


@pytest.mark.parametrize("text", ["", "[1]", "1", "{", "\ud800", '{"a":\ud800}'])
def test_not_an_object(text: str) -> None:
    with pytest.raises(MalformedJson):
        raw_object(text)


@pytest.mark.parametrize("text", ["", "{}", "1", "[", "[\ud800]"])
def test_not_an_array(text: str) -> None:
    with pytest.raises(MalformedJson):
        raw_array(text)


NAMES = st.sampled_from(
    ["name", "inner", "items", "shapes", "either", "a", "type", "x", EXTRA_SLOT]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["square", "circle"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(JSON, st.booleans())
def test_any_json_decodes_or_is_malformed(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    try:
        json_text(OUTER.decode(text.encode("utf-8", "surrogatepass")).extra)
    except MalformedJson:
        pass


@given(st.binary())
def test_any_bytes_decode_or_are_malformed(text: bytes) -> None:
    for decode in (OUTER.decode, raw_object, raw_array):
        try:
            decode(text)
        except MalformedJson:
            pass


@given(st.dictionaries(st.text().filter(lambda n: n not in Outer.__struct_encode_fields__), JSON))
def test_unknown_members_come_back(members: dict[str, object]) -> None:
    text = json.dumps(members)
    try:
        found = OUTER.decode(text.encode())
    except MalformedJson:
        return  # NaN, half surrogate pairs
    assert json.loads(json_text(found.extra) or "{}") == members
