"""The OpenAPI document of the routes that FastAPI cannot describe by itself.

The chat route is a plain ASGI app for speed; its schema comes from the structs that decode its body, so
what /docs says is what is enforced.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from headgate.wire import EXTRA_SLOT

from headgate_facade.openai import wire

_REF = "#/components/schemas/{name}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_STATUSES = {
    "400": "A field is wrong (`param` names it), the prompt is too long, or a filter refused it.",
    "401": "The key is missing or unknown.",
    "403": "The key does not allow this.",
    "404": "No such model, or none that this key may use.",
    "413": "The body is larger than the limit.",
    "429": "A rate limit or quota is reached; see Retry-After.",
    "502": "The upstream refused the gateway's credentials or spoke nonsense.",
    "503": "The upstream cannot be reached or is overloaded; see Retry-After.",
    "504": "The upstream took too long.",
}


def install(app: FastAPI) -> None:
    """Makes `app.openapi()` describe all routes."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            _add_chat(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_chat(document: dict[str, Any]) -> None:
    (reference,), components = msgspec.json.schema_components([wire.ChatBody], ref_template=_REF)
    (tool, choice), more = msgspec.json.schema_components(
        [wire.FunctionTool, wire.NamedToolChoice], ref_template=_REF
    )
    components.update(more)
    for schema in components.values():
        _open_slots(schema)
    body = components["ChatBody"]["properties"]
    # Raw in the struct, because vendors' own kinds pass through; these are the common forms.
    body["tools"] = {"anyOf": [{"type": "array", "items": tool}, {"type": "null"}]}
    body["tool_choice"] = {
        "anyOf": [{"enum": ["none", "auto", "required"]}, choice, {"type": "null"}]
    }
    body["function_call"] = {
        "anyOf": [{"enum": ["none", "auto"]}, {"$ref": _REF.format(name="NamedFunction")},
                  {"type": "null"}]
    }  # fmt: skip
    components["NamedToolChoice"]["properties"]["type"] = {"const": "function"}
    components["FunctionTool"]["properties"]["type"] = {"const": "function"}
    nullable_object = {"type": ["object", "null"]}
    body["thinking"] = nullable_object
    components["Function"]["properties"]["parameters"] = nullable_object
    components["JsonSchema"]["properties"]["schema"] = nullable_object
    components["AudioOptions"]["properties"]["voice"] = {"type": ["string", "object"]}
    components["Error"] = _ERROR
    components["ChatCompletion"] = {
        "type": "object",
        "description": "OpenAI's chat completion object.",
        "required": ["id", "object", "created", "model", "choices"],
    }
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    error_ref = {"$ref": _REF.format(name="Error")}
    responses: dict[str, Any] = {
        "200": {
            "description": "The completion; or, with `stream`, its chunks as server-sent events.",
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(name="ChatCompletion")}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    }
    for status, description in _STATUSES.items():
        responses[status] = {
            "description": description,
            "content": {"application/json": {"schema": error_ref}},
        }
    document["paths"]["/v1/chat/completions"] = {
        "post": {
            "operationId": "create_chat_completion",
            "summary": "Create a chat completion",
            "tags": ["chat"],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference}},
            },
            "responses": responses,
        }
    }
    schemes = document["components"].setdefault("securitySchemes", {})
    schemes["key"] = {"type": "http", "scheme": "bearer"}
    document["security"] = [{"key": []}, {}]


def _open_slots(schema: dict[str, Any]) -> None:
    """A struct with an extra slot takes unknown members; the slot itself is nobody's business."""
    if schema.get("properties", {}).pop(EXTRA_SLOT, None) is not None:
        schema["additionalProperties"] = True
