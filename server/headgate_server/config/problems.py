"""What is wrong with a configuration: one `Problem` each, all of them in one `ConfigError`.

Owns how a problem is written. Must not hold, or be given, the value of a secret or of an
environment variable: a problem quotes only what stands in the file.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where a value stands in the configuration: keys and list indices from the top."""

_PLAIN_STEP = re.compile(r"[^\s\"'\[\]\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where.

    ``file`` names the file; or the option or variable that a value came from, without a line.
    """

    file: str
    line: int | None
    column: int | None
    path: str
    message: str

    def __str__(self) -> str:
        """Return the problem as one line: ``file:line:column: path: message``."""
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        # A lone surrogate or a control character from the file must not break the terminal.
        text = text.encode("utf-8", "backslashreplace").decode()
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class ConfigError(Exception):
    """A configuration that cannot be used; holds every problem that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep the problems, in the order of the file."""
        self.problems: tuple[Problem, ...] = tuple(
            sorted(
                problems,
                key=lambda p: (p.line is not None, p.file, p.line or 0, p.column or 0),
            )
        )
        super().__init__("\n".join(map(str, self.problems)))


def path_text(path: Path) -> str:
    """Write a path as people read it: ``models.fast.targets[0].provider``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_STEP.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(shorten(step), ensure_ascii=False)}]"
    return text


def shorten(text: str, limit: int = 60) -> str:
    """Cut a text that is too long to quote."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Return `` did you mean "x"?`` with the nearest known name, or nothing."""
    by_folded = {_fold(name): name for name in known}
    nearest = difflib.get_close_matches(_fold(found), list(by_folded), n=1, cutoff=0.6)
    return f' did you mean "{by_folded[nearest[0]]}"?' if nearest else ""


def _fold(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def listing(names: Sequence[str], limit: int = 30) -> str:
    """Write names for a message; ``none`` when there are none."""
    shown = ", ".join(shorten(name) for name in names[:limit])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > limit else shown or "none"
