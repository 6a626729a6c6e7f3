"""Members of a Gemini body that are read by hand: raw JSON, base64, lists of one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.wire import Extra, raw_text
from headgate_facade.gemini.wire import ABSENT

_TO_STANDARD_BASE64 = str.maketrans("-_", "+/")


def standard_base64(text: str) -> str:
    """Base64 in its standard alphabet, padded. Google's SDKs write both alphabets."""
    if "-" in text or "_" in text:
        text = text.translate(_TO_STANDARD_BASE64)
    missing = -len(text) % 4
    return text + "=" * missing if missing else text


def as_list(value: Any) -> Sequence[Any]:
    """The items of a repeated member, of which a single one may stand alone."""
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def compact_object(value: msgspec.Raw, path: str) -> str | None:
    """A JSON object without white space, its members and numbers as they were; None if absent.

    Raises:
        InvalidRequest: it is something else.
    """
    text = raw_text(value)
    if text is None:
        return None
    if not text.startswith("{"):
        raise InvalidRequest.of(path, "must be an object")
    return msgspec.json.format(text, indent=-1)


def present(value: msgspec.Raw) -> bool:
    """Whether a raw member is there, and not null, which means the same."""
    return value is not ABSENT and bytes(value) != b"null"


def take(source: msgspec.Struct, names: Iterable[str], extra: Extra, into: dict[str, Any]) -> None:
    """Puts raw members that are there, and those that no field names, into an object."""
    for name in names:
        value = getattr(source, name)
        if present(value):
            into[camel(name)] = value
    if extra:
        into |= extra


@cache
def camel(name: str) -> str:
    """A field's name as it is spelled in JSON."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
