"""Canonical bodies of OpenAI's chat completions API, as plain JSON values.

Owns shapes, not transport: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]

ID = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"
CREATED = 1741569952
MODEL: Json = {"id": "m", "object": "model", "created": CREATED, "owned_by": "openai"}
USAGE: Json = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def tool_call(name: str, arguments: Any = None, *, id: str = "call_1") -> Json:
    """A call of a function; arguments are dumped unless they are text already."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return {"id": id, "type": "function", "function": {"name": name, "arguments": text}}


def completion(
    text: str | None = "Hello! How can I help you today?",
    *,
    tool_calls: Sequence[Json] = (),
    finish_reason: str | None = None,
    usage: Json | None = USAGE,
    model: str = "m",
    message: Json | None = None,
    **extra: Any,
) -> Json:
    """A unary answer with one choice. `message` adds to the message, `extra` to the top level."""
    said: Json = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if tool_calls:
        said["tool_calls"] = list(tool_calls)
    choice = {
        "index": 0,
        "message": said | (message or {}),
        "logprobs": None,
        "finish_reason": finish_reason or ("tool_calls" if tool_calls else "stop"),
    }
    body = _envelope("chat.completion", [choice], model)
    if usage is not None:
        body["usage"] = usage
    return body | {"service_tier": "default"} | extra


def chunks(
    pieces: Iterable[str] = ("Hello", "!", " How can", " I help", " you today?"),
    *,
    tool_calls: Sequence[Json] = (),
    reasoning: Iterable[str] = (),
    finish_reason: str | None = None,
    usage: Json | bool | None = None,
    model: str = "m",
    **extra: Any,
) -> list[Json]:
    """The chunk objects of a stream: role first, then deltas, the finish, and usage if asked.

    `reasoning` comes first, as `reasoning_content`; a tool call's arguments come in pieces of 6
    characters after its id and name. `finish_reason=""` leaves the finish out.
    """
    deltas: list[Json] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"reasoning_content": piece} for piece in reasoning]
    deltas += [{"content": piece} for piece in pieces]
    for index, call in enumerate(tool_calls):
        function = call["function"]
        opened = call | {"index": index, "function": function | {"arguments": ""}}
        deltas.append({"tool_calls": [opened]})
        text = function["arguments"]
        for at in range(0, len(text), 6):
            part = {"index": index, "function": {"arguments": text[at : at + 6]}}
            deltas.append({"tool_calls": [part]})
    choices = [[_choice(delta)] for delta in deltas]
    if finish_reason != "":
        why = finish_reason or ("tool_calls" if tool_calls else "stop")
        choices.append([_choice({}, why)])
    # With include_usage every chunk has the member, null but in the last, which has no choices.
    blank = {"usage": None} if usage else {}
    made = [_envelope("chat.completion.chunk", each, model) | blank | extra for each in choices]
    if usage:
        last = _envelope("chat.completion.chunk", [], model)
        made.append(last | extra | {"usage": USAGE if usage is True else usage})
    return made


def _choice(delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _envelope(kind: str, choices: list[Json], model: str) -> Json:
    return {
        "id": ID,
        "object": kind,
        "created": CREATED,
        "model": model,
        "choices": choices,
        "system_fingerprint": "fp_06737a9306",
    }
