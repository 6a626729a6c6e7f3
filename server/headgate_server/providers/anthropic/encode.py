"""ChatRequest to the body and headers of POST /v1/messages, and of its token counting twin. Pure.

What conversations are made of is encoded in `messages` and `blocks`, tools in `tools`, thinking and the
bound on the answer in `thinking`.
Source: https://platform.claude.com/docs/en/api/messages/create and .../messages-count-tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import raw_object
from headgate_server.providers.anthropic.messages import encode_messages
from headgate_server.providers.anthropic.thinking import (
    encode_reasoning,
    max_tokens,
    settle_conflicts,
)
from headgate_server.providers.anthropic.tools import (
    encode_tool_choice,
    encode_tools,
    encode_web_search,
)
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.encoding import Encoding, Json, elsewhere, encode_fields

# The version that this translation was written for; a header in the configuration wins.
VERSION = "2023-06-01"
# Members that the gateway decides about: whoever may use one model could name another here.
FIXED_MEMBERS = frozenset({"model", "stream"})
# Betas are a header, but SDKs and other clouds name them in the body.
BETA_MEMBERS = ("anthropic_beta", "betas")
# What counting knows of a request; the rest says nothing about the prompt.
COUNTED = frozenset(
    {
        "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
        "cache_control", "context_management", "mcp_servers", "speed",
    }
)  # fmt: skip
_BETA_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MAX_HEADERS = 64

JSON_INSTRUCTION = (
    "Answer with one JSON object and nothing else: no words around it, and no code fence."
)


class Heads:
    """The headers of calls; the same object for the same headers, so that they are encoded once."""

    def __init__(self) -> None:
        self._base: Mapping[str, str] = {}
        self._made: dict[tuple[str, ...], Mapping[str, str]] = {}

    def of(self, base: Mapping[str, str], betas: tuple[str, ...]) -> Mapping[str, str]:
        """The endpoint's headers, the API's version, and the betas."""
        if self._base is not base or len(self._made) >= _MAX_HEADERS:
            self._base, self._made = base, {}
        found = self._made.get(betas)
        if found is None:
            found = {"anthropic-version": VERSION, **base}
            if betas:
                given = found.get("anthropic-beta", "").split(",")
                names = [name for name in (*map(str.strip, given), *betas) if name]
                found["anthropic-beta"] = ",".join(dict.fromkeys(names))
            self._made[betas] = found
        return found


def encode_request(
    request: chat_pb2.ChatRequest,
    target: Target,
    endpoint: Endpoint,
    heads: Heads,
    *,
    stream: bool,
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: content that this API cannot express, or, under the policy "strict", tuning
            that the target lacks.
    """
    encoding = _encode(request, target)
    betas = _take_betas(encoding.body)
    if stream:
        encoding.body["stream"] = True
    return encoding.call(_url(endpoint, "/v1/messages"), heads.of(endpoint.headers, betas))


def encode_count(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, heads: Heads
) -> HttpCall:
    """The upstream call that counts the prompt's tokens. Raises as `encode_request` does."""
    encoding = _encode(request, target)
    betas = _take_betas(encoding.body)
    counted = {name: value for name, value in encoding.body.items() if name in COUNTED}
    url = _url(endpoint, "/v1/messages/count_tokens")
    return encoding.call(url, heads.of(endpoint.headers, betas), counted)


def _url(endpoint: Endpoint, path: str) -> str:
    # The vendor's SDK takes the host; people who know other SDKs write the version behind it.
    return endpoint.base_url.removesuffix("/v1") + path


def _encode(request: chat_pb2.ChatRequest, target: Target) -> Encoding:
    encoding = Encoding(request, target, "anthropic")
    body = encoding.body
    body["model"] = target.model
    body["max_tokens"] = max_tokens(encoding)
    if not request.HasField("text_completion"):
        encode_messages(encoding, request.messages)
    encode_fields(encoding, PLAIN, FIELDS)
    if not body.get("messages"):
        raise InvalidRequest.of(
            "messages",
            "must hold a message of the user: the API takes no conversation of system messages alone",
        )
    encode_tool_choice(encoding)
    _user_id(encoding)
    settle_conflicts(encoding)
    encoding.merge_extras(FIXED_MEMBERS)
    return encoding


