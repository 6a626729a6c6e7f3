"""YAML's syntax: composes nodes within a bounded depth, and says syntax errors in plain words.

Must not quote the file: the line with the error may hold a secret.
"""

import re
from typing import Final

import yaml

_PLAIN_WORDS: Final = (
    (r"found character '\\t'", "found a tab; YAML indents with spaces only"),
    (r"found character", "a plain text cannot start with this character; put it in quotes"),
    (
        r"found undefined alias",
        "*name refers to an anchor that is not defined above; quote it if it is not an alias",
    ),
    (r"second occurrence", "this anchor (&name) is defined twice"),
    (
        r"found undefined tag handle|.*\btag\b",
        "tags (!name) are not supported; quote the text if it is not a tag",
    ),
    (r"but found another document", "expected one document; remove the second ---"),
    (r"could not find expected ':'", "expected a colon and a space after the key"),
    (
        r"mapping values are not allowed here",
        "a colon and a space are not expected here; check the indentation, or quote the text",
    ),
    (r"found unexpected end of stream", "the text in quotes that begins here does not end"),
    (
        r"found unknown escape character",
        "unknown escape in a text in double quotes; use single quotes to keep backslashes",
    ),
    (
        r"expected <block end>",
        "this line does not fit; indent it like its neighbours, and quote a text that starts "
        "with a bracket or a quote",
    ),
    (r"expected ',' or '[\]}]'", "expected a comma or the closing bracket"),
    (
        r"sequence entries are not allowed here",
        "a list item (-) is not expected here; put it on its own line, indented",
    ),
    (
        r"expected the node content|did not find expected",
        "expected a value here; quote a text that starts with a colon or another mark",
    ),
    (r"found incompatible YAML document|found duplicate YAML directive", "remove this line"),
    (r"nested too deeply", "lists and mappings are nested too deeply here"),
)
"""The beginnings of PyYAML's messages; their ends may quote the file."""


class Composer(yaml.SafeLoader):
    """PyYAML's loader, used for its nodes only; refuses what would exhaust the stack."""

    def __init__(self, text: str, max_depth: int) -> None:
        """Start at the beginning of the text."""
        super().__init__(text)
        self._depth = 0
        self._max_depth = max_depth

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """Compose one node, unless it is nested too deeply."""
        self._depth += 1
        if self._depth > self._max_depth:
            # Not get_mark(): the scanner is ahead of the composer.
            here = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=here)
        try:
            return super().compose_node(parent, index)  # type: ignore[no-any-return,arg-type,unused-ignore]
        finally:
            self._depth -= 1


def plain_words(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Return the line and column of a syntax error and what to do about it."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        code = ord(error.character) if isinstance(error.character, str) else error.character
        message = f"found the character U+{code:04X}, which YAML does not allow; remove it"
        return before.count("\n") + 1, len(before) - before.rfind("\n"), message
    if not isinstance(error, yaml.MarkedYAMLError):
        return 1, 1, "this is not valid YAML"
    mark = error.problem_mark or error.context_mark
    problem = error.problem or ""
    if "end of stream" in problem and error.context_mark is not None:
        mark = error.context_mark
    message = "this is not valid YAML; check the indentation, colons and quotes around here"
    for pattern, words in _PLAIN_WORDS:
        if re.match(pattern, problem):
            message = words
            break
    if mark is None:
        return 1, 1, message
    return mark.line + 1, mark.column + 1, message + _hint(text, mark.line)


def _hint(text: str, line: int) -> str:
    """Name the two notations of this file that YAML most often stumbles over."""
    lines = text.split("\n")
    written = lines[line] if line < len(lines) else ""
    if re.search(r"""(?<!["'])\$\{""", written):
        return '; inside { } or [ ] a reference needs quotes: "${NAME}"'
    if re.search(r"""(?<!["'])\[[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\]:""", written):
        return '; an IPv6 address needs quotes: "[::1]:8080"'
    return ""
