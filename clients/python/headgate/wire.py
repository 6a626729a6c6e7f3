"""JSON into typed structs without losing the members that the structs do not name.

Used on both sides of the gateway: by front doors for request bodies, by provider dialects for
answers. Structs are strict (``forbid_unknown_fields=True``), so the common case is one pass of msgspec.
Only when that pass meets an unknown member is the text rewritten: at each object whose struct has an
`Extra` slot the unknown members move into the slot, verbatim, and the text is decoded again.

Needs msgspec, which the base install does not bring; the server and the facade do. No I/O.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

Extra = dict[str, msgspec.Raw] | None

# A member name that nobody can send, because each process makes up its own.
EXTRA_SLOT = f"\x7f{secrets.token_hex(8)}"

T = TypeVar("T")
_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_TAG = msgspec.json.Decoder(str)


class MalformedJson(ValueError):
    """The text is not JSON of the expected shape.

    Attributes:
        path: where, as ``messages[0].content``; empty for the whole text.
        problem: what was found and what was expected.
        is_json: whether the text is JSON at all, only of another shape.
    """

    def __init__(self, problem: str, path: str = "", *, is_json: bool = False) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem
        self.is_json = is_json


def extra_slot() -> Any:
    """The default of a struct's `Extra` field, under its reserved name."""
    return msgspec.field(default=None, name=EXTRA_SLOT)


class ShapeDecoder(Generic[T]):
    """Decodes one type. Make it once, at import: building a decoder is slow, using it is not."""

    def __init__(self, shape: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(shape)
        self._shape: Any = shape
        self._unknown_aware: _Plan | None = None

    def decode(self, text: bytes) -> T:
        """The value. Raises `MalformedJson`."""
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            if "unknown field" not in str(error):
                raise _malformed(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(error) from error
        return self._decode_with_extras(text)

    def _plan(self) -> _Plan:
        if self._unknown_aware is None:
            self._unknown_aware = _plan_of(inspect.type_info(self._shape))
        return self._unknown_aware

    def _decode_with_extras(self, text: bytes) -> T:
        try:
            return self._decoder.decode(_rewrite(text, self._plan()))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(error) from error


def json_text(value: Mapping[str, msgspec.Raw | list[msgspec.Raw]] | None) -> str | None:
    """The members of a slot as JSON text, None if there are none.

    Raises:
        MalformedJson: the text holds bytes that are not UTF-8.
    """
    if not value:
        return None
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeDecodeError as error:
        raise _malformed(error) from error


def raw_text(value: msgspec.Raw) -> str | None:
    """A raw member as JSON text, None if it is absent or null."""
    text = bytes(value)
    if not text or text == b"null":
        return None
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise _malformed(error) from error


def raw_object(text: str | bytes) -> dict[str, msgspec.Raw]:
    """A JSON object, its values verbatim. Raises `MalformedJson`."""
    try:
        return _RAW_OBJECT.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed(error) from error


def raw_array(text: str | bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The items of a JSON array, verbatim. Raises `MalformedJson`."""
    try:
        return _RAW_ARRAY.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed(error) from error


def merge_into(body: dict[str, Any], extra_json: str) -> None:
    """Adds members that a schema does not name; where both have an object, member by member."""
    for key, value in _RAW_OBJECT.decode(extra_json).items():
        present = body.get(key)
        if isinstance(present, dict) and bytes(value)[:1] == b"{":
            for inner, raw in _RAW_OBJECT.decode(value).items():
                present.setdefault(inner, raw)
        else:
            body.setdefault(key, value)


def merge_objects(base: str | None, more: str | None) -> str | None:
    """Two JSON objects in one; members of `more` win."""
    if not base or not more:
        return base or more
    return json_text({**raw_object(base), **raw_object(more)}) or "{}"


def _malformed(error: Exception) -> MalformedJson:
    if isinstance(error, RecursionError):
        return MalformedJson("the JSON is nested too deeply")
    if isinstance(error, UnicodeError):
        return MalformedJson("the JSON is not valid UTF-8")
    problem, _, path = str(error).removeprefix("JSON is malformed: ").partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    is_json = isinstance(error, msgspec.ValidationError)
    return MalformedJson(problem[:1].lower() + problem[1:], path, is_json=is_json)


@dataclass(slots=True)
class _Plan:
    """Which members of a JSON value are known, level by level."""

    names: set[str] = field(default_factory=set)
    nested: dict[str, _Plan] = field(default_factory=dict)  # members with something inside
    has_slot: bool = False
    items: _Plan | None = None
    tag_field: str | None = None
    tagged: dict[str, _Plan] = field(default_factory=dict)

    def is_empty(self) -> bool:
        return not (self.names or self.has_slot or self.items or self.tagged)


def _plan_of(info: inspect.Type) -> _Plan:
    plan = _Plan()
    options = info.types if isinstance(info, inspect.UnionType) else (info,)
    for option in options:
        if isinstance(option, inspect.Metadata):
            option = option.type
        if isinstance(option, inspect.ListType):
            items = _plan_of(option.item_type)
            plan.items = None if items.is_empty() else items
        elif isinstance(option, inspect.StructType):
            own = _plan_of_struct(option)
            if option.tag_field is not None:
                own.names.add(option.tag_field)
                plan.tag_field = option.tag_field
                plan.tagged[str(option.tag)] = own
            else:
                plan.names, plan.nested, plan.has_slot = own.names, own.nested, own.has_slot
    return plan


def _plan_of_struct(info: inspect.StructType) -> _Plan:
    plan = _Plan()
    for member in info.fields:
        if member.encode_name == EXTRA_SLOT:
            plan.has_slot = True
            continue
        plan.names.add(member.encode_name)
        inner = _plan_of(member.type)
        if not inner.is_empty():
            plan.nested[member.encode_name] = inner
    return plan


def _rewrite(text: bytes | msgspec.Raw, plan: _Plan) -> bytes | msgspec.Raw:
    """The text with unknown members in their slots; the same object if there are none."""
    first = bytes(text).lstrip()[:1]
    if first == b"[" and plan.items is not None:
        old = _RAW_ARRAY.decode(text)
        new = [_as_raw(_rewrite(item, plan.items)) for item in old]
        changed = any(after is not before for after, before in zip(new, old, strict=True))
        return msgspec.json.encode(new) if changed else text
    if first != b"{" or plan.is_empty():
        return text
    members = _RAW_OBJECT.decode(text)
    if plan.tag_field is not None:
        plan = plan.tagged.get(_tag_text(members.get(plan.tag_field)), plan)
    changed = False
    for key, inner in plan.nested.items():
        value = members.get(key)
        if value is not None:
            rewritten = _rewrite(value, inner)
            if rewritten is not value:
                members[key], changed = _as_raw(rewritten), True
    if plan.has_slot and not members.keys() <= plan.names:
        extra = {key: value for key, value in members.items() if key not in plan.names}
        for key in extra:
            del members[key]
        members[EXTRA_SLOT], changed = msgspec.Raw(msgspec.json.encode(extra)), True
    return msgspec.json.encode(members) if changed else text


def _tag_text(tag: msgspec.Raw | None) -> str:
    if tag is None or bytes(tag)[:1] != b'"':
        return ""
    return _TAG.decode(tag)


def _as_raw(text: bytes | msgspec.Raw) -> msgspec.Raw:
    return text if isinstance(text, msgspec.Raw) else msgspec.Raw(text)
