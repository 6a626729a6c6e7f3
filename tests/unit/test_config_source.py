"""YAML with positions: what the text says, where it says it, and what it must not become."""

# ruff: noqa: E501  (tables of texts and messages, one case a line)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.config.problems import ConfigError, Path
from headgate_server.config.source import MAX_NODES, Source, read_source

CANARY = "sk-canary-7f3a"
ENV = {"PORT": "8080", "EMPTY": "", "SECRET": CANARY, "NESTED": "${PORT}"}


def read(text: str | bytes) -> Source:
    return read_source(text, "f.yaml", ENV)


def failure(text: str | bytes) -> str:
    """Return the one problem of a text, from wherever it is reported."""
    try:
        source = read(text)
    except ConfigError as error:
        (problem,) = error.problems
    else:
        ((_, problem),) = source.problems
    assert "\n" not in str(problem)
    return str(problem)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", "true"),
        ("1_000", "1_000"),
        ("010", "010"),
        ("4.10", "4.10"),
        ("12:30:45", "12:30:45"),
        ("2024-02-01", "2024-02-01"),
        ("1e3", "1e3"),
        ("=", "="),
        ("o3", "o3"),
        (".inf", ".inf"),
        ("'null'", "null"),
        ('""', ""),
        ("!!str null", "null"),
        ("!!str 5", "5"),
        ("!!int 5", "5"),
        ("null", None),
        ("~", None),
        ("", None),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_stay_what_was_written(written: str, value: str | None) -> None:
    assert read(f"a: {written}").data == {"a": value}


@pytest.mark.parametrize(
    "key", ["on", "4", "o3", "null", "1.0", "2024-02-01", "true", "~", "gpt/x:y"]
)
def test_keys_are_text(key: str) -> None:
    assert read(f"{key}: x").data == {key: "x"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${PORT}", "8080"),
        ('"${PORT}"', "8080"),
        ("'${PORT}'", "8080"),
        ("127.0.0.1:${PORT}", "127.0.0.1:8080"),
        ("${PORT}${PORT}", "80808080"),
        ("${MISSING:-7}", "7"),
        ("${EMPTY:-7}", "7"),
        ("${PORT:-7}", "8080"),
        ("${MISSING:-a:-b}", "a:-b"),
        ("${NESTED}", "${PORT}"),
        ("$${PORT}", "${PORT}"),
        ("$$${PORT}", "$${PORT}"),
        ("$PORT", "$PORT"),
        ("a$", "a$"),
        ("${EMPTY}", None),
        ("${MISSING:-}", None),
        ("x${EMPTY}", "x"),
    ],
)
def test_interpolation(written: str, value: str | None) -> None:
    assert read(f"a: {written}").data == {"a": value}


def test_an_interpolated_value_is_never_read_as_yaml() -> None:
    source = read_source("a: ${X}", "f.yaml", {"X": "{b: [1]}\nc: &d *e"})
    assert source.data == {"a": "{b: [1]}\nc: &d *e"}


