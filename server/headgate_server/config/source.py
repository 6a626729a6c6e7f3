"""YAML text to plain data that remembers where everything stood.

Every scalar stays the text that was written (null aside): its type is decided by the field that
takes it. So `on`, `2024-02-01`, `1_000` and `4.10` mean what they look like, as a name or as a
value, and a number may come from the environment. Owns YAML and ``${ENV}``; must not know any key
of the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from headgate_server.config.interpolate import interpolate
from headgate_server.config.problems import ConfigError, Path, Problem, path_text
from headgate_server.config.syntax import Composer, plain_words

MAX_FILE_BYTES: Final = 4 * 2**20
MAX_DEPTH: Final = 64
MAX_NODES: Final = 50_000
"""Aliases are expanded; this bounds what a small file can grow into."""

_TAG: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset(
    _TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")
)
_NO_TAGS: Final = "tags (!name) are not supported; remove it"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, counted from 1; or an option or variable, which has no lines."""

    file: str
    line: int | None = None
    column: int | None = None


@dataclass(slots=True)
class Source:
    """Plain data, where each part of it stood, and what was wrong with it as YAML."""

    name: str
    data: dict[str, object] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)
    """The scalars as they stand in the file, before ``${ENV}``."""
    emptied: dict[Path, str] = field(default_factory=dict)
    """The scalars that came out empty, with the variable that made them so."""
    problems: list[tuple[Path, Problem]] = field(default_factory=list)
    unreadable: set[Path] = field(default_factory=set)
    """Where there is no value because of a problem: what a validator says there is an echo."""

    def mark(self, path: Path) -> Mark:
        """Return the place to point at for a problem with the value at a path."""
        first, second = (
            (self.values, self.keys) if path in self.written else (self.keys, self.values)
        )
        found = first.get(path) or second.get(path)
        if found is not None:
            return found
        return self.mark(path[:-1]) if path else Mark(self.name)

    def problem(self, path: Path, message: str, *, key: Path | None = None) -> Problem:
        """Write a problem with what stands at a path, or with the key ``key``."""
        mark = (self.keys.get(key) if key else None) or self.mark(path)
        return Problem(mark.file, mark.line, mark.column, path_text(path), message)

    def override(self, path: Path, value: object, origin: str) -> None:
        """Put a value from an option or a variable in the place of the file's."""
        parent: dict[str, object] = self.data
        for step in path[:-1]:
            below = parent.get(str(step))
            if below is None:
                below = parent[str(step)] = {}
            if not isinstance(below, dict):
                return  # refused anyway, as something other than a mapping
            parent = below
        parent[str(path[-1])] = value
        self.problems = [known for known in self.problems if known[0] != path]
        self.unreadable.discard(path)
        self.emptied.pop(path, None)
        self.written.pop(path, None)
        self.keys[path] = self.values[path] = Mark(origin)


def read_source(text: str | bytes, name: str, env: Mapping[str, str]) -> Source:
    """Read YAML text. Raises `ConfigError` if there is nothing to go on with.

    What can be gone on with (an unset variable, a key written twice) is left in ``problems``.
    """
    root = _compose(_decode(text, name), name)
    reader = _Reader(name, env)
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise ConfigError(
            [
                Problem(
                    name,
                    root.start_mark.line + 1,
                    root.start_mark.column + 1,
                    "",
                    f"expected a mapping with sections such as listen, providers and models at the "
                    f"top of the file; found {kind}",
                )
            ]
        )
    data = reader.read(root, (), 0)
    if isinstance(data, dict):
        reader.source.data = data
    return reader.source


def _decode(text: str | bytes, name: str) -> str:
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError([Problem(name, 1, 1, "", "the file is larger than 4 MiB")])
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - before.rfind(b"\n")
        raise ConfigError(
            [
                Problem(
                    name,
                    line,
                    column,
                    "",
                    f"the file is not UTF-8: found the byte 0x{text[error.start]:02x}; "
                    "save it with the encoding UTF-8",
                )
            ]
        ) from None


