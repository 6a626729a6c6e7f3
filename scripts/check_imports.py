"""Fails if an import goes against the direction of the house (ARCHITECTURE.md)."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAY_NOT_IMPORT = {
    "clients/python/headgate": {"headgate_server", "headgate_facade"},
    "server/headgate_server": {"headgate_facade"},
    "facade/headgate_facade": {"headgate_server"},
}
COMPOSITION_ROOTS = ROOT / "clients/python/headgate/cli"


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the dotted name of each import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


def main() -> int:
    """Prints every wrong import; returns how many there are."""
    wrong = looked_at = 0
    for folder, forbidden in MAY_NOT_IMPORT.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            looked_at += 1
            for line, name in imported(path):
                if COMPOSITION_ROOTS in path.parents:
                    continue
                # Nor may anything else use a composition root.
                if name.partition(".")[0] in forbidden or f"{name}.".startswith("headgate.cli."):
                    wrong += 1
                    print(f"{path.relative_to(ROOT)}:{line}: must not import {name}")
    print(f"imports: {looked_at} files, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
