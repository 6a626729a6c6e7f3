"""The keys that a provider's settings give, and what goes with a call that takes one of them."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.upstream import FakeUpstream, answer
from headgate.core import CallContext
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.config import Provider
from headgate_server.credentials import authorizer
from headgate_server.providers import (
    dialect_of,
    endpoint_of,
    keyring_of,
    kinds,
    secrets_of,
    vendor_of,
)
from headgate_server.providers.base import Target, Timeouts
from headgate_server.providers.runtime import HttpProvider
from headgate_server.providers.vendors import family_of
from headgate_server.upstream import Upstream

TWO = [{"key": "first-key"}, {"key": "second-key", "name": "spare", "weight": 3}]
NEEDED: dict[str, Any] = {"region": "us-east-1", "project": "p", "base_url": "https://v.example"}


def provider(kind: str, **settings: Any) -> Provider:
    return Provider.model_validate({"kind": kind, **settings})


def found(settings: Provider) -> list[tuple[str, float, str]]:
    """Name, weight and the header that authenticates, of each key."""
    keyring = keyring_of(settings, vendor_of(settings.kind, settings.base_url))
    if keyring is None:
        return []
    return [
        (key.name, key.weight, *_credentials(dict(key.endpoint.headers))) for key in keyring.keys
    ]


def _credentials(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items() if "key" in value]


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("openai", "authorization: Bearer "),
        ("openai_responses", "authorization: Bearer "),
        ("azure", "api-key: "),
        ("anthropic", "x-api-key: "),
        ("gemini", "x-goog-api-key: "),
        ("vertex", "x-goog-api-key: "),
        ("bedrock", "authorization: Bearer "),
        ("cohere", "authorization: Bearer "),
        ("ollama", "authorization: Bearer "),
        ("groq", "authorization: Bearer "),
    ],
)
def test_where_the_keys_go(kind: str, header: str) -> None:
    several = provider(kind, api_keys=TWO, **NEEDED)
    assert found(several) == [
        ("key-1", 1.0, header + "first-key"),
        ("spare", 3.0, header + "second-key"),
    ]
    assert found(provider(kind, api_key="lone-key", **NEEDED)) == [
        ("key", 1.0, header + "lone-key")
    ]
    # A check of the configuration, and whatever else is told of no key, takes the first.
    first = endpoint_of(several, vendor_of(kind, several.base_url))
    assert _credentials(dict(first.headers)) == [header + "first-key"]
    assert authorizer(several, vendor_of(kind, several.base_url)) is None


@pytest.mark.parametrize(
    "settings",
    [
        provider("local"),
        provider("bedrock", region="us-east-1"),
        provider("bedrock", region="us-east-1", access_key_id="A", secret_access_key="the-key"),
        provider("vertex", region="europe-west1", project="p"),
        provider("azure", base_url="https://v.example", bearer_token="a-token"),
        provider("headgate", base_url="http://127.0.0.1:1", api_key="its-key"),
        provider("openai", base_url="http://127.0.0.1:1/v1"),
        provider("ollama"),
    ],
    ids=lambda settings: settings.kind,
)
def test_none_of_the_configuration_goes_there(settings: Provider) -> None:
    assert found(settings) == []


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_no_repr_shows_a_key(kind: str) -> None:
    keyring = keyring_of(provider(kind, api_keys=TWO, **NEEDED), vendor_of(kind, "https://v"))
    for key in keyring.keys if keyring is not None else ():
        assert "first-key" not in repr(key)
        assert "second-key" not in repr(key)


def test_all_secrets_are_known() -> None:
    settings = provider(
        "bedrock",
        api_key="a",
        api_keys=TWO,
        bearer_token="b",
        secret_access_key="c",
        session_token="d",
        headers={"X-One": "e"},
    )
    assert set(secrets_of(settings)) == {"a", "b", "c", "d", "e", "first-key", "second-key"}
    assert secrets_of(provider("local")) == ()


async def test_whatever_is_asked_goes_with_the_key_given() -> None:
    """Whole answers, streams and counts; without one, with the endpoint's own."""
    request = chat_pb2.ChatRequest(
        model="m",
        messages=[
            content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Hi")])
        ],
    )
    async with FakeUpstream() as up:
        settings = provider("anthropic", base_url=up.origin, api_keys=TWO)
        vendor = vendor_of("anthropic", None)
        keyring = keyring_of(settings, vendor)
        assert keyring is not None
        endpoint = endpoint_of(settings, vendor)
        asked = HttpProvider(
            "p",
            "anthropic",
            vendor,
            dialect_of("anthropic", vendor, 1 << 20),
            Upstream("p", Timeouts()),
            lambda: endpoint,
            keyring=keyring,
        )
        target = Target("p", "anthropic", "claude-haiku-4-5", vendor, family_of("claude-haiku-4-5"))
        whole = {
            "id": "1",
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": "end_turn",
        }
        event = b'data: {"type": "error", "error": {"type": "api_error", "message": "x"}}\n\n'
        expected = []
        for key in (*keyring.keys, None, *keyring.keys):
            up.script(
                answer(whole),
                answer({"input_tokens": 3}),
                answer(event, content_type="text/event-stream"),
            )
            await asked.complete(request, target, CallContext(), key)
            counted = await asked.count_tokens(request, target, CallContext(), key)
            assert counted is not None
            assert counted.input_tokens == 3
            with pytest.raises(Exception, match="x"):
                await anext(asked.stream(request, target, CallContext(), key))
            expected += [(key or keyring.keys[0]).endpoint.headers["x-api-key"]] * 3
        assert [each.headers["x-api-key"] for each in up.requests] == expected
        assert up.connections == 1
        assert sorted(set(expected)) == ["first-key", "second-key"]
        await asked.upstream.close()
