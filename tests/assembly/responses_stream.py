"""Puts a stream of the Responses API together to a response, and checks the order of its events.

By the rules of https://platform.openai.com/docs/api-reference/responses-streaming, as the SDKs do it
(`ResponseStreamState` in openai/lib/streaming/responses/_responses.py): every item is built from its own
events, and has to be what `response.output_item.done` and the last event say that it is.
"""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]
LAST = {"completed": "response.completed", "incomplete": "response.incomplete"}


def events_of(stream: str) -> list[Json]:
    """The events' data; their names must be their types, and their numbers without gaps."""
    found: list[Json] = []
    assert stream.endswith("\n\n")
    for text in stream.removesuffix("\n\n").split("\n\n"):
        name, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(found)
        found.append(event)
    return found


def assemble(stream: str) -> Json:
    """The response."""
    created, running, *middle, last = events_of(stream)
    assert (created["type"], running["type"]) == ("response.created", "response.in_progress")
    begun: Json = created["response"]
    assert begun == running["response"]
    assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)
    whole: Json = last["response"]
    assert last["type"] == LAST[whole["status"]]
    items: list[Json] = []
    done: list[Json] = []
    for event in middle:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif kind == "output_item.done":
            assert event["output_index"] == len(done)
            done.append(event["item"])
            _check(items[len(done) - 1], event["item"])
        else:
            item = items[event["output_index"]]
            assert item["id"] == event["item_id"]
            assert event["output_index"] >= len(done)
            _change(kind, item, event)
    assert len(items) == len(done)
    assert done == whole["output"]
    changing = {"status", "output", "usage", "completed_at", "incomplete_details", "service_tier"}
    for name in begun.keys() - changing:
        assert begun[name] == whole[name], name
    return whole


def _change(kind: str, item: Json, event: Json) -> None:
    """Applies an event to its item; an event that ends something only repeats it."""
    if kind.startswith("reasoning_summary_"):
        _think(kind, item, event)
    elif kind.startswith("function_call_arguments."):
        _write(kind, item, event, "arguments")
    elif kind.startswith("custom_tool_call_input."):
        _write(kind, item, event, "input")
    elif kind.startswith("image_generation_call."):
        assert item["type"] == "image_generation_call"
    elif kind == "content_part.added":
        assert event["content_index"] == len(item["content"])
        item["content"].append(event["part"])
    else:
        _say(kind, item["content"][event["content_index"]], event)


def _think(kind: str, item: Json, event: Json) -> None:
    index = event["summary_index"]
    if kind == "reasoning_summary_part.added":
        assert index == len(item["summary"]) and event["part"]["text"] == ""
        item["summary"].append(event["part"])
    elif kind == "reasoning_summary_part.done":
        assert item["summary"][index] == event["part"]
    else:
        _write(kind, item["summary"][index], event, "text")


def _say(kind: str, content: Json, event: Json) -> None:
    if kind == "content_part.done":
        _check(content, event["part"])
    elif kind == "output_text.annotation.added":
        assert event["annotation_index"] == len(content["annotations"])
        content["annotations"].append(event["annotation"])
    elif kind.startswith("refusal."):
        _write(kind, content, event, "refusal")
    else:
        assert kind in ("output_text.delta", "output_text.done")
        _write(kind, content, event, "text")
        if kind == "output_text.delta":
            content["logprobs"] += event["logprobs"]
        else:
            assert content["logprobs"] == event["logprobs"]


def _write(kind: str, into: Json, event: Json, member: str) -> None:
    if kind.endswith(".delta"):
        into[member] += event["delta"]
    else:
        assert into[member] == event[member]


def _check(built: Any, told: Any) -> None:
    """What deltas build is what is told at the end, which may add members that are known only then."""
    if isinstance(built, list):
        assert len(built) == len(told)
        for one, other in zip(built, told, strict=True):
            _check(one, other)
    elif isinstance(built, dict):
        for name in built.keys() - {"status", "result", "action"}:
            _check(built[name], told[name])
    else:
        assert built == told
