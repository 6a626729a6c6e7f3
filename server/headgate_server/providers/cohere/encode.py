"""ChatRequest to the body of POST /v2/chat. Pure.

Source: https://docs.cohere.com/reference/chat. What conversations are made of is encoded in `messages`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import raw_object
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.cohere.messages import encode_messages, encode_tools
from headgate_server.providers.encoding import Encoding, Json, encode_fields, text_only

# Members that the gateway decides about: whoever may use one model could name another here.
FIXED_MEMBERS = frozenset({"model", "stream"})


def encode_request(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: content that Cohere cannot express, or, under the policy "strict", tuning that
            the target lacks.
    """
    encoding = Encoding(request, target, "cohere")
    encoding.body |= {"model": target.model, "stream": stream}
    encode_messages(encoding, request.messages)
    encode_fields(encoding, PLAIN_FIELDS, FIELDS)
    encoding.merge_extras(FIXED_MEMBERS)
    return encoding.call(f"{endpoint.base_url}/v2/chat", endpoint.headers)


PLAIN_FIELDS = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "logprobs": "logprobs",
    "stop": "stop_sequences",
}

# Fields that need more than a copy. Each takes the encoding and the field's value.


def _tool_choice(encoding: Encoding, choice: chat_pb2.ToolChoice) -> None:
    kind = choice.WhichOneof("kind")
    if kind == "provider_choice_json":
        if encoding.speaks_extras:
            encoding.body["tool_choice"] = msgspec.Raw(choice.provider_choice_json)
        else:
            encoding.unsupported_extra("tool_choice")
    elif kind == "function_name":
        if len(encoding.request.tools) > 1:
            # Calling some tool is as near as Cohere comes to calling this one.
            why = "the cohere API cannot require one of several tools; send that tool only"
            if encoding.target.policy == "strict":
                raise InvalidRequest.of("tool_choice", why)
            encoding.warn("tool_choice", f"any tool may be called: {why}")
        encoding.body["tool_choice"] = "REQUIRED"
    elif choice.mode == chat_pb2.ToolChoice.MODE_REQUIRED:
        encoding.body["tool_choice"] = "REQUIRED"
    elif choice.mode == chat_pb2.ToolChoice.MODE_NONE and encoding.request.tools:
        encoding.body["tool_choice"] = "NONE"


def _response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    kind = form.WhichOneof("kind")
    if kind == "text":
        encoding.body["response_format"] = {"type": "text"}
    elif kind is not None:
        value: Json = {"type": "json_object"}
        if form.json_schema.schema_json:
            value["json_schema"] = msgspec.Raw(form.json_schema.schema_json)
        if form.json_schema.description:
            encoding.leave_out(
                "response_format.json_schema.description", "the cohere API has no such parameter"
            )
        encoding.body["response_format"] = value


def _reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    if options.HasField("summary"):
        encoding.leave_out("reasoning.summary", "the cohere API has no such parameter")
    if options.HasField("native_json"):
        encoding.body["thinking"] = _native_thinking(options.native_json)
        return
    model = encoding.target.model
    off = options.effort == "none" or (options.HasField("enabled") and not options.enabled)
    if encoding.target.family.reasoning is False:
        if not off:
            encoding.leave_out("reasoning", f"{model!r} does not think")
        return
    if off:
        encoding.body["thinking"] = {"type": "disabled"}
        return
    if options.HasField("effort"):
        encoding.leave_out(
            "reasoning.effort", f"{model!r} takes a budget of tokens instead; send budget_tokens"
        )
    if options.HasField("budget_tokens"):
        encoding.body["thinking"] = {"type": "enabled", "token_budget": options.budget_tokens}
    elif options.HasField("enabled") or options.HasField("effort"):
        encoding.body["thinking"] = {"type": "enabled"}


def _native_thinking(text: str) -> Json:
    """The caller's own object: Cohere's, or the form that Anthropic made common."""
    thinking: Json = dict(raw_object(text))
    if "budget_tokens" in thinking:
        thinking.setdefault("token_budget", thinking.pop("budget_tokens"))
    if thinking.get("type") == msgspec.Raw(b'"adaptive"'):
        thinking["type"] = "enabled"
    return thinking


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "tools": encode_tools,
    "tool_choice": _tool_choice,
    "response_format": _response_format,
    "reasoning": _reasoning,
    "modalities": text_only,
}
