"""JSON with one thing wrong: every place in a value, and what may stand there instead.

One change at a time and no randomness, so a failing variant is as small as it can be and always the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

# Becomes bytes that are no UTF-8, in `dumped`.
BROKEN = "@@broken@@"
JUNK: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 2**64, 10**30, 1.5, 1e308, float("inf"), "", "x", "\x00",
    "\ud800", "\u2028\r\n", [], [None], [[]], [1], ["a"], [{}], {}, {"a": None}, {"type": "text"},
    {"type": 1}, BROKEN, [BROKEN], {BROKEN: 1}, {"a": {"b": [BROKEN]}},
]  # fmt: skip


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Every place in a JSON value, itself included."""
    yield here
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*here, index))


def holder_of(value: Any, path: Path) -> Any:
    """What holds the last step of a path."""
    for step in path[:-1]:
        value = value[step]
    return value


def dumped(value: Any) -> bytes:
    """As JSON, in one line."""
    return json.dumps(value).encode().replace(BROKEN.encode(), b"\xff\xfe")


def count_of(value: Any, junk: list[Any] = JUNK) -> int:
    """How many variants there are."""
    return len(list(paths(value))) * (len(junk) + 1) - 1


def variant(value: Any, number: int, junk: list[Any] = JUNK) -> tuple[str, Any]:
    """One of the variants, without making the others."""
    place, what = divmod(number, len(junk) + 1)
    path = list(paths(value))[place]
    if what == len(junk):
        if not path:
            return "all is missing", None
        changed = copy.deepcopy(value)
        del holder_of(changed, path)[path[-1]]
        return f"{path} is missing", changed
    if not path:
        return f"all is {junk[what]!r}", junk[what]
    changed = copy.deepcopy(value)
    holder_of(changed, path)[path[-1]] = junk[what]
    return f"{path} is {junk[what]!r}", changed
