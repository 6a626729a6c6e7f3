"""ChatRequest to the body of POST /chat/completions. Pure.

Reads top to bottom: the plain fields, the request, tuning that needs translation, the table of fields.
What conversations are made of is encoded in `messages`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never
from urllib.parse import quote, urlencode

import msgspec

from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.openai.messages import (
    encode_content,
    encode_messages,
    encode_tools,
)

_encode_json = msgspec.json.Encoder().encode

TOOL_CHOICE_MODES = {
    chat_pb2.ToolChoice.MODE_NONE: "none",
    chat_pb2.ToolChoice.MODE_AUTO: "auto",
    chat_pb2.ToolChoice.MODE_REQUIRED: "required",
}
# Fields that go into the body under their own name and as they are.
PLAIN_FIELDS = frozenset(
    {
        "parallel_tool_calls", "temperature", "top_p", "top_k", "n", "seed", "frequency_penalty",
        "presence_penalty", "logprobs", "top_logprobs", "service_tier", "store", "user",
        "safety_identifier", "prompt_cache_key", "verbosity",
    }
)  # fmt: skip

# Members that the gateway decides about: whoever may use one model could name another here.
FIXED_MEMBERS = frozenset({"model", "stream", "stream_options"})


def encode_request(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: content that this dialect cannot express, or, under the policy "strict",
            tuning that the target lacks.
    """
    encoding = Encoding(request, target, "openai")
    body = encoding.body
    body["model"] = target.model
    for descriptor, value in request.ListFields():
        name = descriptor.name
        if name in PLAIN_FIELDS:
            body[name] = value
        else:
            FIELDS[name](encoding, value)
    if stream:
        body["stream"] = True
        if target.vendor.stream_usage:
            body["stream_options"] = {"include_usage": True}
    _leave_out_unsupported(encoding)
    _merge_provider_options(encoding, request)
    return HttpCall(
        url=_url(target, endpoint),
        headers=endpoint.headers,
        body=_encode_json(body),
        warnings=encoding.warnings,
    )


def _url(target: Target, endpoint: Endpoint) -> str:
    base, query = endpoint.base_url, dict(target.vendor.query)
    if target.kind == "azure":
        # https://learn.microsoft.com/azure/ai-services/openai/reference: with a dated api-version
        # the deployment is part of the path; without one, or with "preview", the v1 surface is meant.
        if target.api_version:
            query["api-version"] = target.api_version
        v1 = base.endswith("/openai/v1")
        if not v1:
            base = base.removesuffix("/openai") + "/openai"
            dated = target.api_version not in (None, "", "v1", "preview", "latest")
            base += f"/deployments/{quote(target.model, safe='')}" if dated else "/v1"
    url = f"{base}/chat/completions"
    return f"{url}?{urlencode(query)}" if query else url


def _leave_out_unsupported(encoding: Encoding) -> None:
    target = encoding.target
    if target.policy == "pass":
        return
    for owner, names in (
        (f"provider kind {target.kind!r}", target.vendor.unsupported),
        (f"model family {target.family.name!r}", target.family.refuses),
    ):
        for name in names:
            # One choice is what everybody gives anyway.
            if name in encoding.body and not (name == "n" and encoding.body["n"] == 1):
                encoding.leave_out(name, f"{owner} does not take it")
                del encoding.body[name]


def _merge_provider_options(encoding: Encoding, request: chat_pb2.ChatRequest) -> None:
    if not request.provider_options_json:
        return
    target = encoding.target
    for key in (target.kind, target.provider):
        options = request.provider_options_json.get(key)
        if options:
            merged = msgspec.json.decode(options, type=dict[str, msgspec.Raw])
            encoding.body.update((k, v) for k, v in merged.items() if k not in FIXED_MEMBERS)


# Tuning that needs more than a copy. Each takes the encoding and the field's value.


def _max_tokens(encoding: Encoding, value: int, spelled: str) -> None:
    family, vendor = encoding.target.family, encoding.target.vendor
    wanted = family.max_tokens_field if family.max_tokens_field != "as_sent" else (
        vendor.max_tokens_field
    )  # fmt: skip
    # Both spellings at once are an error at OpenAI; the newer one comes first.
    if "max_completion_tokens" not in encoding.body:
        encoding.body[spelled if wanted == "as_sent" else wanted] = value


