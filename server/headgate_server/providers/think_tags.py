"""Thinking that a model wrote into its text, between tags of its own: told apart from the text.

Owns when tags are looked for, and a splitter that gives the same for every cut of the text. Sans-I/O.
Which models write which tags is data in families.toml, which servers pass them on in vendors.toml.

Tags count only at the very beginning of an answer: further in, they are what the text is about. The line
ends around them are theirs and dropped; everything else stays as it is. Thinking without an end was cut
short, and is all thinking.

Where the prompt has the opening tag, only the closing one tells thinking from an answer without any.
Until it comes, the text is held back: an answer shown as thinking would be lost to its reader, thinking
that comes late is not.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from headgate.v1 import chat_pb2
from headgate_server.providers.base import Target

Pieces = list[tuple[Literal["reasoning", "text"], str]]

_LINE_ENDS = "\r\n"
_MOST_HELD = 64 * 1024  # characters
_JSON_FORMS = ("json_object", "json_schema")


class ThinkTags(NamedTuple):
    """What to look for.

    Attributes:
        opening, closing: the tags.
        prefilled: whether the prompt ends with the opening tag, so that the answer begins inside.
    """

    opening: str
    closing: str
    prefilled: bool = False


def tags_of(request: chat_pb2.ChatRequest, target: Target) -> ThinkTags | None:
    """The tags that an answer may begin with; None if there are none to look for."""
    family = target.family
    if family.think_tags is None:
        return None
    prefilled = False
    if family.think_prefilled != "never" and target.vendor.raw_output:
        asked = family.think_prefilled == "always" or request.reasoning.enabled
        # An enforced grammar leaves no room for thinking; thinking that was to stay hidden is gone.
        enforced = request.response_format.WhichOneof("kind") in _JSON_FORMS
        prefilled = asked and not enforced and request.reasoning.summary != "none"
    return ThinkTags(*family.think_tags, prefilled)


def split(text: str, tags: ThinkTags) -> tuple[str, str]:
    """(thinking, text) of a whole answer."""
    splitter = ThinkSplitter(tags)
    pieces = splitter.feed(text) + splitter.finish()
    thinking = "".join(piece for kind, piece in pieces if kind == "reasoning")
    return thinking, "".join(piece for kind, piece in pieces if kind == "text")


class ThinkSplitter:
    """Splits one answer as it comes. Feed it text, take pieces."""

    __slots__ = ("_fresh", "_held", "_place", "_tags")

    def __init__(self, tags: ThinkTags) -> None:
        self._tags = tags
        self._place: Literal["start", "thinking", "text"] = "start"
        self._held = ""  # what may yet turn out to be part of a tag
        self._fresh = False  # right behind a tag, where line ends are dropped

    @property
    def undecided(self) -> bool:
        """Whether it is not known yet what the text so far is."""
        return self._place == "start"

    def feed(self, text: str) -> Pieces:
        """Takes the next text."""
        if self._place == "text" and not self._fresh:
            return [("text", text)] if text else []
        self._held += text
        return self._run(ended=False)

    def finish(self) -> Pieces:
        """The end of the answer."""
        return self._run(ended=True)

    def _run(self, *, ended: bool) -> Pieces:
        pieces: Pieces = []
        if self._place == "start":
            self._begin(ended)
        self._drop_line_ends()
        if self._place == "thinking" and self._held:
            thinking, closing, rest = self._held.partition(self._tags.closing)
            if closing:
                thinking = thinking.rstrip(_LINE_ENDS)
                self._place, self._fresh, self._held = "text", True, rest
            elif not ended:
                thinking = thinking[: _before_tag(thinking, self._tags.closing)]
                self._held = self._held[len(thinking) :]
            else:
                self._held = ""
            if thinking:
                pieces.append(("reasoning", thinking))
            self._drop_line_ends()
        if self._place == "text" and self._held:
            pieces.append(("text", self._held))
            self._held = ""
        return pieces

    def _begin(self, ended: bool) -> None:
        """Decides what the beginning is, if enough of it has come."""
        opening = self._tags.opening
        begun = self._held.lstrip()
        if begun.startswith(opening):
            self._place, self._fresh = "thinking", True
            self._held = begun.removeprefix(opening)
        elif not ended and opening.startswith(begun):
            return
        elif not self._tags.prefilled or (ended and self._tags.closing not in self._held):
            self._place = "text"
        elif self._tags.closing in self._held or len(self._held) > _MOST_HELD:
            self._place, self._fresh = "thinking", True

    def _drop_line_ends(self) -> None:
        if self._fresh:
            self._held = self._held.lstrip(_LINE_ENDS)
            self._fresh = not self._held


def _before_tag(text: str, tag: str) -> int:
    """How much of the text is surely neither the tag's beginning nor a line end in front of it."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            text = text[:-size]
            break
    return len(text.rstrip(_LINE_ENDS))
