"""The OpenAPI document of the routes that FastAPI cannot describe by itself.

The chat route is a plain ASGI app for speed; its schema comes from the structs that decode its body, so
what /docs says is what is enforced.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from headgate import metadata
from headgate.wire import EXTRA_SLOT
from headgate_facade.openai import schema as answers
from headgate_facade.openai import wire
from headgate_facade.openapi_doors import add_doors

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
# The headers of answers, and of errors as far as anybody was asked.
_HEADERS = {
    metadata.PROVIDER: "Who answered, or was asked last: the provider's name here.",
    metadata.MODEL: "The model's name at that provider.",
    metadata.ATTEMPTS: "How many upstream calls it took.",
    metadata.ROUTE: "The public model that served, after aliases, rules and fallbacks.",
    metadata.TRIED: "Each upstream call: `PROVIDER/MODEL [key=NAME] FAULT SECONDS [hedge]`, with commas "
    "between; the fault of one that answered is OK.",
    metadata.WAITED: "Seconds that were waited between them; absent if none were.",
    metadata.CACHE: "What the cache did, if it was asked: hit, miss or shared.",
    metadata.REPEATED: "true on the answer of an earlier call with the same idempotency key.",
    metadata.WARNINGS: "What was left out or changed on the way.",
}
_ASKED = [
    {"name": name, "in": "header", "schema": schema, "description": text}
    for name, schema, text in (
        (
            metadata.IDEMPOTENCY_KEY,
            {"type": "string", "maxLength": 255},
            "Calls without a stream that have the same one run once.",
        ),
        (
            metadata.CACHE,
            {"enum": ["on", "off", "refresh"]},
            "Whether the exact cache may answer; default: as the configuration says.",
        ),
    )
]

# Members that are read past, for clients that send back what their SDK has added.
_CLIENT_SIDE = {"AssistantMessage": ("parsed",), "FunctionCall": ("parsed_arguments",)}
_EXAMPLE = """curl http://127.0.0.1:8080/v1/chat/completions \\
  -H "Authorization: Bearer $HEADGATE_API_KEY" -H "Content-Type: application/json" \\
  -d '{"model": "MODEL", "messages": [{"role": "user", "content": "Hello!"}]}'"""


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
            add_doors(document, _STATUSES)
            _correct_failures(document)
            _add_headers(document)
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
    # Raw in the struct: a kind of the vendor's own is an object that its vendor judges.
    foreign = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"type": "string", "not": {"const": "function"}}},
    }
    tools = {"type": "array", "items": {"anyOf": [tool, foreign]}}
    body["tools"] = {"anyOf": [tools, {"type": "null"}]}
    modes = {"enum": ["none", "auto", "required"]}
    body["tool_choice"] = {"anyOf": [modes, choice, foreign, {"type": "null"}]}
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
    for part, members in _CLIENT_SIDE.items():
        for member in members:
            del components[part]["properties"][member]
    components.update(answers.SCHEMAS)
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    responses: dict[str, Any] = {
        "200": {
            "description": "The completion; or, with `stream`, its chunks as server-sent events.",
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(name="ChatCompletion")}},
                "text/event-stream": {"schema": {"$ref": _REF.format(name="ChatCompletionChunk")}},
            },
        }
    }
    for status in _STATUSES:
        responses[status] = _failure(status)
    chat = {
        "post": {
            "operationId": "create_chat_completion",
            "summary": "Create a chat completion",
            "tags": ["chat"],
            "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": _EXAMPLE}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference}},
            },
            "responses": responses,
        }
    }
    # First, because it is what most readers come for.
    document["paths"] = {"/v1/chat/completions": chat, **document["paths"]}
    schemes = document["components"].setdefault("securitySchemes", {})
    schemes["key"] = {"type": "http", "scheme": "bearer"}
    document["security"] = [{"key": []}, {}]


def _failure(status: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Error")}
    return {"description": _STATUSES[status], "content": {"application/json": {"schema": schema}}}


def _correct_failures(document: dict[str, Any]) -> None:
    """FastAPI announces its own 422 where every failure here has OpenAI's envelope."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            if path.startswith(("/v1/models", "/v1/model-catalog")):
                named = ("404",) if "{" in path else ()
                for status in ("401", "403", *named, "503", "504"):
                    operation["responses"][status] = _failure(status)
            elif path.startswith("/admin/"):
                for status in ("400", "401", "403", "404", "413", "503", "504"):
                    operation["responses"][status] = _failure(status)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _add_headers(document: dict[str, Any]) -> None:
    """To all that the chat doors say."""
    document["components"]["headers"] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
    }
    found = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    for path, methods in document["paths"].items():
        if "post" in methods and not path.startswith("/admin/"):
            post = methods["post"]
            post["parameters"] = [*post.get("parameters", ()), *_ASKED]
            for response in post["responses"].values():
                response["headers"] = found


def _open_slots(schema: dict[str, Any]) -> None:
    """A struct with an extra slot takes unknown members; the slot itself is nobody's business."""
    if schema.get("properties", {}).pop(EXTRA_SLOT, None) is not None:
        schema["additionalProperties"] = True
