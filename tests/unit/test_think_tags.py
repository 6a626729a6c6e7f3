"""Thinking between tags: found at the beginning only, the same for every cut of the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1 import chat_pb2
from headgate_server.providers.base import Target
from headgate_server.providers.think_tags import ThinkSplitter, ThinkTags, split, tags_of
from headgate_server.providers.vendors import Family, Vendor

TAGS = ThinkTags("<think>", "</think>")
PREFILLED = TAGS._replace(prefilled=True)


def pieces(parts: list[str], tags: ThinkTags) -> tuple[str, str]:
    splitter = ThinkSplitter(tags)
    found = [piece for part in parts for piece in splitter.feed(part)] + splitter.finish()
    assert all(text for _, text in found), "no empty pieces"
    kinds = [kind for kind, _ in found]
    assert kinds == sorted(kinds), "thinking never follows text"
    return tuple("".join(t for k, t in found if k == kind) for kind in ("reasoning", "text"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "thinking", "rest"),
    [
        ("<think>a</think>b", "a", "b"),
        ("<think>\na\n</think>\n\nb", "a", "b"),
        ("<think>\r\na\r\n</think>\r\n\r\nb\r\n", "a", "b\r\n"),
        (" \n\t<think>a</think>b", "a", "b"),
        ("<think> a\n\nb </think> c ", " a\n\nb ", " c "),
        ("<think></think>b", "", "b"),
        ("<think>\n\n</think>\n\nb", "", "b"),
        ("<think>a</think>", "a", ""),
        ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("<think>a", "a", ""),
        ("<think>a\n", "a\n", ""),
        ("<think>a</thin", "a</thin", ""),
        ("<think>a\n</thinking>b", "a\n</thinking>b", ""),
        ("<think>", "", ""),
        ("a<think>b</think>c", "", "a<think>b</think>c"),
        ("<thi", "", "<thi"),
        ("<thin>x", "", "<thin>x"),
        ("  \n", "", "  \n"),
        ("a</think>b", "", "a</think>b"),
        ("", "", ""),
    ],
)
def test_tags(text: str, thinking: str, rest: str) -> None:
    assert split(text, TAGS) == (thinking, rest)


@pytest.mark.parametrize(
    ("text", "thinking", "rest"),
    [
        ("a</think>b", "a", "b"),
        ("a\n</think>\n\nb", "a", "b"),
        ("\na</think>b", "a", "b"),
        ("<think>\na\n</think>\n\nb", "a", "b"),
        ("</think>b", "", "b"),
        ("a", "", "a"),  # there was none after all
        ("<thi", "", "<thi"),
        ("", "", ""),
    ],
)
def test_where_the_prompt_has_opened_the_thinking(text: str, thinking: str, rest: str) -> None:
    assert split(text, PREFILLED) == (thinking, rest)


def test_other_tags() -> None:
    assert split("[THINK]a[/THINK]b", ThinkTags("[THINK]", "[/THINK]")) == ("a", "b")
    assert split("<think>a</think>b", ThinkTags("[THINK]", "[/THINK]"))[0] == ""


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<", "</thi", "nk>", "\n", "\r\n", " ", "a"]),
        max_size=10,
    ),
    st.data(),
    st.booleans(),
)
def test_every_cut_gives_the_same(words: list[str], data: st.DataObject, prefilled: bool) -> None:
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    tags = PREFILLED if prefilled else TAGS
    assert pieces(parts, tags) == pieces(list(text), tags) == split(text, tags)


@given(st.text(alphabet="ab<>/think\n", max_size=30))
def test_nothing_but_tags_and_line_ends_is_lost(text: str) -> None:
    thinking, rest = split(text, TAGS)
    if not text.lstrip().startswith("<think>"):
        assert (thinking, rest) == ("", text)
        return
    kept = text.lstrip().removeprefix("<think>").replace("</think>", "", 1)
    assert (thinking + rest).replace("\n", "") == kept.replace("\n", "")


def test_text_goes_out_as_it_comes() -> None:
    splitter = ThinkSplitter(TAGS)
    assert splitter.feed("<think>\nabc") == [("reasoning", "abc")]
    assert splitter.feed("d\n") == [("reasoning", "d")]
    assert splitter.feed("e") == [("reasoning", "\ne")]
    assert splitter.feed("</think") == []
    assert splitter.feed(">\n") == []
    assert splitter.feed("\nf") == [("text", "f")]
    assert splitter.feed("g</think>") == [("text", "g</think>")]
    assert splitter.finish() == []


def test_text_is_held_back_until_the_thinking_ends_but_not_forever() -> None:
    splitter = ThinkSplitter(PREFILLED)
    assert splitter.feed("abc") == []
    assert splitter.undecided
    assert splitter.feed("</think>d") == [("reasoning", "abc"), ("text", "d")]
    splitter = ThinkSplitter(PREFILLED)
    assert splitter.feed("a" * 60_000) == []
    assert splitter.feed("a" * 10_000) == [("reasoning", "a" * 70_000)]
    assert splitter.feed("b</think>c") == [("reasoning", "b"), ("text", "c")]


# When tags are looked for.

RAW = Vendor(name="Raw", raw_output=True)


def asked(vendor: Vendor = RAW, *, prefilled: str = "always", **request: object) -> bool | None:
    """Whether the answer is taken to begin inside the thinking; None if no tags are looked for."""
    family = Family(name="f", think_tags=("<t>", "</t>"), think_prefilled=prefilled)  # type: ignore[arg-type]
    target = Target("p", "openai", "m", vendor, family)
    found = tags_of(chat_pb2.ChatRequest(model="m", **request), target)  # type: ignore[arg-type]
    return None if found is None else found.prefilled


def test_models_without_tags() -> None:
    target = Target("p", "openai", "m", RAW, Family(name="f"))
    assert tags_of(chat_pb2.ChatRequest(), target) is None


def test_a_prefilled_prompt_counts_only_where_text_is_handed_on_as_it_is() -> None:
    assert asked() is True
    assert asked(Vendor(name="Hosted")) is False
    assert asked(prefilled="never") is False


def test_a_switch_counts_only_if_the_request_sets_it() -> None:
    on = chat_pb2.ReasoningOptions(enabled=True)
    off = chat_pb2.ReasoningOptions(enabled=False)
    assert asked(prefilled="if_asked") is False
    assert asked(prefilled="if_asked", reasoning=on) is True
    assert asked(prefilled="if_asked", reasoning=off) is False
    assert asked(reasoning=off) is True, "such a model cannot but think"


def test_enforced_forms_and_hidden_thinking() -> None:
    form = chat_pb2.ResponseFormat(json_object=chat_pb2.JsonObjectFormat())
    assert asked(response_format=form) is False
    text = chat_pb2.ResponseFormat(text=chat_pb2.TextFormat())
    assert asked(response_format=text) is True
    assert asked(reasoning=chat_pb2.ReasoningOptions(summary="none")) is False