def test_what_came_out_empty_is_remembered_with_its_variable() -> None:
    assert read("a: ${EMPTY}").emptied == {("a",): "EMPTY"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml:1:1: the file is empty"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty"),
        ("---\n", "f.yaml:1:1: the file is empty"),
        ("- a\n- b", "f.yaml:1:1: expected a mapping with sections such as listen, providers and "),
        ("\n\njust text", "f.yaml:3:1: expected a mapping"),
        ("a: b\n\tc: d", "f.yaml:2:1: found a tab"),
        (b"a: b\nc: d\xff", "f.yaml:2:5: the file is not UTF-8: found the byte 0xff"),
        ("a: b".encode("utf-16"), "f.yaml:1:1: the file is not UTF-8"),
        ("a: \x07", "f.yaml:1:4: found the character U+0007"),
        ("a: b\n\n\nc: \ud800", "f.yaml:4:4: found the character U+D800"),
        ('a: "\\UFFFFFFFF"', "f.yaml:1:"),
        ("a: b\nc: 'x\nd: e\n", "f.yaml:2:4: the text in quotes that begins here does not end"),
        ("a: [1\nb: 2", "f.yaml:2:"),
        ("a: {b: ${X}}", 'f.yaml:1:9: expected a comma or the closing bracket; inside { } or [ ] a'),
        ("a: [::1]:80", 'an IPv6 address needs quotes: "[::1]:8080"'),
        ("a: {b: :80}", "f.yaml:1:8: expected a value here"),
        ("a: b\na: c\n", "f.yaml:2:1: a: this key is written twice (first on line 1); remove one"),
        ("a: {x: 1, 'x': 2}", "f.yaml:1:11: a.x: this key is written twice"),
        ("a: b\n---\nc: d", "f.yaml:2:1: expected one document"),
        ("a: *nothing", "f.yaml:1:4: *name refers to an anchor that is not defined above"),
        ("a: &x 1\nb: &x 2\nc: *x", "f.yaml:2:4: this anchor (&name) is defined twice"),
        ("a: &x [*x]", "f.yaml:1:4: a[0]: this alias (*name) contains itself"),
        ("a: &x {b: *x}", "f.yaml:1:4: a.b: this alias (*name) contains itself"),
        ("a: &x {<<: *x}", "f.yaml:1:4: a: expected << to name a mapping"),
        ("a: {<<: 3}", "f.yaml:1:9: a: expected << to name a mapping"),
        ("a: !env X", "f.yaml:1:4: a: tags (!name) are not supported"),
        ("a: !!python/object:os.system {}", "tags (!name) are not supported"),
        ("a: !!binary aGk=", "tags (!name) are not supported"),
        ("a: !!set {x}", "tags (!name) are not supported"),
        ("a: !x!y z", "tags (!name) are not supported"),
        ("? [a, b]\n: c", "f.yaml:1:3: expected a key that is text"),
        ("'': c", "f.yaml:1:1: expected a key that is not empty"),
        ("${PORT}: c", "f.yaml:1:1: ${...} works in values only, not in keys"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 500 + "}" * 500, "nested too deeply"),
        ("a: b: c", "f.yaml:1:5: a colon and a space are not expected here"),
        ('a: "\\q"', "unknown escape"),
        ("a: @b", "f.yaml:1:4: a plain text cannot start with this character"),
        ("a: ${MISSING}", "f.yaml:1:4: a: the environment variable MISSING is not set; set it, or write ${MISSING:-default}"),
        ("a:\n  - x\n  - ${MISSING}", "f.yaml:3:5: a[1]: the environment variable MISSING"),
        ("a: ${PORT", "a: expected ${NAME} or ${NAME:-default}"),
        ("a: ${}", "a: expected ${NAME} or ${NAME:-default}"),
        ("a: ${P-x}", "a: expected ${NAME} or ${NAME:-default}"),
        ("a: ${A:-${B}}", "the default cannot hold { or }"),
        ("a: " + "x" * (4 * 2**20), "f.yaml:1:1: the file is larger than 4 MiB"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_what_cannot_be_read_is_reported_where_it_stands(text: str | bytes, expected: str) -> None:
    assert expected in failure(text)


def test_aliases_and_merge_keys_work() -> None:
    source = read(
        "a: &a {x: 1, y: 2}\nb: &b {y: 3}\nc: *a\nd: {<<: *a, x: 4}\ne: {<<: [*b, *a], z: 5}\n"
    )
    assert source.problems == []
    assert source.data["c"] == {"x": "1", "y": "2"}
    assert source.data["d"] == {"x": "4", "y": "2"}
    assert source.data["e"] == {"y": "3", "x": "1", "z": "5"}


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert f"more than {MAX_NODES} values" in failure("\n".join(lines))


def test_a_merge_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    assert f"more than {MAX_NODES} values" in failure("\n".join(lines))


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        (("a",), 1, 1),
        (("a", "b"), 2, 6),
        (("a", "c"), 3, 3),
        (("a", "c", 1), 5, 7),
        (("a", "c", 1, "d"), 5, 10),
        (("a", "nowhere"), 1, 1),
        (("nowhere", "at", "all"), 1, 1),
    ],
)
def test_positions(path: Path, line: int, column: int) -> None:
    text = "a:\n  b: 1\n  c:\n    - 2\n    - d: 3\n"
    mark = read("\ufeff" + text).mark(path)
    assert (mark.line, mark.column) == (line, column)
    assert read(text.replace("\n", "\r\n").encode("utf-8-sig")).mark(path) == mark


@pytest.mark.parametrize(
    "text",
    [
        f"a: *{CANARY}",
        f"a: &{CANARY} x\nb: &{CANARY} y\nc: *{CANARY}",
        f"a: !{CANARY} x",
        f"a: !x!{CANARY} x",
        f"a: '{CANARY}",
        f'a: "\\q{CANARY}"',
        f"a: {{b: {CANARY}",
        f"a: {CANARY}: x",
        f"a: x\n {CANARY}\nb",
        f"a: ${{{CANARY}}}",
        f"a: |{CANARY}",
        f"a: {CANARY}\x07",
        "a: ${SECRET}${MISSING}",
    ],
)
def test_a_secret_is_not_quoted_from_a_file_that_cannot_be_read(text: str) -> None:
    assert CANARY not in failure(text)


@given(st.text() | st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,? \n\t<$\\", max_size=60) | st.binary())
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    try:
        source = read_source(text, "f.yaml", ENV)
    except ConfigError as error:
        assert error.problems
        assert all(p.line and p.column for p in error.problems)
    else:
        assert all(isinstance(key, str) for key in source.data)
