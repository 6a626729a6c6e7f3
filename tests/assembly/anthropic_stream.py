"""Puts a stream of Anthropic's server-sent events together to a message, and checks their order.

By the rules of https://platform.claude.com/docs/en/build-with-claude/streaming, as the SDKs do it
(`accumulate_event` in anthropic/lib/streaming/_messages.py).
"""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def events_of(stream: str) -> list[Json]:
    """The events' data; their names must be their types."""
    found: list[Json] = []
    assert stream.endswith("\n\n")
    for text in stream.removesuffix("\n\n").split("\n\n"):
        name, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def assemble(stream: str) -> Json:
    """The message."""
    events = [event for event in events_of(stream) if event["type"] != "ping"]
    first, *middle, delta, last = events
    assert (first["type"], delta["type"], last) == (
        "message_start", "message_delta", {"type": "message_stop"}
    )  # fmt: skip
    message: Json = first["message"]
    assert message["content"] == [] and message["stop_reason"] is None
    buffers: list[str] = []
    running = False
    for event in middle:
        index = event["index"]
        if event["type"] == "content_block_start":
            # One after the other, without gaps.
            assert not running and index == len(message["content"])
            running = True
            message["content"].append(event["content_block"])
            buffers.append("")
            continue
        assert running and index == len(message["content"]) - 1
        if event["type"] == "content_block_stop":
            running = False
            if buffers[index]:
                message["content"][index]["input"] = _input(buffers[index])
        else:
            buffers[index] += _change(message["content"][index], event["delta"])
    assert not running
    rest = {k: v for k, v in delta.items() if k not in ("type", "delta", "usage")}
    message["usage"] |= delta["usage"]
    return message | rest | delta["delta"]


def _change(block: Json, delta: Json) -> str:
    """Applies a delta; returns JSON of a call's arguments, which are parsed at the end."""
    kind = (block["type"], delta["type"])
    if kind == ("text", "text_delta"):
        block["text"] += delta["text"]
    elif kind == ("text", "citations_delta"):
        block.setdefault("citations", []).append(delta["citation"])
    elif kind == ("thinking", "thinking_delta"):
        block["thinking"] += delta["thinking"]
    elif kind == ("thinking", "signature_delta"):
        block["signature"] = delta["signature"]
    else:
        assert kind == ("tool_use", "input_json_delta"), kind
        text: str = delta["partial_json"]
        return text
    return ""


def _input(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}
