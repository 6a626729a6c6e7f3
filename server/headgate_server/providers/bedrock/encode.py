"""ChatRequest to the bodies of Converse, ConverseStream and CountTokens. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
API_runtime_CountTokens.html. What conversations are made of is encoded in `messages`, tools in `tools`,
thinking in `thinking`. What only some models know goes into additionalModelRequestFields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import raw_object
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.bedrock.messages import encode_messages
from headgate_server.providers.bedrock.models import (
    foundation_model,
    is_claude,
    is_nova,
    model_path,
)
from headgate_server.providers.bedrock.thinking import encode_reasoning, settle_conflicts
from headgate_server.providers.bedrock.tools import (
    encode_tools,
    encode_web_search,
    settle_tools,
)
from headgate_server.providers.encoding import Encoding, Json, encode_fields

_encode_json = msgspec.json.Encoder().encode

# Members that the gateway decides about: whoever may use one model could name another here.
FIXED_MEMBERS = frozenset({"modelId"})
JSON_INSTRUCTION = (
    "Answer with one JSON object and nothing else: no words around it, no code fences."
)
# What CountTokens wants to know of a request.
_COUNTED = ("messages", "system", "toolConfig", "additionalModelRequestFields")


def encode_request(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The call of Converse or ConverseStream; their bodies are the same.

    Raises:
        InvalidRequest: content that Converse cannot express, or, under the policy "strict", tuning
            that the target lacks.
    """
    encoding = _body(request, target)
    operation = "converse-stream" if stream else "converse"
    return HttpCall(
        url=f"{endpoint.base_url}/model/{model_path(target.model)}/{operation}",
        headers=endpoint.headers,
        body=_encode_json(encoding.body),
        warnings=encoding.warnings,
    )


def encode_count(request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint) -> HttpCall:
    """The call of CountTokens, which knows foundation models only. Raises as `encode_request` does."""
    encoding = _body(request, target)
    counted = {name: encoding.body[name] for name in _COUNTED if name in encoding.body}
    model = model_path(foundation_model(target.model))
    return HttpCall(
        url=f"{endpoint.base_url}/model/{model}/count-tokens",
        headers=endpoint.headers,
        body=_encode_json({"input": {"converse": counted}}),
        warnings=encoding.warnings,
    )


def _body(request: chat_pb2.ChatRequest, target: Target) -> Encoding:
    encoding = Encoding(request, target, "bedrock")
    if request.HasField("text_completion"):
        raise InvalidRequest.of("text_completion", "the bedrock API has no place for it")
    encode_messages(encoding, request.messages)
    encode_fields(encoding, {}, FIELDS)
    settle_tools(encoding)
    settle_conflicts(encoding)
    _merge_extras(encoding)
    if request.stop and is_claude(target):
        # Only so does Claude tell which of the texts ended the answer.
        encoding.body.setdefault("additionalModelResponseFieldPaths", ["/stop_sequence"])
    return encoding


def _merge_extras(encoding: Encoding) -> None:
    """Merges the caller's own members; objects that we have, too, member by member."""
    request, body = encoding.request, encoding.body
    ours = {name: value for name, value in body.items() if isinstance(value, dict)}
    extra: Mapping[str, msgspec.Raw] = {}
    if request.extra_body_json and encoding.speaks_extras:
        extra = raw_object(request.extra_body_json)
    encoding.merge_extras(FIXED_MEMBERS)
    for name, value in ours.items():
        merged: Json = {**_members(extra.get(name)), **value}
        if body[name] is not value:  # replaced by the options for this provider, which win
            merged.update(_members(body[name]))
        body[name] = merged


def _members(value: msgspec.Raw | None) -> Mapping[str, msgspec.Raw]:
    return raw_object(value) if value is not None and bytes(value)[:1] == b"{" else {}


def _additional(encoding: Encoding) -> Json:
    """The fields for the model itself."""
    fields: Json = encoding.body.setdefault("additionalModelRequestFields", {})
    return fields


# Fields that need more than a copy. Each takes the encoding and the field's value.


def _inference(name: str) -> Callable[[Encoding, Any], None]:
    """A field that is a member of inferenceConfig."""

    def put(encoding: Encoding, value: Any) -> None:
        encoding.body.setdefault("inferenceConfig", {})[name] = value

    return put


def _unsupported(name: str) -> Callable[[Encoding, Any], None]:
    """Tuning that Converse lacks; under "pass" it goes where the models' own parameters are."""

    def put(encoding: Encoding, value: Any) -> None:
        if name == "n" and value == 1:
            return  # what everybody gives anyway
        if encoding.target.policy == "pass" and isinstance(value, str | int | float | bool):
            _additional(encoding)[name] = value
        elif value is not False:
            encoding.leave_out(name, "the bedrock API has no such parameter")

    return put


def _stop(encoding: Encoding, value: Sequence[str]) -> None:
    encoding.body.setdefault("inferenceConfig", {})["stopSequences"] = list(value)


def _top_k(encoding: Encoding, value: int) -> None:
    if is_claude(encoding.target):
        _additional(encoding)["top_k"] = value
    elif is_nova(encoding.target):
        # https://docs.aws.amazon.com/nova/latest/userguide/using-converse-api.html
        _additional(encoding).setdefault("inferenceConfig", {})["topK"] = value
    else:
        _unsupported("top_k")(encoding, value)


def _response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    kind = form.WhichOneof("kind")
    if kind in ("text", None):
        return
    why = "the bedrock API enforces JSON only with a schema"
    if kind == "json_object":
        if encoding.target.policy == "strict":
            raise InvalidRequest.of("response_format.json_object", f"{why}; use json_schema")
        encoding.warn("response_format.json_object", f"asked for in the instructions: {why}")
        encoding.body.setdefault("system", []).append({"text": JSON_INSTRUCTION})
        return
    given = form.json_schema
    if not given.schema_json:
        raise InvalidRequest.of("response_format.json_schema.schema_json", f"is required: {why}")
    schema = {"schema": given.schema_json, "name": given.name}
    if given.description:
        schema["description"] = given.description
    encoding.body.setdefault("outputConfig", {})["textFormat"] = {
        "type": "json_schema",
        "structure": {"jsonSchema": schema},
    }


def _modalities(encoding: Encoding, value: Sequence[str]) -> None:
    if any(modality != "text" for modality in value):
        raise InvalidRequest.of(
            "modalities", f"the bedrock API answers with text only, not with {', '.join(value)}"
        )


def _service_tier(encoding: Encoding, value: str) -> None:
    if value != "auto":  # OpenAI's word for the default
        encoding.body["serviceTier"] = {"type": value}


def _metadata(encoding: Encoding, value: Mapping[str, str]) -> None:
    encoding.body["requestMetadata"] = dict(sorted(value.items()))


def _elsewhere(encoding: Encoding, value: object) -> None:
    """Fields that `settle_tools` looks at."""


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "tools": encode_tools,
    "tool_choice": _elsewhere,
    "parallel_tool_calls": _elsewhere,
    "temperature": _inference("temperature"),
    "top_p": _inference("topP"),
    "top_k": _top_k,
    "max_completion_tokens": _inference("maxTokens"),
    "max_tokens": _inference("maxTokens"),
    "stop": _stop,
    "response_format": _response_format,
    "reasoning": encode_reasoning,
    "modalities": _modalities,
    "service_tier": _service_tier,
    "metadata": _metadata,
    "web_search_options": encode_web_search,
    **{
        name: _unsupported(name)
        for name in (
            "n", "seed", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs",
            "store", "user", "safety_identifier", "prompt_cache_key", "verbosity",
        )
    },
}  # fmt: skip
