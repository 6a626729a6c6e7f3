"""A scripted model for agents: it asks for a tool, reads what the tool said, and says it again.

It speaks OpenAI's chat completions, whatever the agent speaks. Calls without tools (agents ask models for
titles and summaries on the side) get a plain answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes.bodies import MODEL
from fakes.steps import answer, sse
from fakes.wire import Exchange

Json = dict[str, Any]
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}


@dataclass
class Model:
    """One conversation's model.

    Attributes:
        tools: names that the agent may give to the tool, each with the arguments to call it with.
        says: what it answers where it calls no tool.
        called: the names that it was called by, in order.
        results: what came back.
    """

    tools: Mapping[str, Json]
    says: str = "Noted."
    called: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.record.method == "GET":
            await answer({"object": "list", "data": [MODEL]})(exchange)
            return
        body = exchange.record.json
        message: Json = {"role": "assistant", "content": self.says}
        results = [_text(m["content"]) for m in body["messages"] if m["role"] == "tool"]
        offered = [tool["function"]["name"] for tool in body.get("tools", [])]
        name = next((name for name in self.tools if name in offered), None)
        if results:
            self.results = results
            message["content"] = f"The tool said: {results[-1]}"
        elif name is not None:
            self.called.append(name)
            function = {"name": name, "arguments": json.dumps(self.tools[name])}
            call = {"id": f"call_{len(self.called)}", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        reason = "tool_calls" if "tool_calls" in message else "stop"
        await (_streamed if body.get("stream") else _whole)(exchange, message, reason)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def _whole(exchange: Exchange, message: Json, reason: str) -> None:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    await answer({
        "id": "c1", "object": "chat.completion", "created": 1, "model": "upstream-m",
        "choices": [choice], "usage": USAGE,
    })(exchange)  # fmt: skip


async def _streamed(exchange: Exchange, message: Json, reason: str) -> None:
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    for call in message.get("tool_calls", []):
        arguments = call["function"]["arguments"]
        begun = call | {"index": 0, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        for piece in (arguments[:5], arguments[5:]):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    deltas += [{"content": word} for word in re.findall(r"\S+\s*", message["content"] or "")]
    chunks: list[Any] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    chunks.append({"index": 0, "delta": {}, "finish_reason": reason})
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "upstream-m"}
    events: list[Any] = [head | {"choices": [chunk]} for chunk in chunks]
    events.append(head | {"choices": [], "usage": USAGE})
    await sse(events)(exchange)
