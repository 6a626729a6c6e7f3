"""ChatRequest to the body of POST /responses, and of POST /responses/input_tokens. Pure.

Nothing is kept at the vendor unless the caller says `store`; so that a model's thinking survives the turn
all the same, reasoning models are asked for it in its encrypted form. The conversation is encoded in
`items`.

Source: https://platform.openai.com/docs/api-reference/responses/create and .../responses/input-tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.encoding import Encoding, Json, encode_fields
from headgate_server.providers.responses.answer import NAME
from headgate_server.providers.responses.items import encode_input
from headgate_server.providers.responses.tools import (
    encode_tool_choice,
    encode_tools,
    encode_web_search,
)

PLAIN_FIELDS = {
    **{
        name: name
        for name in (
            "parallel_tool_calls", "temperature", "top_p", "top_logprobs", "service_tier", "store",
            "user", "safety_identifier", "prompt_cache_key", "metadata",
        )
    },
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "verbosity": "text.verbosity",
}  # fmt: skip
# What POST /responses/input_tokens takes.
COUNTED = frozenset(
    {
        "conversation", "input", "instructions", "model", "parallel_tool_calls",
        "previous_response_id", "reasoning", "text", "tool_choice", "tools", "truncation",
    }
)  # fmt: skip
# Members that the gateway decides about: whoever may use one model could name another here.
FIXED_MEMBERS = frozenset({"model", "stream"})
_LOGPROBS = "message.output_text.logprobs"


def encode_request(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: content that this API cannot express, or, under the policy "strict", tuning
            that the target lacks.
    """
    encoding = _encode(request, target)
    body = encoding.body
    if stream:
        body["stream"] = True
    elif bytes(body.get("background", b"")) == b"true":
        raise InvalidRequest.of(
            "extra_body_json",
            "holds background: true, but its answer could not be fetched; stream it",
        )
    return _call(encoding, endpoint, "/responses", body)


def encode_count(request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint) -> HttpCall:
    """The upstream call that counts the prompt's tokens. Raises as `encode_request` does."""
    encoding = _encode(request, target)
    counted = {name: value for name, value in encoding.body.items() if name in COUNTED}
    return _call(encoding, endpoint, "/responses/input_tokens", counted)


def _encode(request: chat_pb2.ChatRequest, target: Target) -> Encoding:
    encoding = Encoding(request, target, NAME)
    encoding.body["model"] = target.model
    if not request.HasField("text_completion"):
        encoding.body["input"] = encode_input(encoding)
    if _reasons(encoding):
        _include(encoding, "reasoning.encrypted_content")
    encode_fields(encoding, PLAIN_FIELDS, FIELDS)
    _leave_out_beside_thinking(encoding)
    encoding.body.setdefault("store", False)
    _merge_extras(encoding)
    return encoding


def _call(encoding: Encoding, endpoint: Endpoint, path: str, body: Json) -> HttpCall:
    vendor = encoding.target.vendor
    query = f"?{urlencode(vendor.query)}" if vendor.query else ""
    return encoding.call(f"{endpoint.base_url}{path}{query}", endpoint.headers, body)


def _reasons(encoding: Encoding) -> bool:
    """Whether the model thinks. Others answer 400 to a request for encrypted thinking."""
    known = encoding.target.family.reasoning
    return encoding.request.HasField("reasoning") if known is None else known


def _include(encoding: Encoding, name: str) -> None:
    encoding.body.setdefault("include", []).append(name)


def _leave_out_beside_thinking(encoding: Encoding) -> None:
    """Some models take sampling parameters only as long as they do not think."""
    body, family = encoding.body, encoding.target.family
    if encoding.target.policy == "pass":
        return
    if body.get("reasoning", {}).get("effort", "none") == "none":
        return
    for name in family.refuses_while_thinking:
        include = body.get("include", [])
        if name in body or (name == "logprobs" and _LOGPROBS in include):
            encoding.leave_out(
                name, f"model family {family.name!r} does not take it while it thinks"
            )
            body.pop(name, None)
            if name == "logprobs":
                include.remove(_LOGPROBS)


def _merge_extras(encoding: Encoding) -> None:
    """Merges what the schema does not name; the lists of what to include become one."""
    body = encoding.body
    ours = body.pop("include", [])
    encoding.merge_extras(FIXED_MEMBERS)
    if ours:
        theirs = _strings(body.pop("include", None))
        body["include"] = ours + [name for name in theirs if name not in ours]


def _strings(raw: msgspec.Raw | None) -> list[str]:
    if raw is None or bytes(raw) == b"null":
        return []
    try:
        return msgspec.json.decode(raw, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest.of(
            "extra_body_json", "holds an include that is not an array of strings"
        ) from error


# Tuning that needs more than a copy. Each takes the encoding and the field's value.


def _logprobs(encoding: Encoding, value: bool) -> None:
    if value:
        _include(encoding, _LOGPROBS)


def _modalities(encoding: Encoding, values: list[str]) -> None:
    for place, value in enumerate(values):
        if value != "text":
            raise InvalidRequest.of(
                f"modalities[{place}]",
                f"is {value!r:.40}, but the Responses API answers with text only; for images give "
                "it the tool image_generation",
            )


def _reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    family = encoding.target.family
    wire: Json = {}
    if options.HasField("effort"):
        wire["effort"] = options.effort
    elif options.HasField("enabled"):
        # Models that know "none" do not think unless asked to; the others always think.
        if "none" in family.efforts:
            wire["effort"] = "medium" if options.enabled else "none"
        elif not options.enabled:
            encoding.leave_out(
                "reasoning.enabled",
                f"{encoding.target.model!r} has no switch for thinking; use reasoning.effort",
            )
    if options.HasField("summary") and options.summary != "none":
        wire["summary"] = options.summary
    for name in ("budget_tokens", "native_json"):
        if options.HasField(name):
            encoding.leave_out(
                f"reasoning.{name}", "the Responses API has no such parameter; use reasoning.effort"
            )
    if wire:
        encoding.body["reasoning"] = wire


def _response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    kind = form.WhichOneof("kind")
    wire: Json = {"type": kind}
    if kind == "json_schema":
        schema = form.json_schema
        wire["name"] = schema.name
        if schema.HasField("description"):
            wire["description"] = schema.description
        wire["schema"] = msgspec.Raw((schema.schema_json or "{}").encode())
        if schema.HasField("strict"):
            wire["strict"] = schema.strict
    encoding.put("text.format", wire)


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "tools": encode_tools,
    "tool_choice": encode_tool_choice,
    "logprobs": _logprobs,
    "response_format": _response_format,
    "reasoning": _reasoning,
    "modalities": _modalities,
    "web_search_options": encode_web_search,
}
