"""Four front doors' wire formats, by hand: how a client asks, and what it makes of an answer.

Independent of the doors under test: nothing here imports the gateway. A client keeps an answer in the
door's own form and sends it back with its next turn, as SDKs do.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from square.vendors import Call, Json

TOOLS = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
}


@dataclass
class Told:
    """What the client understood."""

    text: str = ""
    thinking: str = ""
    calls: list[Call] = field(default_factory=list)
    finish: str = ""
    usage: tuple[int, int] = (0, 0)
    turn: Any = None  # to be sent back


@dataclass
class Talk:
    """A conversation."""

    system: str
    question: str
    image: bytes | None = None
    tools: bool = False
    thinks: bool = False
    answered: Told | None = None
    results: dict[str, str] = field(default_factory=dict)  # by call id
    then: str = ""  # a second question


class Door:
    name = ""

    def path(self, model: str, stream: bool) -> str:
        raise NotImplementedError

    def ask(self, model: str, talk: Talk, stream: bool) -> Json:
        raise NotImplementedError

    def told(self, body: Json) -> Told:
        raise NotImplementedError

    def told_by_stream(self, text: str) -> Told:
        raise NotImplementedError


def events_of(text: str) -> list[Json]:
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
        if data and data[0] != "[DONE]":
            found.append(json.loads("\n".join(data)))
    return found


class OpenAI(Door):
    name = "openai"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/chat/completions"

    def ask(self, model: str, talk: Talk, stream: bool) -> Json:
        content: list[Json] = [{"type": "text", "text": talk.question}]
        if talk.image:
            url = "data:image/png;base64," + base64.b64encode(talk.image).decode()
            content.append({"type": "image_url", "image_url": {"url": url}})
        messages: list[Json] = [
            {"role": "system", "content": talk.system},
            {"role": "user", "content": content},
        ]
        if talk.answered:
            messages.append(talk.answered.turn)
            messages += [
                {"role": "tool", "tool_call_id": id, "content": text}
                for id, text in talk.results.items()
            ]
        if talk.then:
            messages.append({"role": "user", "content": talk.then})
        body: Json = {"model": model, "messages": messages, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        if talk.tools:
            body["tools"] = [
                {"type": "function", "function": {"name": name, "parameters": schema}}
                for name, schema in TOOLS.items()
            ]
        if talk.thinks:
            body["reasoning_effort"] = "high"
        return body

    def told(self, body: Json) -> Told:
        choice = body["choices"][0]
        message = {key: value for key, value in choice["message"].items() if value is not None}
        message.pop("annotations", None)
        return Told(
            text=message.get("content") or "",
            thinking=message.get("reasoning_content") or "",
            calls=[
                Call(c["function"]["name"], json.loads(c["function"]["arguments"]), c["id"])
                for c in message.get("tool_calls", [])
            ],
            finish=choice["finish_reason"],
            usage=(body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]),
            turn=message,
        )

    def told_by_stream(self, text: str) -> Told:
        assert text.endswith("data: [DONE]\n\n")
        message: Json = {"role": "assistant", "content": None}
        finish, usage = "", None
        for chunk in events_of(text):
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                finish = choice["finish_reason"] or finish
                self._add(message, choice["delta"])
        for call in message.get("tool_calls", []):
            del call["index"]
        choice = {"message": message, "finish_reason": finish}
        return self.told({"choices": [choice], "usage": usage})

    def _add(self, into: Json, delta: Json) -> None:
        """What SDKs do with deltas: strings grow, lists merge by index."""
        for key, value in delta.items():
            if value is None or key == "role":
                continue
            if isinstance(value, str) and key not in ("id", "type", "name", "signature", "format"):
                into[key] = (into.get(key) or "") + value
            elif isinstance(value, dict):
                self._add(into.setdefault(key, {}), value)
            elif isinstance(value, list):
                have = into.setdefault(key, [])
                for item in value:
                    index = item.get("index") if isinstance(item, dict) else None
                    known = next(
                        (h for h in have if index is not None and h["index"] == index), None
                    )
                    if known is None:
                        known = {"index": index} if index is not None else {}
                        have.append(known)
                    self._add(known, {k: v for k, v in item.items() if k != "index"})
            else:
                into[key] = value


class Anthropic(Door):
    name = "anthropic"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/messages"

    def ask(self, model: str, talk: Talk, stream: bool) -> Json:
        content: list[Json] = [{"type": "text", "text": talk.question}]
        if talk.image:
            data = base64.b64encode(talk.image).decode()
            source = {"type": "base64", "media_type": "image/png", "data": data}
            content.append({"type": "image", "source": source})
        messages: list[Json] = [{"role": "user", "content": content}]
        if talk.answered:
            messages.append({"role": "assistant", "content": talk.answered.turn})
        last: list[Json] = [
            {"type": "tool_result", "tool_use_id": id, "content": text}
            for id, text in talk.results.items()
        ]
        if talk.then:
            last.append({"type": "text", "text": talk.then})
        if last:
            messages.append({"role": "user", "content": last})
        body: Json = {
            "model": model, "max_tokens": 5000, "system": talk.system, "messages": messages,
            "stream": stream,
        }  # fmt: skip
        if talk.tools:
            body["tools"] = [
                {"name": name, "input_schema": schema} for name, schema in TOOLS.items()
            ]
        if talk.thinks:
            body["thinking"] = {"type": "enabled", "budget_tokens": 2000}
        return body

    def told(self, body: Json) -> Told:
        told = Told(finish=body["stop_reason"], turn=body["content"])
        for block in body["content"]:
            if block["type"] == "text":
                told.text += block["text"]
            elif block["type"] == "thinking":
                told.thinking += block["thinking"]
            elif block["type"] == "tool_use":
                told.calls.append(Call(block["name"], block["input"], block["id"]))
        told.usage = (body["usage"]["input_tokens"], body["usage"]["output_tokens"])
        return told

    def told_by_stream(self, text: str) -> Told:
        message: Json = {}
        partial: dict[int, str] = {}
        kinds = []
        for event in events_of(text):
            kinds.append(event["type"])
            if event["type"] == "message_start":
                message = event["message"]
            elif event["type"] == "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            elif event["type"] == "content_block_delta":
                assert event["index"] == len(message["content"]) - 1, "one block at a time"
                block, delta = message["content"][-1], event["delta"]
                if delta["type"] == "input_json_delta":
                    index = event["index"]
                    partial[index] = partial.get(index, "") + delta["partial_json"]
                elif delta["type"] == "signature_delta":
                    block["signature"] = delta["signature"]
                elif delta["type"] in ("text_delta", "thinking_delta"):
                    key = delta["type"].removesuffix("_delta")
                    block[key] += delta[key]
            elif event["type"] == "message_delta":
                message.update(event["delta"])
                message["usage"].update({k: v for k, v in event["usage"].items() if v is not None})
        for index, text_ in partial.items():
            message["content"][index]["input"] = json.loads(text_ or "{}")
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
        return self.told(message)


class Gemini(Door):
    name = "gemini"

    def path(self, model: str, stream: bool) -> str:
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/{model}:{verb}"

    def ask(self, model: str, talk: Talk, stream: bool) -> Json:
        parts: list[Json] = [{"text": talk.question}]
        if talk.image:
            data = base64.b64encode(talk.image).decode()
            parts.append({"inlineData": {"mimeType": "image/png", "data": data}})
        contents: list[Json] = [{"role": "user", "parts": parts}]
        last: list[Json] = []
        if talk.answered:
            contents.append(talk.answered.turn)
            for call in talk.answered.calls:
                response = {"result": talk.results[call.id]}
                last.append(
                    {"functionResponse": {"id": call.id, "name": call.name, "response": response}}
                )
        if talk.then:
            last.append({"text": talk.then})
        if last:
            contents.append({"role": "user", "parts": last})
        body: Json = {
            "contents": contents,
            "systemInstruction": {"parts": [{"text": talk.system}]},
        }
        if talk.tools:
            declared = [
                {"name": name, "parametersJsonSchema": schema} for name, schema in TOOLS.items()
            ]
            body["tools"] = [{"functionDeclarations": declared}]
        if talk.thinks:
            thinking = {"thinkingBudget": 2000, "includeThoughts": True}
            body["generationConfig"] = {"thinkingConfig": thinking}
        return body

    def told(self, body: Json) -> Told:
        candidate = body["candidates"][0]
        told = Told(finish=candidate["finishReason"], turn=candidate["content"])
        for part in candidate["content"]["parts"]:
            if part.get("thought"):
                told.thinking += part.get("text", "")
            elif "functionCall" in part:
                call = part["functionCall"]
                told.calls.append(Call(call["name"], call["args"], call["id"]))
            else:
                told.text += part.get("text", "")
        usage = body["usageMetadata"]
        told.usage = (usage["promptTokenCount"], usage["candidatesTokenCount"])
        return told

    def told_by_stream(self, text: str) -> Told:
        parts: list[Json] = []
        last: Json = {}
        for chunk in events_of(text):
            candidate = chunk["candidates"][0]
            for part in candidate.get("content", {}).get("parts", []):
                before = parts[-1] if parts else {}
                if (
                    "text" in part and "text" in before
                    and part.get("thought") == before.get("thought")
                    and "thoughtSignature" not in before
                ):  # fmt: skip
                    part = part | {"text": before["text"] + part["text"]}
                    parts.pop()
                parts.append(part)
            last = {**last, **{k: v for k, v in chunk.items() if v}}
        last["candidates"][0]["content"] = {"role": "model", "parts": parts}
        return self.told(last)


class Responses(Door):
    name = "responses"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/responses"

    def ask(self, model: str, talk: Talk, stream: bool) -> Json:
        content: list[Json] = [{"type": "input_text", "text": talk.question}]
        if talk.image:
            url = "data:image/png;base64," + base64.b64encode(talk.image).decode()
            content.append({"type": "input_image", "image_url": url, "detail": "auto"})
        items: list[Json] = [{"role": "user", "content": content}]
        if talk.answered:
            items += talk.answered.turn
            items += [
                {"type": "function_call_output", "call_id": id, "output": text}
                for id, text in talk.results.items()
            ]
        if talk.then:
            items.append({"role": "user", "content": talk.then})
        body: Json = {
            "model": model, "instructions": talk.system, "input": items, "stream": stream,
            "store": False, "include": ["reasoning.encrypted_content"],
        }  # fmt: skip
        if talk.tools:
            body["tools"] = [
                {"type": "function", "name": name, "parameters": schema, "strict": False}
                for name, schema in TOOLS.items()
            ]
        if talk.thinks:
            body["reasoning"] = {"effort": "high", "summary": "auto"}
        return body

    def told(self, body: Json) -> Told:
        told = Told(finish=body["status"], turn=body["output"])
        for item in body["output"]:
            if item["type"] == "message":
                told.text += "".join(part["text"] for part in item["content"])
            elif item["type"] == "reasoning":
                told.thinking += "".join(part["text"] for part in item["summary"])
            elif item["type"] == "function_call":
                call = Call(item["name"], json.loads(item["arguments"]), item["call_id"])
                told.calls.append(call)
        told.usage = (body["usage"]["input_tokens"], body["usage"]["output_tokens"])
        return told

    def told_by_stream(self, text: str) -> Told:
        events = events_of(text)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["type"] == "response.completed"
        done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
        final: Json = events[-1]["response"]
        assert done == final["output"]
        told = self.told(final)
        deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        assert deltas == told.text
        return told


DOORS: list[Door] = [OpenAI(), Anthropic(), Gemini(), Responses()]
