"""Pydantic's findings in plain words: what was expected, what was found, what to do.

Must not quote a value: only what stands in the file, and nothing that may be a secret.
"""

import re
import types
from collections.abc import Mapping
from typing import Annotated, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from headgate_server.config.model import Config
from headgate_server.config.problems import Path, Problem, did_you_mean, listing, shorten
from headgate_server.config.source import Source

_HIDDEN_KEYS = frozenset({"api_key", "key", "base_url"})
_SHOWABLE_KEY = re.compile(r"[A-Za-z_.-]{1,40}")


def explain(error: ErrorDetails, source: Source) -> Problem | None:
    """Return what a person should read; None if the error only repeats another one."""
    path: Path = error["loc"]
    if path and path[-1] == "[key]":
        return source.problem(path[:-1], _own_message(error), key=path[:-1])
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, source)
    if path in source.unreadable:
        return None
    message = _message(error, path, source)
    return source.problem(path, message) if message else None


def _message(error: ErrorDetails, path: Path, source: Source) -> str:
    match error["type"]:
        case "missing":
            return _missing(path, source)
        case "value_error":
            return _own_message(error) + _found(path, source)
        case "literal_error":
            expected = [str(choice) for choice in get_args(_type_at(path))]
            hint = did_you_mean(source.written.get(path, ""), expected)
            message = f"expected one of {listing(expected)}{_found(path, source)}"
            return f"{message};{hint}" if hint else message
        case "too_short":  # also reported when every entry is wrong in itself
            return "" if error["input"] else "expected at least one entry; found an empty list"
        case "greater_than_equal":
            return f"expected a number of at least 0{_found(path, source)}"
        case kind:
            shown = _found(path, source) or f"; found {_name_of(error['input'])}"
            return f"expected {_expected(kind, path)}{shown}"


def quoted(path: Path, source: Source) -> str:
    """Return what the file says at a path, in quotes; nothing if it may be a secret."""
    hidden = "headers" in path or (bool(path) and path[-1] in _HIDDEN_KEYS)
    written = source.written.get(path)
    if hidden or written is None or _expects_a_collection(path):
        return ""
    return f'"{shorten(written)}"'


def _found(path: Path, source: Source) -> str:
    shown = quoted(path, source)
    return f"; found {shown}" if shown else ""


def _own_message(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("error", "expected something else"))


def _missing(path: Path, source: Source) -> str:
    description = _description(path)
    if path in source.emptied:
        return (
            f"comes out empty, because {source.emptied[path]} is empty or not set ({description})"
        )
    return f"this key is required ({description})"


def _unknown_key(path: Path, source: Source) -> Problem:
    parent, key = path[:-1], str(path[-1])
    section = _type_at(parent)
    allowed = list(section.model_fields) if _is_section(section) else []
    if not _SHOWABLE_KEY.fullmatch(key):
        # A mangled line can make a key of a secret: `{name: ci, sk-12345}`.
        message = f"unknown key (not shown: it may be a secret); allowed: {listing(allowed)}"
        return source.problem(parent, message, key=path)
    message = f"unknown key;{did_you_mean(key, allowed)} allowed: {listing(allowed)}"
    return source.problem(path, message, key=path)


def _expected(kind: str, path: Path) -> str:
    section = _type_at(path)
    if _is_section(section):
        return f"a mapping with the keys {listing(list(section.model_fields))}"
    if kind in {"mapping_type", "dict_type"}:
        return "a mapping of names"
    if kind in {"tuple_type", "list_type"}:
        return "a list"
    if kind.startswith("bool"):
        return "true or false"
    if kind.startswith("int"):
        return "a whole number"
    if kind.startswith(("float", "finite")):
        return "a number"
    return "text of valid characters" if kind == "string_unicode" else "text"


def _name_of(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool() | int() | float():
            return "a number" if not isinstance(value, bool) else "true or false"
        case str():
            return "text"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return "something else"


def _is_section(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _expects_a_collection(path: Path) -> bool:
    kind = _type_at(path)
    return _is_section(kind) or get_origin(kind) in {Mapping, tuple, types.NoneType}


def _description(path: Path) -> str:
    section = _type_at(path[:-1])
    field = section.model_fields.get(str(path[-1])) if _is_section(section) else None
    if field is not None and field.description:
        return field.description.rstrip(".")
    return "see the documentation"


def _type_at(path: Path) -> object:
    """Return the declared type at a path, without its None; None where nothing is declared."""
    kind: object = Config
    for step in path:
        if _is_section(kind):
            field = kind.model_fields.get(str(step))
            kind = _bare(field.annotation) if field is not None else None
        elif get_origin(kind) is tuple and isinstance(step, int):
            kind = _bare(get_args(kind)[0])
        elif get_args(kind) and get_origin(kind) is not Literal:
            kind = _bare(get_args(kind)[-1])
        else:
            return None
    return kind


def _bare(kind: object) -> object:
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in {Union, types.UnionType}:
            kind = next(arg for arg in get_args(kind) if arg is not types.NoneType)
        else:
            return kind
