"""What the OpenAI dialect sends, judged by the parameter types of OpenAI's own SDK.

Unknown members are not the types' business, but OpenAI and Azure refuse them: there every member must be
known, unless the caller put it there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Chat
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as Text
from pydantic import TypeAdapter

ROOT = Path(__file__).parents[1] / "golden" / "openai"
CASES = sorted(path.parent for path in ROOT.glob("*/upstream_request.json"))
ADAPTERS: dict[str, Any] = {"chat": TypeAdapter(Chat), "text": TypeAdapter(Text)}
KNOWN = {"chat": set(get_type_hints(Chat)), "text": set(get_type_hints(Text))}
# Requests whose very point is what the types do not know.
BEYOND = {
    "vendor_part": "a vendor's kind of part",
    "vendor_part_in_history": "a vendor's kind of part",
    "completion_token_prompts": "lists of lists, of which the types' union takes the first for numbers",
    "all_tuning": "a bias with a fraction, which only some servers take",
    "openrouter_images": "a modality that OpenAI's chat does not have",
}


def sent(folder: Path) -> tuple[str, dict[str, Any]]:
    found = json.loads((folder / "upstream_request.json").read_text())
    path = found["url"].split("?")[0]
    return ("chat" if path.endswith("/chat/completions") else "text"), found["body"]


def given(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return json.loads(path.read_text()) if path.exists() else {}


def validate(kind: str, body: dict[str, Any]) -> None:
    consume(ADAPTERS[kind].validate_python(body))


def consume(value: Any) -> None:
    """Walks the value: iterables are validated only as they are read."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, str) or not isinstance(value, Iterable):
        return
    for item in value:
        consume(item)


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_the_sdks_types_accept_the_body(folder: Path) -> None:
    kind, body = sent(folder)
    if folder.name not in BEYOND:
        validate(kind, body)
        return
    with pytest.raises(ValueError, match="validation error"):
        validate(kind, body)


OPENAIS = [c for c in CASES if given(c, "target.json").get("kind", "openai") in ("openai", "azure")
           and (given(c, "target.json").get("kind") == "azure"
                or "base_url" not in given(c, "target.json"))
           and given(c, "target.json").get("policy") != "pass"]  # fmt: skip


@pytest.mark.parametrize("folder", OPENAIS, ids=lambda folder: folder.name)
def test_openai_gets_no_member_that_it_does_not_know(folder: Path) -> None:
    kind, body = sent(folder)
    request = given(folder, "request.json")
    own = json.loads(request.get("extra_body_json", "{}")).keys()
    for options in request.get("provider_options_json", {}).values():
        own |= json.loads(options).keys()
    assert body.keys() - KNOWN[kind] - own == set()


def test_the_types_would_notice() -> None:
    for kind, body in (
        ("chat", {"model": "m", "messages": [{"role": "oracle", "content": "x"}]}),
        ("chat", {"model": "m", "messages": [], "temperature": "hot"}),
        ("text", {"model": "m", "prompt": "x", "best_of": "many"}),
    ):
        with pytest.raises(ValueError, match="validation error"):
            validate(kind, body)
    assert {sent(folder)[0] for folder in CASES} == {"chat", "text"}
