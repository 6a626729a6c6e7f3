"""What the requests of all dialects have in common, whatever they look like.

The OpenAI dialect is not here: its vendors are too many to know what each of them refuses.
"""

from __future__ import annotations

import pytest

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers import dialect_of, vendor_of
from headgate_server.providers.base import Endpoint, Target
from headgate_server.providers.vendors import family_of, vendors

MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "cohere": "command-a-vision-07-2025",
    "gemini": "gemini-3-pro-preview",
    "ollama": "qwen3-vl:8b",
    "openai_responses": "gpt-5-pro",
    "vertex": "gemini-3-pro-preview",
}
Part = content_pb2.Part
EMPTY = Part(text="")


def encode(kind: str, *messages: content_pb2.Message) -> str:
    vendor, model = vendor_of(kind, None), MODELS[kind]
    target = Target(provider=kind, kind=kind, model=model, vendor=vendor, family=family_of(model))
    request = chat_pb2.ChatRequest(model="m", messages=messages)
    endpoint = Endpoint("https://v.example", {}, region="us-east-1", project="p")
    return (
        dialect_of(kind, vendor, 1 << 20)
        .encode(request, target, endpoint, stream=False)
        .body.decode()
    )


def message(role: content_pb2.Role.ValueType, *parts: Part) -> content_pb2.Message:
    return content_pb2.Message(role=role, parts=parts)


def user(*parts: Part) -> content_pb2.Message:
    return message(content_pb2.ROLE_USER, *parts)


HI = user(Part(text="Hi"))


def test_no_dialect_is_missing() -> None:
    spoken = {vendors()[kind].dialect for kind in MODELS}
    assert spoken == {vendor.dialect for vendor in vendors().values()} - {"openai", "headgate"}


@pytest.mark.parametrize("kind", MODELS)
def test_empty_texts_beside_other_parts_stay_here(kind: str) -> None:
    call = Part(tool_call=content_pb2.ToolCall(id="c", name="f", arguments_json="{}"))
    result = content_pb2.ToolResult(tool_call_id="c", name="f", parts=[EMPTY, Part(text="ok")])
    body = encode(
        kind,
        message(content_pb2.ROLE_SYSTEM, EMPTY, Part(text="Be brief.")),
        user(EMPTY, Part(text="Hi"), EMPTY),
        message(content_pb2.ROLE_ASSISTANT, Part(text="Let me look."), EMPTY, call, EMPTY),
        message(content_pb2.ROLE_TOOL, Part(tool_result=result)),
        user(Part(text="And?"), EMPTY),
    )
    for text in ("Be brief.", "Hi", "Let me look.", "ok", "And?"):
        assert f'"{text}"' in body
    assert '""' not in body


@pytest.mark.parametrize("kind", MODELS)
def test_a_message_of_empty_texts_does_not_stop_anybody(kind: str) -> None:
    alone = encode(kind, HI, message(content_pb2.ROLE_ASSISTANT, EMPTY), user(EMPTY))
    many = encode(
        kind, HI, message(content_pb2.ROLE_ASSISTANT, EMPTY, EMPTY), user(EMPTY, EMPTY, EMPTY)
    )
    assert many == alone


# Which clouds' storage a dialect reads.
CLOUDS = {"bedrock": "s3://b/c.png", "gemini": "gs://b/c.png", "vertex": "gs://b/c.png"}


@pytest.mark.parametrize("url", ["s3://b/c.png", "gs://b/c.png"])
@pytest.mark.parametrize("kind", MODELS)
def test_urls_into_the_storage_of_other_clouds_are_refused(kind: str, url: str) -> None:
    asked = user(Part(text="What is it?"), Part(image=content_pb2.Media(url=url)))
    if CLOUDS.get(kind) == url:
        assert url in encode(kind, asked)
        return
    with pytest.raises(InvalidRequest) as caught:
        encode(kind, asked)
    (violation,) = caught.value.violations
    assert violation.field in ("messages[0].parts[1].image.url", "messages[0].parts[1].image")
    assert "data" in violation.description
