"""Seven vendors' wire formats, by hand: how each tells an answer, and what it was asked.

Independent of the dialects under test: nothing here imports the gateway.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fakes.eventstream import event_stream
from fakes.steps import Answer

Json = dict[str, Any]
USAGE_IN, USAGE_OUT = 11, 7


@dataclass
class Call:
    name: str
    arguments: Json
    id: str = ""


@dataclass
class Reply:
    """What a vendor is to answer."""

    text: str = ""
    thinking: str = ""
    proof: str = ""  # of the thinking, or of the first call
    calls: list[Call] = field(default_factory=list)


@dataclass
class Seen:
    """What a vendor was asked, in common terms."""

    system: str = ""
    said: list[str] = field(default_factory=list)  # texts of user and assistant, in order
    image: bytes | None = None
    tools: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    results: list[tuple[str, str]] = field(default_factory=list)  # (call id or name, text)
    thinking: str = ""  # of earlier turns
    proofs: list[str] = field(default_factory=list)
    thinks: bool = False  # whether it is asked to think


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def server_sent(events: Iterable[Json], *, named: bool = False, done: bool = False) -> Answer:
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        lines.append(f"{name}data: {dump(event)}\n\n".encode())
    if done:
        lines.append(b"data: [DONE]\n\n")
    return Answer(lines, content_type="text/event-stream", framing="chunked")


def whole(body: Json) -> Answer:
    return Answer([dump(body).encode()])


class Vendor:
    kind = ""
    model = ""
    path = ""  # what the base_url ends with
    settings = ""
    proves = False  # whether its thinking comes with a proof that must come back
    remembers_thinking = True  # whether earlier thinking can be told at all
    has_ids = True

    def answer(self, reply: Reply) -> Answer:
        raise NotImplementedError

    def stream(self, reply: Reply) -> Answer:
        raise NotImplementedError

    def seen(self, body: Json) -> Seen:
        raise NotImplementedError


class OpenAI(Vendor):
    kind, model, path = "openai", "deepseek-reasoner", "/v1"

    def answer(self, reply: Reply) -> Answer:
        message: Json = {"role": "assistant", "content": reply.text or None}
        if reply.thinking:
            message["reasoning_content"] = reply.thinking
        if reply.calls:
            message["tool_calls"] = [self._call(call) for call in reply.calls]
        return whole({
            "id": "c1", "object": "chat.completion", "created": 1, "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self._reason(reply)}],
            "usage": self._usage(),
        })  # fmt: skip

    def stream(self, reply: Reply) -> Answer:
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": half} for half in halves(reply.thinking) if half]
        deltas += [{"content": half} for half in halves(reply.text) if half]
        for index, call in enumerate(reply.calls):
            wire = self._call(call)
            arguments = wire["function"].pop("arguments")
            deltas.append({"tool_calls": [{"index": index, **wire}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": half}}]}
                for half in halves(arguments)
            ]
        chunks: list[Json] = [self._chunk({"delta": delta}) for delta in deltas]
        chunks.append(self._chunk({"delta": {}, "finish_reason": self._reason(reply)}))
        chunks.append({**self._chunk({}), "choices": [], "usage": self._usage()})
        return server_sent(chunks, done=True)

    def _chunk(self, choice: Json) -> Json:
        return {
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": self.model,
            "choices": [{"index": 0, **choice}],
        }  # fmt: skip

    def _usage(self) -> Json:
        return {
            "prompt_tokens": USAGE_IN,
            "completion_tokens": USAGE_OUT,
            "total_tokens": USAGE_IN + USAGE_OUT,
        }

    def _reason(self, reply: Reply) -> str:
        return "tool_calls" if reply.calls else "stop"

    def _call(self, call: Call) -> Json:
        function = {"name": call.name, "arguments": dump(call.arguments)}
        return {"id": call.id, "type": "function", "function": function}

    def seen(self, body: Json) -> Seen:
        seen = Seen(tools=[tool["function"]["name"] for tool in body.get("tools", [])])
        seen.thinks = (
            body.get("thinking", {}).get("type") == "enabled" or "reasoning_effort" in body
        )
        for message in body["messages"]:
            content = message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts or []:
                if part["type"] == "image_url":
                    seen.image = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                elif message["role"] in ("system", "developer"):
                    seen.system += part["text"]
                elif message["role"] == "tool":
                    seen.results.append((message["tool_call_id"], part["text"]))
                else:
                    seen.said.append(part["text"])
            seen.thinking += message.get("reasoning_content") or ""
            for call in message.get("tool_calls", []):
                function = call["function"]
                seen.calls.append(
                    Call(function["name"], json.loads(function["arguments"]), call["id"])
                )
        return seen


class Anthropic(Vendor):
    kind, model, proves = "anthropic", "claude-sonnet-4-5", True

    def answer(self, reply: Reply) -> Answer:
        return whole(self._message(reply) | {
            "content": self._blocks(reply),
            "stop_reason": "tool_use" if reply.calls else "end_turn",
            "usage": {"input_tokens": USAGE_IN, "output_tokens": USAGE_OUT},
        })  # fmt: skip

    def _message(self, reply: Reply) -> Json:
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": USAGE_IN, "output_tokens": 1},
        }  # fmt: skip

    def _blocks(self, reply: Reply) -> list[Json]:
        blocks: list[Json] = []
        if reply.thinking:
            blocks.append(
                {"type": "thinking", "thinking": reply.thinking, "signature": reply.proof}
            )
        if reply.text:
            blocks.append({"type": "text", "text": reply.text})
        for call in reply.calls:
            blocks.append(
                {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            )
        return blocks

    def stream(self, reply: Reply) -> Answer:
        events: list[Json] = [
            {"type": "message_start", "message": self._message(reply)},
            {"type": "ping"},
        ]
        for index, block in enumerate(self._blocks(reply)):
            deltas: list[Json] = []
            if block["type"] == "thinking":
                deltas = [
                    {"type": "thinking_delta", "thinking": half}
                    for half in halves(block["thinking"])
                ]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
                block = {"type": "thinking", "thinking": "", "signature": ""}
            elif block["type"] == "text":
                deltas = [{"type": "text_delta", "text": half} for half in halves(block["text"])]
                block = {"type": "text", "text": ""}
            else:
                text = dump(block["input"])
                deltas = [
                    {"type": "input_json_delta", "partial_json": half}
                    for half in ("", *halves(text))
                ]
                block = block | {"input": {}}
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
            events.append({"type": "content_block_stop", "index": index})
        reason = "tool_use" if reply.calls else "end_turn"
        events.append({
            "type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": USAGE_OUT},
        })  # fmt: skip
        events.append({"type": "message_stop"})
        return server_sent(events, named=True)

    def seen(self, body: Json) -> Seen:
        system = body.get("system", "")
        seen = Seen(tools=[tool["name"] for tool in body.get("tools", [])])
        seen.system = system if isinstance(system, str) else "".join(b["text"] for b in system)
        seen.thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
        for message in body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for block in blocks:
                kind = block["type"]
                if kind == "text":
                    seen.said.append(block["text"])
                elif kind == "image":
                    seen.image = base64.b64decode(block["source"]["data"])
                elif kind == "thinking":
                    seen.thinking += block["thinking"]
                    seen.proofs.append(block["signature"])
                elif kind == "tool_use":
                    seen.calls.append(Call(block["name"], block["input"], block["id"]))
                elif kind == "tool_result":
                    inner = block["content"]
                    text = inner if isinstance(inner, str) else "".join(b["text"] for b in inner)
                    seen.results.append((block["tool_use_id"], text))
        return seen


class Gemini(Vendor):
    kind, model, proves = "gemini", "gemini-3-pro-preview", True
    remembers_thinking = False  # what comes back is the proof on the parts behind the thoughts

    def _parts(self, reply: Reply) -> list[Json]:
        parts: list[Json] = []
        if reply.thinking:
            parts.append({"text": reply.thinking, "thought": True})
        proof = {"thoughtSignature": reply.proof} if reply.proof else {}
        if reply.text:
            parts.append({"text": reply.text} | ({} if reply.calls else proof))
        for index, call in enumerate(reply.calls):
            parts.append(
                {"functionCall": {"name": call.name, "args": call.arguments, "id": call.id}}
                | (proof if index == 0 else {})
            )
        return parts

    def _chunk(self, parts: list[Json], *, last: bool) -> Json:
        candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
        if last:
            candidate["finishReason"] = "STOP"
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": USAGE_IN,
                "candidatesTokenCount": USAGE_OUT,
                "totalTokenCount": USAGE_IN + USAGE_OUT,
            },
            "modelVersion": self.model,
            "responseId": "r1",
        }

    def answer(self, reply: Reply) -> Answer:
        return whole(self._chunk(self._parts(reply), last=True))

    def stream(self, reply: Reply) -> Answer:
        pieces: list[Json] = []
        for part in self._parts(reply):
            if "text" in part:
                first, second = halves(part["text"])
                signature = part.pop("thoughtSignature", None)
                pieces += [part | {"text": first}, part | {"text": second}]
                if signature:
                    pieces[-1]["thoughtSignature"] = signature
            else:
                pieces.append(part)
        chunks = [
            self._chunk([piece], last=index == len(pieces) - 1)
            for index, piece in enumerate(pieces)
        ]
        return server_sent(chunks)

    def seen(self, body: Json) -> Seen:
        seen = Seen()
        for part in body.get("systemInstruction", {}).get("parts", []):
            seen.system += part["text"]
        for tool in body.get("tools", []):
            seen.tools += [f["name"] for f in tool.get("functionDeclarations", [])]
        seen.thinks = "thinkingConfig" in body.get("generationConfig", {})
        for content in body["contents"]:
            for part in content["parts"]:
                if "thoughtSignature" in part:
                    seen.proofs.append(part["thoughtSignature"])
                if part.get("thought"):
                    seen.thinking += part["text"]
                elif "text" in part:
                    seen.said.append(part["text"])
                elif "inlineData" in part:
                    seen.image = base64.b64decode(part["inlineData"]["data"])
                elif "functionCall" in part:
                    call = part["functionCall"]
                    seen.calls.append(Call(call["name"], call["args"], call.get("id", "")))
                elif "functionResponse" in part:
                    result = part["functionResponse"]
                    inner = result["response"]
                    text = inner.get("result", inner.get("output", dump(inner)))
                    seen.results.append((result.get("id") or result["name"], text))
        return seen


class Bedrock(Vendor):
    kind, model, proves = "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", True
    settings = (
        ", region: us-east-1, access_key_id: AKIDEXAMPLE, secret_access_key: not-a-secret-key"
    )

    def _blocks(self, reply: Reply) -> list[Json]:
        blocks: list[Json] = []
        if reply.thinking:
            text = {"text": reply.thinking, "signature": reply.proof}
            blocks.append({"reasoningContent": {"reasoningText": text}})
        if reply.text:
            blocks.append({"text": reply.text})
        for call in reply.calls:
            use = {"toolUseId": call.id, "name": call.name, "input": call.arguments}
            blocks.append({"toolUse": use})
        return blocks

    def _usage(self) -> Json:
        total = USAGE_IN + USAGE_OUT
        return {"inputTokens": USAGE_IN, "outputTokens": USAGE_OUT, "totalTokens": total}

    def _reason(self, reply: Reply) -> str:
        return "tool_use" if reply.calls else "end_turn"

    def answer(self, reply: Reply) -> Answer:
        return whole({
            "output": {"message": {"role": "assistant", "content": self._blocks(reply)}},
            "stopReason": self._reason(reply), "usage": self._usage(),
            "metrics": {"latencyMs": 1},
        })  # fmt: skip

    def stream(self, reply: Reply) -> Answer:
        events: list[tuple[str, Json]] = [("messageStart", {"role": "assistant"})]
        for index, block in enumerate(self._blocks(reply)):
            deltas: list[Json] = []
            if "reasoningContent" in block:
                inner = block["reasoningContent"]["reasoningText"]
                deltas = [{"reasoningContent": {"text": half}} for half in halves(inner["text"])]
                deltas.append({"reasoningContent": {"signature": inner["signature"]}})
            elif "text" in block:
                deltas = [{"text": half} for half in halves(block["text"])]
            else:
                use = dict(block["toolUse"])
                text = dump(use.pop("input"))
                start = {"contentBlockIndex": index, "start": {"toolUse": use}}
                events.append(("contentBlockStart", start))
                deltas = [{"toolUse": {"input": half}} for half in halves(text)]
            events += [
                ("contentBlockDelta", {"contentBlockIndex": index, "delta": d}) for d in deltas
            ]
            events.append(("contentBlockStop", {"contentBlockIndex": index}))
        events.append(("messageStop", {"stopReason": self._reason(reply)}))
        events.append(("metadata", {"usage": self._usage(), "metrics": {"latencyMs": 1}}))
        framed = event_stream("\n".join(json.dumps(event) for event in events))
        return Answer(
            [framed], content_type="application/vnd.amazon.eventstream", framing="chunked", cut=100
        )

    def seen(self, body: Json) -> Seen:
        seen = Seen(system="".join(block.get("text", "") for block in body.get("system", [])))
        for tool in body.get("toolConfig", {}).get("tools", []):
            seen.tools.append(tool["toolSpec"]["name"])
        extra = body.get("additionalModelRequestFields", {})
        seen.thinks = extra.get("thinking", {}).get("type") in ("enabled", "adaptive")
        for message in body["messages"]:
            for block in message["content"]:
                if "text" in block:
                    seen.said.append(block["text"])
                elif "image" in block:
                    seen.image = base64.b64decode(block["image"]["source"]["bytes"])
                elif "reasoningContent" in block:
                    inner = block["reasoningContent"]["reasoningText"]
                    seen.thinking += inner["text"]
                    seen.proofs.append(inner["signature"])
                elif "toolUse" in block:
                    use = block["toolUse"]
                    seen.calls.append(Call(use["name"], use["input"], use["toolUseId"]))
                elif "toolResult" in block:
                    result = block["toolResult"]
                    text = "".join(
                        part["text"] if "text" in part else dump(part["json"])
                        for part in result["content"]
                    )
                    seen.results.append((result["toolUseId"], text))
        return seen


class Cohere(Vendor):
    kind, model = "cohere", "command-a-reasoning-08-2025"

    def _usage(self) -> Json:
        tokens = {"input_tokens": USAGE_IN, "output_tokens": USAGE_OUT}
        return {"billed_units": tokens, "tokens": tokens}

    def _reason(self, reply: Reply) -> str:
        return "TOOL_CALL" if reply.calls else "COMPLETE"

    def _call(self, call: Call) -> Json:
        function = {"name": call.name, "arguments": dump(call.arguments)}
        return {"id": call.id, "type": "function", "function": function}

    def answer(self, reply: Reply) -> Answer:
        content: list[Json] = []
        if reply.thinking:
            content.append({"type": "thinking", "thinking": reply.thinking})
        if reply.text:
            content.append({"type": "text", "text": reply.text})
        message: Json = {"role": "assistant"}
        if content:
            message["content"] = content
        if reply.calls:
            message["tool_calls"] = [self._call(call) for call in reply.calls]
        return whole({
            "id": "c1", "message": message, "finish_reason": self._reason(reply),
            "usage": self._usage(),
        })  # fmt: skip

    def stream(self, reply: Reply) -> Answer:
        events: list[Json] = [{
            "type": "message-start", "id": "c1",
            "delta": {"message": {"role": "assistant", "content": [], "tool_calls": []}},
        }]  # fmt: skip
        index = 0
        for kind, text in (("thinking", reply.thinking), ("text", reply.text)):
            if not text:
                continue
            for name, content in (
                ("content-start", {"type": kind, kind: ""}),
                *(("content-delta", {kind: half}) for half in halves(text)),
            ):
                events.append(
                    {"type": name, "index": index, "delta": {"message": {"content": content}}}
                )
            events.append({"type": "content-end", "index": index})
            index += 1
        for number, call in enumerate(reply.calls):
            wire = self._call(call)
            text = wire["function"]["arguments"]
            wire["function"]["arguments"] = ""
            events.append({
                "type": "tool-call-start", "index": number,
                "delta": {"message": {"tool_calls": wire}},
            })  # fmt: skip
            for half in halves(text):
                inner = {"tool_calls": {"function": {"arguments": half}}}
                delta = {"message": inner}
                events.append({"type": "tool-call-delta", "index": number, "delta": delta})
            events.append({"type": "tool-call-end", "index": number})
        events.append({
            "type": "message-end",
            "delta": {"finish_reason": self._reason(reply), "usage": self._usage()},
        })  # fmt: skip
        return server_sent(events, named=True)

    def seen(self, body: Json) -> Seen:
        seen = Seen(tools=[tool["function"]["name"] for tool in body.get("tools", [])])
        seen.thinks = body.get("thinking", {}).get("type") == "enabled"
        for message in body["messages"]:
            content = message.get("content")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts or []:
                if part["type"] == "image_url":
                    seen.image = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                elif part["type"] == "thinking":
                    seen.thinking += part["thinking"]
                elif message["role"] == "system":
                    seen.system += part["text"]
                elif message["role"] == "tool":
                    text = part["text"] if "text" in part else part["document"]["data"]
                    seen.results.append((message["tool_call_id"], text))
                else:
                    seen.said.append(part["text"])
            for call in message.get("tool_calls", []):
                function = call["function"]
                seen.calls.append(
                    Call(function["name"], json.loads(function["arguments"]), call["id"])
                )
        return seen


class Ollama(Vendor):
    kind, model, has_ids = "ollama", "qwen3:8b", False

    def _line(self, message: Json, **last: Any) -> Json:
        return {
            "model": self.model, "created_at": "2026-01-02T03:04:05.678901234Z",
            "message": {"role": "assistant", "content": ""} | message, "done": bool(last), **last,
        }  # fmt: skip

    def _end(self) -> Json:
        return {
            "done_reason": "stop", "total_duration": 5, "load_duration": 1,
            "prompt_eval_count": USAGE_IN, "prompt_eval_duration": 1,
            "eval_count": USAGE_OUT, "eval_duration": 3,
        }  # fmt: skip

    def _calls(self, reply: Reply) -> list[Json]:
        return [
            {"function": {"name": call.name, "arguments": call.arguments}} for call in reply.calls
        ]

    def answer(self, reply: Reply) -> Answer:
        message: Json = {"content": reply.text}
        if reply.thinking:
            message["thinking"] = reply.thinking
        if reply.calls:
            message["tool_calls"] = self._calls(reply)
        return whole(self._line(message, **self._end()) | {"done": True})

    def stream(self, reply: Reply) -> Answer:
        lines = [self._line({"thinking": half}) for half in halves(reply.thinking) if half]
        lines += [self._line({"content": half}) for half in halves(reply.text) if half]
        lines += [self._line({"tool_calls": [call]}) for call in self._calls(reply)]
        lines.append(self._line({}, **self._end()) | {"done": True})
        pieces = [dump(line).encode() + b"\n" for line in lines]
        return Answer(pieces, content_type="application/x-ndjson", framing="chunked")

    def seen(self, body: Json) -> Seen:
        seen = Seen(tools=[tool["function"]["name"] for tool in body.get("tools", [])])
        seen.thinks = bool(body.get("think"))
        for message in body["messages"]:
            text = message.get("content", "")
            if message["role"] == "system":
                seen.system += text
            elif message["role"] == "tool":
                seen.results.append((message["tool_name"], text))
            elif text:
                seen.said.append(text)
            for image in message.get("images", []):
                seen.image = base64.b64decode(image)
            seen.thinking += message.get("thinking", "")
            for call in message.get("tool_calls", []):
                seen.calls.append(Call(call["function"]["name"], call["function"]["arguments"]))
        return seen


class Responses(Vendor):
    kind, model, path, proves = "openai_responses", "gpt-5.4", "/v1", True

    def _items(self, reply: Reply) -> list[Json]:
        items: list[Json] = []
        if reply.thinking:
            items.append({
                "type": "reasoning", "id": "rs_1", "encrypted_content": reply.proof,
                "summary": [{"type": "summary_text", "text": reply.thinking}],
            })  # fmt: skip
        if reply.text:
            text = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
            items.append({
                "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                "content": [text],
            })  # fmt: skip
        for index, call in enumerate(reply.calls):
            items.append({
                "type": "function_call", "id": f"fc_{index}", "call_id": call.id,
                "name": call.name, "arguments": dump(call.arguments), "status": "completed",
            })  # fmt: skip
        return items

    def _response(self, status: str, items: list[Json]) -> Json:
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "status": status,
            "error": None, "incomplete_details": None, "model": self.model, "output": items,
            "usage": {
                "input_tokens": USAGE_IN, "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": USAGE_OUT, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": USAGE_IN + USAGE_OUT,
            } if status == "completed" else None,
        }  # fmt: skip

    def answer(self, reply: Reply) -> Answer:
        return whole(self._response("completed", self._items(reply)))

    def stream(self, reply: Reply) -> Answer:
        items = self._items(reply)
        events: list[Json] = [
            {"type": "response.created", "response": self._response("in_progress", [])},
            {"type": "response.in_progress", "response": self._response("in_progress", [])},
        ]
        for index, item in enumerate(items):
            at = {"output_index": index, "item_id": item["id"]}
            if item["type"] == "reasoning":
                start = item | {"summary": [], "encrypted_content": ""}
                events.append(
                    {"type": "response.output_item.added", "output_index": index, "item": start}
                )
                at["summary_index"] = 0
                text = item["summary"][0]["text"]
                part = {"type": "summary_text", "text": ""}
                kind = "response.reasoning_summary"
                events.append({"type": f"{kind}_part.added", **at, "part": part})
                events += [
                    {"type": f"{kind}_text.delta", **at, "delta": half} for half in halves(text)
                ]
                events.append({"type": f"{kind}_text.done", **at, "text": text})
                events.append({"type": f"{kind}_part.done", **at, "part": part | {"text": text}})
            elif item["type"] == "message":
                start = item | {"content": [], "status": "in_progress"}
                events.append(
                    {"type": "response.output_item.added", "output_index": index, "item": start}
                )
                at["content_index"] = 0
                full = item["content"][0]
                empty = full | {"text": ""}
                events.append({"type": "response.content_part.added", **at, "part": empty})
                events += [
                    {"type": "response.output_text.delta", **at, "delta": half, "logprobs": []}
                    for half in halves(full["text"])
                ]
                events.append(
                    {
                        "type": "response.output_text.done",
                        **at,
                        "text": full["text"],
                        "logprobs": [],
                    }
                )
                events.append({"type": "response.content_part.done", **at, "part": full})
            else:
                start = item | {"arguments": "", "status": "in_progress"}
                events.append(
                    {"type": "response.output_item.added", "output_index": index, "item": start}
                )
                kind = "response.function_call_arguments"
                events += [
                    {"type": f"{kind}.delta", **at, "delta": half}
                    for half in halves(item["arguments"])
                ]
                events.append({"type": f"{kind}.done", **at, "arguments": item["arguments"]})
            events.append(
                {"type": "response.output_item.done", "output_index": index, "item": item}
            )
        final = self._response("completed", items)
        events.append({"type": "response.completed", "response": final})
        numbered = [event | {"sequence_number": n} for n, event in enumerate(events)]
        return server_sent(numbered, named=True)

    def seen(self, body: Json) -> Seen:
        seen = Seen(system=body.get("instructions") or "")
        seen.tools = [tool["name"] for tool in body.get("tools", [])]
        seen.thinks = "reasoning" in body
        given = body["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        for item in items:
            kind = item.get("type", "message")
            if kind == "message":
                content = item["content"]
                parts = [{"text": content}] if isinstance(content, str) else content
                for part in parts:
                    if part.get("type") == "input_image":
                        seen.image = base64.b64decode(part["image_url"].partition(",")[2])
                    elif item["role"] in ("system", "developer"):
                        seen.system += part["text"]
                    else:
                        seen.said.append(part["text"])
            elif kind == "reasoning":
                seen.thinking += "".join(part["text"] for part in item["summary"])
                seen.proofs.append(item["encrypted_content"])
            elif kind == "function_call":
                call = Call(item["name"], json.loads(item["arguments"]), item["call_id"])
                seen.calls.append(call)
            elif kind == "function_call_output":
                output = item["output"]
                text = output if isinstance(output, str) else "".join(p["text"] for p in output)
                seen.results.append((item["call_id"], text))
        return seen


VENDORS: list[Vendor] = [
    OpenAI(), Anthropic(), Gemini(), Bedrock(), Cohere(), Ollama(), Responses(),
]  # fmt: skip
