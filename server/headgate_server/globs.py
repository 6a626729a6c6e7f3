"""Globs, as everywhere in the configuration: ``*``, ``?`` and ``[...]``, case-sensitive, of a whole text.

Owns how they are matched. Patterns are the operator's, texts the callers': no text takes longer than in
proportion to its length times the number of stars.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Sequence

_WILDCARDS = re.compile(r"\[!?\]?[^]]*\]|[*?]")


def is_glob(text: str) -> bool:
    """Whether a text stands for other texts, too."""
    return _WILDCARDS.search(text) is not None


def literal_length(glob: str) -> int:
    """How much a glob says: its characters that stand for themselves.

    ``o3-pro*`` says more than ``o3*``.
    """
    return len(_WILDCARDS.sub("", glob))


def any_of(globs: Collection[str]) -> Callable[[str], object]:
    """A test that is true for texts which match one of the globs at least."""
    if "*" in globs:
        return lambda _: True
    if not any(map(is_glob, globs)):
        return frozenset(globs).__contains__
    return re.compile("|".join(map(fnmatch.translate, globs))).match


class Glob:
    """One glob, which tells what its stars stand for.

    Attributes:
        text: as it was written.
        stars: how many there are.
    """

    __slots__ = ("_match", "stars", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        chunks = _at_stars(text)
        self.stars = len(chunks) - 1
        if self.stars:
            first, *between, last = chunks
            # Atomic groups: what a star took is not given back, so that nothing is tried twice. A star
            # takes as little as it can, the last one what is left.
            held = "".join(f"(?>(.*?){chunk})" for chunk in between)
            pattern = f"{first}{held}(.*){last}"
        else:
            pattern = chunks[0]
        self._match = re.compile(rf"(?s:{pattern})\Z").match

    def match(self, text: str) -> tuple[str, ...] | None:
        """What each star stands for; None if the text does not match."""
        found = self._match(text)
        return found.groups() if found is not None else None


def fill(text: str, stars: Sequence[str]) -> str:
    """A text with its stars replaced by what those of a glob stand for, one after the other."""
    first, *rest = text.split("*")
    return first + "".join(
        (stars[place] if place < len(stars) else "*") + piece for place, piece in enumerate(rest)
    )


def _at_stars(glob: str) -> list[str]:
    """The regular expressions between the stars of a glob."""
    chunks, place = [""], 0
    for found in _WILDCARDS.finditer(glob):
        chunks[-1] += re.escape(glob[place : found.start()])
        place = found.end()
        if found[0] == "*":
            chunks.append("")
        else:
            # `(?s:X)\Z` around one character's pattern.
            chunks[-1] += fnmatch.translate(found[0])[4:-3]
    chunks[-1] += re.escape(glob[place:])
    return chunks
