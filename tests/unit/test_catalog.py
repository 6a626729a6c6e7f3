"""What is known about models, and content that they are known not to take."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2, model_service_pb2
from headgate_server.catalog import MODALITIES, check_content, describe
from headgate_server.config import ModelRoute
from headgate_server.providers.base import Target
from headgate_server.providers.vendors import Vendor, family_of
from headgate_server.routing import Candidate, Route

TEXT, IMAGE = model_service_pb2.MODALITY_TEXT, model_service_pb2.MODALITY_IMAGE


def target(model: str, provider: str = "p") -> Target:
    return Target(provider, "openai", model, Vendor(name="Acme"), family_of(model))


def route(name: str, *targets: Target, settings: ModelRoute | None = None) -> Route:
    nothing = cast("Any", None)
    return Route(name, [Candidate(each, nothing, nothing) for each in targets], settings)


def model(name: str, **catalog: Any) -> model_service_pb2.Model:
    settings = ModelRoute.model_validate({"targets": [{"provider": "p"}], "catalog": catalog})
    return describe(route(name, target(name), settings=settings))


def test_facts_of_the_family() -> None:
    found = describe(route("o3", target("o3"), target("x", "q"), target("y")))
    assert (found.id, found.family, list(found.providers)) == ("o3", "o3", ["p", "q"])
    assert list(found.input_modalities) == [TEXT, IMAGE]
    assert list(found.output_modalities) == [TEXT]
    assert (found.context_window_tokens, found.max_output_tokens) == (200_000, 100_000)
    assert (found.tools, found.structured_output, found.reasoning) == (True, True, True)
    assert found.create_time.seconds > 1_600_000_000


def test_nothing_is_claimed_of_an_unknown_model() -> None:
    named = {field.name for field, _ in describe(route("x", target("x"))).ListFields()}
    assert named == {"id", "create_time", "providers"}


def test_the_configuration_wins() -> None:
    found = model(
        "o3", input=["text"], output=["text", "audio"], context_window=10, max_output_tokens=5,
        tools=False, structured_output=False, reasoning=False, family="mine",
    )  # fmt: skip
    assert list(found.input_modalities) == [TEXT]
    assert list(found.output_modalities) == [TEXT, model_service_pb2.MODALITY_AUDIO]
    assert (found.context_window_tokens, found.max_output_tokens) == (10, 5)
    assert (found.tools, found.structured_output, found.reasoning) == (False, False, False)
    assert found.HasField("tools")
    assert found.family == "mine"


def test_an_override_may_say_that_nothing_is_known() -> None:
    assert not model("o3", input=[]).input_modalities


def test_every_modality_has_a_name() -> None:
    numbers = set(model_service_pb2.Modality.values()) - {0}
    assert set(MODALITIES.values()) == numbers


MEDIA = content_pb2.Media(url="https://a.example/b")
PARTS = {
    "text": content_pb2.Part(text="x"),
    "image": content_pb2.Part(image=MEDIA),
    "audio": content_pb2.Part(audio=MEDIA),
    "file": content_pb2.Part(file=MEDIA),
}


def request(*parts: content_pb2.Part, role: int = content_pb2.ROLE_USER) -> chat_pb2.ChatRequest:
    message = content_pb2.Message(role=role, parts=parts)  # type: ignore[arg-type]
    return chat_pb2.ChatRequest(model="m", messages=[message])


@pytest.mark.parametrize(
    ("reads", "refused"),
    [
        ([], set()),
        (["text"], {"image", "audio", "file"}),
        (["text", "image"], {"audio"}),
        (["text", "file"], {"image", "audio"}),
        (["text", "audio"], {"image", "file"}),
        (["text", "image", "audio"], set()),
    ],
)
def test_content(reads: list[str], refused: set[str]) -> None:
    known = model("m", input=reads)
    for kind, part in PARTS.items():
        if kind not in refused:
            check_content(request(part), known)
            continue
        with pytest.raises(InvalidRequest, match=f"takes no {kind} input") as caught:
            check_content(request(PARTS["text"], part), known)
        assert [v.field for v in caught.value.violations] == ["messages[0].parts[1]"]


def test_content_inside_tool_results() -> None:
    result = content_pb2.ToolResult(tool_call_id="a", parts=[PARTS["text"], PARTS["image"]])
    found = request(content_pb2.Part(tool_result=result), role=content_pb2.ROLE_TOOL)
    check_content(found, model("m", input=["text", "image"]))
    with pytest.raises(InvalidRequest) as caught:
        check_content(found, model("m", input=["text"]))
    (violation,) = caught.value.violations
    assert violation.field == "messages[0].parts[0].tool_result.parts[1]"
