"""ChatRequest to the bodies of Converse, ConverseStream and CountTokens. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
API_runtime_CountTokens.html. What conversations are made of is encoded in `messages`, tools in `tools`,
thinking in `thinking`. What only some models know goes into additionalModelRequestFields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.bedrock.messages import encode_messages
from headgate_server.providers.bedrock.models import (
    foundation_model,
    is_claude,
    is_counted,
    is_nova,
    model_path,
)
from headgate_server.providers.bedrock.thinking import encode_reasoning, settle_conflicts
from headgate_server.providers.bedrock.tools import (
    encode_tools,
    encode_web_search,
    settle_tools,
)
from headgate_server.providers.encoding import Encoding, elsewhere, encode_fields, text_only

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
    url = f"{endpoint.base_url}/model/{model_path(target.model)}/{operation}"
    return encoding.call(url, endpoint.headers)


def encode_count(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint
) -> HttpCall | None:
    """The call of CountTokens, which knows some foundation models only. Raises as `encode_request`."""
    if not is_counted(target):
        return None
    encoding = _body(request, target)
    counted = {name: encoding.body[name] for name in _COUNTED if name in encoding.body}
    url = f"{endpoint.base_url}/model/{model_path(foundation_model(target.model))}/count-tokens"
    return encoding.call(url, endpoint.headers, {"input": {"converse": counted}})


def _body(request: chat_pb2.ChatRequest, target: Target) -> Encoding:
    encoding = Encoding(request, target, "bedrock")
    if request.HasField("text_completion"):
        raise InvalidRequest.of("text_completion", "the bedrock API has no place for it")
    encode_messages(encoding, request.messages)
    encode_fields(encoding, PLAIN_FIELDS, FIELDS)
    settle_tools(encoding)
    settle_conflicts(encoding)
    encoding.merge_extras(FIXED_MEMBERS)
    if request.stop and is_claude(target):
        # Only so does Claude tell which of the texts ended the answer.
        encoding.body.setdefault("additionalModelResponseFieldPaths", ["/stop_sequence"])
    return encoding


PLAIN_FIELDS = {
    "temperature": "inferenceConfig.temperature",
    "top_p": "inferenceConfig.topP",
    "max_completion_tokens": "inferenceConfig.maxTokens",
    "max_tokens": "inferenceConfig.maxTokens",
    "stop": "inferenceConfig.stopSequences",
    "metadata": "requestMetadata",
}

# Fields that need more than a copy. Each takes the encoding and the field's value.


def _unsupported(name: str) -> Callable[[Encoding, Any], None]:
    """Tuning that Converse lacks; under "pass" it goes where the models' own parameters are."""

    def put(encoding: Encoding, value: Any) -> None:
        if name == "n" and value == 1:
            return  # what everybody gives anyway
        if encoding.target.policy == "pass" and isinstance(value, str | int | float | bool):
            encoding.put(f"additionalModelRequestFields.{name}", value)
        elif value is not False:
            encoding.leave_out(name, "the bedrock API has no such parameter")

    return put


def _top_k(encoding: Encoding, value: int) -> None:
    if is_claude(encoding.target):
        encoding.put("additionalModelRequestFields.top_k", value)
    elif is_nova(encoding.target):
        # https://docs.aws.amazon.com/nova/latest/userguide/using-converse-api.html
        encoding.put("additionalModelRequestFields.inferenceConfig.topK", value)
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
    form_of_text = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    encoding.put("outputConfig.textFormat", form_of_text)


def _service_tier(encoding: Encoding, value: str) -> None:
    if value != "auto":  # OpenAI's word for the default
        encoding.body["serviceTier"] = {"type": value}


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "tools": encode_tools,
    "tool_choice": elsewhere,
    "parallel_tool_calls": elsewhere,
    "top_k": _top_k,
    "response_format": _response_format,
    "reasoning": encode_reasoning,
    "modalities": text_only,
    "service_tier": _service_tier,
    "web_search_options": encode_web_search,
    **{
        name: _unsupported(name)
        for name in (
            "n", "seed", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs",
            "store", "user", "safety_identifier", "prompt_cache_key", "verbosity",
        )
    },
}  # fmt: skip
