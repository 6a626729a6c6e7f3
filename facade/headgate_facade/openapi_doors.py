"""The other doors in the OpenAPI document: their paths, bodies and failures.

Bodies come from the structs that decode them. Answers are described by their vendors, whose pages are
named here, and held to those vendors' SDKs by the conformance tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from headgate.wire import EXTRA_SLOT
from headgate_facade.anthropic import wire as anthropic
from headgate_facade.gemini import wire as gemini
from headgate_facade.openai import completions_wire as completions
from headgate_facade.responses import wire as responses

Json = dict[str, Any]
_REF = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class _Operation:
    """One POST.

    Attributes:
        prefix: of the names of its components, since vendors use the same words.
        streams: the content type of its streams; empty if it has none.
    """

    path: str
    id: str
    summary: str
    tag: str
    body: type
    prefix: str
    page: str
    streams: str = "text/event-stream"


_GEMINI = "https://ai.google.dev/api/generate-content"
_OPERATIONS = (
    _Operation(
        "/v1/responses", "create_response", "Create a response (OpenAI)", "responses",
        responses.ResponsesBody, "Responses",
        "https://platform.openai.com/docs/api-reference/responses/create",
    ),
    _Operation(
        "/v1/completions", "create_completion", "Complete a bare text (OpenAI, legacy)",
        "completions", completions.CompletionBody, "Completions",
        "https://platform.openai.com/docs/api-reference/completions/create",
    ),
    _Operation(
        "/v1/messages", "create_message", "Create a message (Anthropic)", "messages",
        anthropic.Body, "Messages", "https://docs.claude.com/en/api/messages",
    ),
    _Operation(
        "/v1/messages/count_tokens", "count_message_tokens", "Count tokens (Anthropic)",
        "messages", anthropic.Body, "Messages",
        "https://docs.claude.com/en/api/messages-count-tokens", streams="",
    ),
    _Operation(
        "/v1beta/models/{model}:generateContent", "generate_content",
        "Generate content (Gemini)", "gemini", gemini.GenerateBody, "Gemini", _GEMINI, streams="",
    ),
    _Operation(
        "/v1beta/models/{model}:streamGenerateContent", "stream_generate_content",
        "Generate content as a stream (Gemini)", "gemini", gemini.GenerateBody, "Gemini", _GEMINI,
    ),
    _Operation(
        "/v1beta/models/{model}:countTokens", "count_tokens", "Count tokens (Gemini)", "gemini",
        gemini.CountBody, "Gemini", "https://ai.google.dev/api/tokens", streams="",
    ),
)  # fmt: skip


def add_doors(document: Json, statuses: dict[str, str]) -> None:
    """Adds their paths behind those that are there.

    Args:
        document: the OpenAPI document.
        statuses: what each status of a failure means.
    """
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for operation in _OPERATIONS:
        template = f"{_REF}{operation.prefix}{{name}}"
        (body,), found = msgspec.json.schema_components([operation.body], ref_template=template)
        for name, schema in found.items():
            if schema.get("properties", {}).pop(EXTRA_SLOT, None) is not None:
                schema["additionalProperties"] = True
            components[operation.prefix + name] = schema
        document["paths"][operation.path] = {"post": _post(operation, body, statuses)}


def _post(operation: _Operation, body: Json, statuses: dict[str, str]) -> Json:
    answers: Json = {"application/json": {"schema": {"type": ["object", "array"]}}}
    if operation.streams:
        answers[operation.streams] = {"schema": {"type": "string"}}
    post: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": f"Any model, in the form of {operation.page}",
        "tags": [operation.tag],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": f"As {operation.page} says.", "content": answers},
            **{status: _failure(text) for status, text in statuses.items()},
        },
    }
    if "{model}" in operation.path:
        post["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return post


def _failure(text: str) -> Json:
    content = {"application/json": {"schema": {"type": "object", "required": ["error"]}}}
    return {"description": f"{text} In the vendor's own envelope.", "content": content}