def _compose(text: str, name: str) -> yaml.Node:
    line, column = 1, 1
    try:
        composer = Composer(text, MAX_DEPTH)
        try:
            root = composer.get_single_node()
        except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF"
            line, column = composer.line + 1, composer.column + 1
            message = "an escape in this text names a character that does not exist"
        else:
            if root is not None and root.tag != f"{_TAG}null":
                return root
            message = (
                "the file is empty; expected sections such as listen, providers and models "
                "(without --config the gateway needs no file)"
            )
    except yaml.YAMLError as error:
        line, column, message = plain_words(error, text)
    raise ConfigError([Problem(name, line, column, "", message)])


class _Reader:
    """Turns nodes into plain data and notes where they stood."""

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        self.source = Source(name)
        self._env = env
        self._nodes = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, path: Path, depth: int) -> object:
        self._nodes += 1
        if path not in self.source.values:
            self.source.values[path] = self._place(node)
        if self._nodes > MAX_NODES:
            raise ConfigError(
                [
                    self._at(
                        node,
                        path,
                        f"the file grows to more than {MAX_NODES} values; use fewer aliases",
                    )
                ]
            )
        if id(node) in self._open or depth > MAX_DEPTH:
            self._unreadable(node, path, "this alias (*name) contains itself or nests too deeply")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in {f"{_TAG}map", f"{_TAG}seq"}:
            self._unreadable(node, path, _NO_TAGS)
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path, depth)
            return [
                self.read(item, (*path, index), depth + 1) for index, item in enumerate(node.value)
            ]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        merged: list[yaml.Node] = []
        own: dict[str, Mark] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                many = isinstance(value_node, yaml.SequenceNode)
                merged.extend(value_node.value if many else [value_node])
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            if key in own:
                again = f"this key is written twice (first on line {own[key].line}); remove one"
                self._refuse(key_node, here, again)
                continue
            own[key] = self.source.keys[here] = self._place(key_node)
            result[key] = self.read(value_node, here, depth + 1)
        for other in merged:
            self._merge(other, result, path, depth)
        return result

    def _merge(self, other: yaml.Node, result: dict[str, object], path: Path, depth: int) -> None:
        if not isinstance(other, yaml.MappingNode) or id(other) in self._open or depth > MAX_DEPTH:
            self._refuse(other, path, "expected << to name a mapping (<<: *anchor)")
            return
        self._open.add(id(other))
        for key_node, value_node in other.value:
            self._nodes += 1
            if key_node.tag == f"{_TAG}merge":
                many = isinstance(value_node, yaml.SequenceNode)
                for inner in value_node.value if many else [value_node]:
                    self._merge(inner, result, path, depth + 1)
                continue
            key = self._key(key_node, path)
            if key is not None and key not in result:
                self.source.keys[(*path, key)] = self._place(key_node)
                result[key] = self.read(value_node, (*path, key), depth + 1)
        self._open.discard(id(other))

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._refuse(node, path, "expected a key that is text; found a list or a mapping")
        elif not node.value:
            self._refuse(node, path, "expected a key that is not empty")
        elif "${" in node.value:
            self._refuse(node, path, "${...} works in values only, not in keys")
        else:
            return str(node.value)
        return None

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> str | None:
        if node.tag not in _SCALAR_TAGS:
            self._unreadable(node, path, _NO_TAGS)
            return None
        if node.tag == f"{_TAG}null":
            return None
        self.source.written[path] = node.value
        try:
            text, emptied_by = interpolate(node.value, self._env)
        except ValueError as error:
            self._unreadable(node, path, str(error))
            return None
        if emptied_by:
            self.source.emptied[path] = emptied_by
            return None
        return text

    def _place(self, node: yaml.Node) -> Mark:
        mark = node.start_mark
        return Mark(self.source.name, mark.line + 1, mark.column + 1)

    def _at(self, node: yaml.Node, path: Path, message: str) -> Problem:
        place = self._place(node)
        return Problem(place.file, place.line, place.column, path_text(path), message)

    def _refuse(self, node: yaml.Node, path: Path, message: str) -> None:
        self.source.problems.append((path, self._at(node, path, message)))

    def _unreadable(self, node: yaml.Node, path: Path, message: str) -> None:
        self.source.unreadable.add(path)
        self._refuse(node, path, message)