def _take_betas(body: Json) -> tuple[str, ...]:
    """Takes the names of betas out of a body that extras were merged into."""
    betas: list[str] = []
    for member in BETA_MEMBERS:
        if member not in body:
            continue
        try:
            given = msgspec.json.decode(body.pop(member), type=str | list[str])
        except (msgspec.DecodeError, UnicodeError) as error:
            raise InvalidRequest.of(
                f"provider_options_json.{member}", "must be an array of names of betas"
            ) from error
        names = given.split(",") if isinstance(given, str) else given
        for name in map(str.strip, names):
            if not _BETA_NAME.fullmatch(name):
                raise InvalidRequest.of(
                    f"provider_options_json.{member}",
                    f"{name[:64]!r} is not the name of a beta: letters, digits, '.', '_' and '-'",
                )
            betas.append(name)
    return tuple(dict.fromkeys(betas))


# Tuning that needs more than a copy. Each takes the encoding and the field's value.


def _response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    # https://platform.claude.com/docs/en/build-with-claude/structured-outputs
    kind = form.WhichOneof("kind")
    if kind == "json_schema":
        _json_schema(encoding, form.json_schema)
    elif kind == "json_object":
        # The API knows JSON only with a schema, and a schema of any object at all it refuses.
        why = "this API enforces JSON only with a schema"
        if encoding.target.policy == "strict":
            raise InvalidRequest.of("response_format.json_object", f"{why}; use json_schema")
        encoding.warn("response_format.json_object", f"asked for in the system prompt: {why}")
        _add_instruction(encoding.body, JSON_INSTRUCTION)


def _json_schema(encoding: Encoding, form: chat_pb2.JsonSchemaFormat) -> None:
    if not form.schema_json:
        raise InvalidRequest.of(
            "response_format.json_schema.schema_json", "is required by this API; give the schema"
        )
    schema: Json | msgspec.Raw = msgspec.Raw(form.schema_json)
    if form.description:
        # The format has no description of its own, the schema has.
        members = raw_object(form.schema_json)
        if "description" not in members:
            schema = {"description": form.description, **members}
    encoding.put("output_config.format", {"type": "json_schema", "schema": schema})


def _add_instruction(body: Json, text: str) -> None:
    system = body.get("system")
    if not system:
        body["system"] = text
        return
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
    body["system"] = [*blocks, {"type": "text", "text": text}]


def _service_tier(encoding: Encoding, tier: str) -> None:
    # https://platform.claude.com/docs/en/api/service-tiers: OpenAI's "default" is the standard tier.
    known = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
    if tier in known or encoding.target.policy == "pass":
        encoding.body["service_tier"] = known.get(tier, tier)
    else:
        encoding.leave_out("service_tier", f"the API has no tier {tier!r}; it has auto and default")


def _modalities(encoding: Encoding, modalities: list[str]) -> None:
    others = [modality for modality in modalities if modality != "text"]
    if others:
        raise InvalidRequest.of(
            "modalities", f"the API answers with text only, not with {', '.join(others)}"
        )


def _user_id(encoding: Encoding) -> None:
    request = encoding.request
    user = request.safety_identifier or request.user
    if user:
        encoding.body["metadata"] = {"user_id": user}
    if request.user and request.user != user:
        encoding.leave_out("user", "the API takes one id of the user; safety_identifier was sent")


PLAIN = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
}
FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "tools": encode_tools,
    "tool_choice": elsewhere,
    "parallel_tool_calls": elsewhere,
    "max_tokens": elsewhere,
    "max_completion_tokens": elsewhere,
    "response_format": _response_format,
    "reasoning": encode_reasoning,
    "modalities": _modalities,
    "service_tier": _service_tier,
    "web_search_options": encode_web_search,
    "user": elsewhere,
    "safety_identifier": elsewhere,
}
