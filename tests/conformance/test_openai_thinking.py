"""Thinking of other APIs' models through the stock `openai` SDK: its proofs survive a second turn.

The core answers as its providers of other dialects do; what counts here is what an SDK makes of it, and
what the core gets back when the SDK's own message goes into the history.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import pytest
from google.protobuf import json_format

from conformance.conftest import HELLO, Sdk, Site
from fakes.upstream import answer, chunks, completion, sse, tool_call
from headgate.core import CallContext, EventStream
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.core import Core

CALL = {"tool_call": {"id": "call_1", "name": "f", "arguments_json": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "1"}
# Provider dialect, and its answer's parts.
ANSWERS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "claude": (
        "anthropic",
        [
            {"reasoning": {"text": "hm", "signature": "EqQB=="}},
            {"reasoning": {"encrypted": "Eo8C=="}},
            {"text": "Let me look."},
            CALL,
        ],
    ),
    "responses": (
        "openai_responses",
        [{"reasoning": {"text": "**Hm**", "encrypted": "gAAA", "id": "rs_1"}}, CALL],
    ),
    "gemini": (
        "gemini",
        [{"reasoning": {"text": "hm"}}, {**CALL, "thought_signature": "CiQB+/="}],
    ),
    "blocks": (
        "anthropic",
        [
            {"vendor_part": {"dialect": "anthropic", "json": '{"type":"x"}'}},
            {"text": "So."},
            {"image": {"url": "https://a.example/b.png"}},
            CALL,
        ],
    ),
}


def parts_of(name: str) -> list[content_pb2.Part]:
    return [json_format.ParseDict(part, content_pb2.Part()) for part in ANSWERS[name][1]]


class ScriptedCore(Core):
    """Answers with one of the answers, and keeps what it was asked."""

    name: ClassVar[str]
    asked: ClassVar[list[chat_pb2.ChatRequest]]

    async def chat_complete(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> chat_pb2.ChatResponse:
        ScriptedCore.asked.append(request)
        response = chat_pb2.ChatResponse(id="c", model="m")
        response.create_time.seconds = 1
        response.served.CopyFrom(_served())
        choice = response.choices.add(finish_reason=chat_pb2.FINISH_REASON_TOOL_CALLS)
        choice.message.role = content_pb2.ROLE_ASSISTANT
        choice.message.parts.extend(parts_of(ScriptedCore.name))
        return response

    def chat_stream(self, request: chat_pb2.ChatRequest, context: CallContext) -> EventStream:
        ScriptedCore.asked.append(request)
        return EventStream(_events())


def _served() -> chat_pb2.Served:
    dialect = ANSWERS[ScriptedCore.name][0]
    return chat_pb2.Served(provider="p", model="m", attempts=1, dialect=dialect)


async def _events() -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
    started = chat_pb2.Started(id="c", model="m", served=_served())
    started.create_time.seconds = 1
    yield [chat_pb2.ChatEvent(started=started)]
    for place, part in enumerate(parts_of(ScriptedCore.name)):
        rest = content_pb2.Part()
        if part.HasField("reasoning"):
            rest.CopyFrom(part)
            rest.reasoning.ClearField("text")
            part = content_pb2.Part(reasoning=content_pb2.Reasoning(text=part.reasoning.text))
        yield [
            chat_pb2.ChatEvent(part_started=chat_pb2.PartStarted(part=place, initial=part)),
            chat_pb2.ChatEvent(part_finished=chat_pb2.PartFinished(part=place, rest=rest)),
        ]
    finished = chat_pb2.ChoiceFinished(finish_reason=chat_pb2.FINISH_REASON_TOOL_CALLS)
    yield [chat_pb2.ChatEvent(choice_finished=finished)]
    yield [chat_pb2.ChatEvent(completed=chat_pb2.Completed())]


def script(site: Site, name: str) -> None:
    site.gateway.app.core.__class__ = ScriptedCore
    ScriptedCore.name, ScriptedCore.asked = name, []


def expected(name: str) -> list[content_pb2.Part]:
    parts = parts_of(name)
    for part in parts:
        if part.reasoning.signature or part.reasoning.encrypted:
            part.reasoning.dialect = ANSWERS[name][0]
    return parts


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_second_turn(site: Site, sdk: Sdk, name: str) -> None:
    script(site, name)
    message = (await sdk.create()).choices[0].message
    await sdk.create([*HELLO, message, RESULT])
    said = ScriptedCore.asked[1].messages[1]
    assert list(said.parts) == expected(name)
    assert not said.extra_json


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_second_turn_behind_a_stream(site: Site, sdk: Sdk, name: str) -> None:
    script(site, name)
    _, final = await sdk.events()
    await sdk.create([*HELLO, final.choices[0].message, RESULT])
    said = ScriptedCore.asked[1].messages[1]
    assert [part for part in said.parts if not part.HasField("text") or part.text] == expected(name)


async def test_what_the_caller_sees(site: Site, sdk: Sdk) -> None:
    script(site, "claude")
    message = (await sdk.create()).choices[0].message
    assert (message.content, message.reasoning_content) == ("Let me look.", "hm")
    assert [d["type"] for d in message.reasoning_details] == [
        "reasoning.text",
        "reasoning.encrypted",
    ]
    script(site, "gemini")
    (call,) = (await sdk.create()).choices[0].message.tool_calls
    assert call.extra_content == {"google": {"thought_signature": "CiQB+/="}}
    script(site, "blocks")
    message = (await sdk.create()).choices[0].message
    assert message.content == "So."
    assert message.vendor_parts == [{"dialect": "anthropic", "json": {"type": "x"}, "index": 0}]
    assert message.images[0]["image_url"]["url"] == "https://a.example/b.png"


# Through a real provider of this dialect.


async def test_openrouters_proofs(site: Site, sdk: Sdk) -> None:
    await site.open_config(
        f'providers: {{up: {{kind: openrouter, base_url: "{site.up.base_url}", api_key: k}}}}\n'
        "models: {m: {targets: [{provider: up, model: anthropic/claude-sonnet-4.5}]}}"
    )
    detail = {
        "type": "reasoning.text", "text": "hm", "format": "anthropic-claude-v1", "index": 0,
        "signature": "EqQB==",
    }  # fmt: skip
    call = tool_call("f", "{}")
    said = {"reasoning": "hm", "reasoning_details": [detail]}
    streamed = chunks([], tool_calls=[call])
    streamed[0]["choices"][0]["delta"] |= {
        "reasoning": "hm", "reasoning_details": [detail | {"signature": None}],
    }  # fmt: skip
    late = {"reasoning_details": [{"type": "reasoning.text", "signature": "EqQB==", "index": 0}]}
    streamed[1]["choices"][0]["delta"] |= late
    site.up.script(answer(completion(None, tool_calls=[call], message=said)))
    whole = (await sdk.create()).choices[0].message
    assert whole.reasoning_details == [detail]
    await sdk.create([*HELLO, whole, RESULT])
    assert site.sent["messages"][1]["reasoning_details"] == [detail]
    site.up.script(sse(streamed))
    _, final = await sdk.events()
    await sdk.create([*HELLO, final.choices[0].message, RESULT])
    assert site.sent["messages"][1]["reasoning_details"] == [detail]


async def test_geminis_compatible_endpoint(site: Site, sdk: Sdk) -> None:
    signed = {"extra_content": {"google": {"thought_signature": "CiQB+/="}}}
    call = tool_call("f", "{}") | signed
    site.up.script(answer(completion("Look.", tool_calls=[call], message=signed)))
    message = (await sdk.create()).choices[0].message
    await sdk.create([*HELLO, message, RESULT])
    said = {"role": "assistant", "content": "Look.", "tool_calls": [call], **signed}
    assert site.sent["messages"][1] == said
    streamed = chunks(["Look."], tool_calls=[call])
    streamed[1]["choices"][0]["delta"] |= signed
    site.up.script(sse(streamed))
    _, final = await sdk.events()
    await sdk.create([*HELLO, final.choices[0].message, RESULT])
    assert site.sent["messages"][1] == said


async def test_thinking_between_tags(site: Site, sdk: Sdk) -> None:
    models = "  q: {targets: [{provider: up, model: qwen3-8b}]}"
    await site.open(models=models)
    site.up.script(
        answer(completion("<think>\nhm\n</think>\n\n4")),
        sse(chunks(["<thi", "nk>\nh", "m\n</th", "ink>\n", "\n4"])),
    )
    message = (await sdk.create(model="q")).choices[0].message
    assert (message.content, message.reasoning_content) == ("4", "hm")
    got = await sdk.chunks(model="q")
    thinking = [getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in got]
    text = [c.choices[0].delta.content or "" for c in got]
    assert ("".join(thinking), "".join(text)) == ("hm", "4")


async def test_a_vendors_parts_and_reasoning_object(site: Site, sdk: Sdk) -> None:
    video = {"type": "video_url", "video_url": {"url": "https://a.example/v.mp4"}}
    message = {"role": "user", "content": [{"type": "text", "text": "What?"}, video]}
    await sdk.create([message], extra_body={"reasoning": {"effort": "low"}})
    assert site.sent["messages"] == [message]
    assert site.sent["reasoning_effort"] == "low"
    await site.open_config(
        f'providers: {{up: {{kind: openrouter, base_url: "{site.up.base_url}", api_key: k}}}}\n'
        "models: {m: {targets: [{provider: up}]}}"
    )
    asked = {"effort": "low", "exclude": True, "context": "all"}
    await sdk.create(extra_body={"reasoning": asked})
    assert site.sent["reasoning"] == asked