def _reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    body, target = encoding.body, encoding.target
    if options.HasField("effort"):
        body["reasoning_effort"] = options.effort
    if options.HasField("native_json"):
        body["thinking"] = msgspec.Raw(options.native_json)
    style = target.vendor.thinking or target.family.thinking
    if style == "thinking_object":
        if not options.HasField("native_json"):
            thinking: Json = {}
            if options.HasField("enabled"):
                thinking["type"] = "enabled" if options.enabled else "disabled"
            if options.HasField("budget_tokens"):
                thinking.setdefault("type", "enabled")
                thinking["budget_tokens"] = options.budget_tokens
            if thinking:
                body["thinking"] = thinking
        return
    if options.HasField("budget_tokens") and not options.HasField("native_json"):
        if style == "enable_thinking":
            # https://help.aliyun.com/zh/model-studio/deep-thinking
            body["thinking_budget"] = options.budget_tokens
        else:
            encoding.leave_out(
                "reasoning.budget_tokens", f"{target.model!r} takes no thinking budget"
            )
    if not options.HasField("enabled"):
        return
    if style == "enable_thinking":
        body["enable_thinking"] = options.enabled
    elif style == "effort" and "none" in target.family.efforts:
        # Their default is not to think (gpt-5.1 and later); an effort of the caller's own decides.
        body.setdefault("reasoning_effort", "medium" if options.enabled else "none")
    elif style == "think_directive":
        _append_directive(encoding, " /think" if options.enabled else " /no_think")
    elif not options.HasField("native_json"):
        hint = (
            "; send the model's own `thinking` object instead" if style == "native"
            else "; use reasoning_effort" if style == "effort"
            else ""
        )  # fmt: skip
        encoding.leave_out(
            "reasoning.enabled", f"{target.model!r} has no switch for thinking{hint}"
        )


def _append_directive(encoding: Encoding, directive: str) -> None:
    """Adds a text directive to the last user message, where the model looks for it."""
    for message in reversed(encoding.body.get("messages", [])):
        if message["role"] != "user":
            continue
        content = message["content"]
        if isinstance(content, str):
            message["content"] = content + directive
        else:
            content.append({"type": "text", "text": directive.strip()})
        return
    encoding.leave_out("reasoning.enabled", "there is no user message to carry the directive")


def _logit_bias(encoding: Encoding, bias: dict[str, float]) -> None:
    # Whole numbers go out as such: some servers declare the values as integers.
    encoding.body["logit_bias"] = {
        token: int(value) if value.is_integer() else value for token, value in sorted(bias.items())
    }


def _tool_choice(encoding: Encoding, choice: chat_pb2.ToolChoice) -> None:
    kind = choice.WhichOneof("kind")
    value: object
    if kind == "mode":
        value = TOOL_CHOICE_MODES[choice.mode]
    elif kind == "function_name":
        value = {"type": "function", "function": {"name": choice.function_name}}
    elif kind == "provider_choice_json":
        value = msgspec.Raw(choice.provider_choice_json)
    elif kind is None:
        return
    else:
        assert_never(kind)
    encoding.body["tool_choice"] = value


def _response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    kind = form.WhichOneof("kind")
    value: Json
    if kind == "text":
        value = {"type": "text"}
    elif kind == "json_object":
        value = {"type": "json_object"}
    elif kind == "json_schema":
        schema: Json = {"name": form.json_schema.name}
        if form.json_schema.HasField("description"):
            schema["description"] = form.json_schema.description
        if form.json_schema.schema_json:
            schema["schema"] = msgspec.Raw(form.json_schema.schema_json)
        if form.json_schema.HasField("strict"):
            schema["strict"] = form.json_schema.strict
        value = {"type": "json_schema", "json_schema": schema}
    elif kind is None:
        return
    else:
        assert_never(kind)
    encoding.body["response_format"] = value


def _audio(encoding: Encoding, audio: chat_pb2.AudioOptions) -> None:
    custom = audio.voice.startswith("{")
    encoding.body["audio"] = {
        "voice": msgspec.Raw(audio.voice) if custom else audio.voice,
        "format": audio.format,
    }


def _prediction(encoding: Encoding, prediction: chat_pb2.Prediction) -> None:
    encoding.body["prediction"] = {
        "type": "content",
        "content": encode_content(prediction.parts, "prediction.parts", encoding.target.vendor),
    }


def _web_search(encoding: Encoding, options: chat_pb2.WebSearchOptions) -> None:
    value: Json = {}
    if options.HasField("search_context_size"):
        value["search_context_size"] = options.search_context_size
    if options.HasField("user_location"):
        place = {d.name: text for d, text in options.user_location.ListFields()}
        value["user_location"] = {"type": "approximate", "approximate": place}
    encoding.body["web_search_options"] = value


def _extra_body(encoding: Encoding, text: str) -> None:
    for key, value in msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items():
        if key not in FIXED_MEMBERS:
            encoding.body.setdefault(key, value)


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "model": lambda encoding, value: None,  # the target's name stands there instead
    "messages": encode_messages,
    "tools": encode_tools,
    "tool_choice": _tool_choice,
    "max_tokens": lambda e, value: _max_tokens(e, value, "max_tokens"),
    "max_completion_tokens": lambda e, value: _max_tokens(e, value, "max_completion_tokens"),
    "stop": lambda e, value: e.body.__setitem__("stop", list(value)),
    "logit_bias": _logit_bias,
    "metadata": lambda e, value: e.body.__setitem__("metadata", dict(sorted(value.items()))),
    "modalities": lambda e, value: e.body.__setitem__("modalities", list(value)),
    "response_format": _response_format,
    "reasoning": _reasoning,
    "audio": _audio,
    "prediction": _prediction,
    "web_search_options": _web_search,
    "provider_options_json": lambda encoding, value: None,  # merged last
    "extra_dialect": lambda encoding, value: None,  # says how to read the extra_json texts
    "extra_body_json": _extra_body,
}
