"""ChatRequest to the body of POST /chat/completions. Pure.

Reads top to bottom: the table of plain fields, the request, tuning that needs translation, messages,
parts, tools.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any, assert_never
from urllib.parse import quote, urlencode

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.vendors import Vendor

Json = dict[str, Any]

_encode_json = msgspec.json.Encoder().encode

ROLES = {
    content_pb2.ROLE_DEVELOPER: "developer",
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
    content_pb2.ROLE_ASSISTANT: "assistant",
    content_pb2.ROLE_TOOL: "tool",
    content_pb2.ROLE_FUNCTION: "tool",
}
TOOL_CHOICE_MODES = {
    chat_pb2.ToolChoice.MODE_NONE: "none",
    chat_pb2.ToolChoice.MODE_AUTO: "auto",
    chat_pb2.ToolChoice.MODE_REQUIRED: "required",
}
# "input_audio" names formats where the proto has media types.
AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav"}

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


class Encoding:
    """One translation under way: the body so far, and the warnings."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.body: Json = {"model": target.model}
        self.warnings: list[chat_pb2.Warning] = []

    def warn(self, field: str, message: str) -> None:
        """Tells the caller what became of a field; once for each."""
        if all(warning.field != field for warning in self.warnings):
            self.warnings.append(chat_pb2.Warning(field=field, message=message))

    def leave_out(self, field: str, why: str) -> None:
        """Applies the route's policy to tuning that the target lacks."""
        if self.target.policy == "strict":
            raise InvalidRequest.of(field, why)
        self.warn(field, f"left out: {why}")


def encode_request(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: content that this dialect cannot express, or, under the policy "strict",
            tuning that the target lacks.
    """
    encoding = Encoding(target)
    body = encoding.body
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
        "content": _content(prediction.parts, "prediction.parts", encoding.target.vendor),
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


# Messages.


def _messages(encoding: Encoding, messages: Iterable[content_pb2.Message]) -> None:
    vendor = encoding.target.vendor
    out: list[Json] = []
    unanswered: list[tuple[str, str]] = []  # (name, id) of calls that came without an id
    for index, message in enumerate(messages):
        role = message.role
        if role in (content_pb2.ROLE_TOOL, content_pb2.ROLE_FUNCTION):
            out.extend(_tool_results(message, f"messages[{index}]", unanswered, vendor))
            continue
        name = ROLES[role]
        if name == "developer" and not vendor.developer_role:
            name = "system"
        content: str | list[Json] | None = _plain_text(message.parts, vendor)
        if content is None and role == content_pb2.ROLE_ASSISTANT:
            wire = _assistant(encoding, message, index, unanswered)
        else:
            if content is None:
                content = _content(message.parts, f"messages[{index}].parts", vendor)
            wire = {"role": name, "content": content}
        if message.HasField("name"):
            wire["name"] = message.name
        if message.HasField("extra_json"):
            _merge_raw(wire, message.extra_json)
        out.append(wire)
    encoding.body["messages"] = out


def _assistant(
    encoding: Encoding,
    message: content_pb2.Message,
    index: int,
    unanswered: list[tuple[str, str]],
) -> Json:
    texts: list[content_pb2.Part] = []
    calls: list[Json] = []
    reasoning: list[str] = []
    wire: Json = {"role": "assistant", "content": None}
    for place, part in enumerate(message.parts):
        kind = part.WhichOneof("kind")
        if kind in ("text", "refusal"):
            texts.append(part)
        elif kind == "tool_call":
            call_id = part.tool_call.id or f"call_{index}_{place}"
            if not part.tool_call.id:
                unanswered.append((part.tool_call.name, call_id))
            calls.append(_tool_call(part, call_id))
        elif kind == "reasoning":
            if part.reasoning.text:
                reasoning.append(part.reasoning.text)
        elif kind == "audio" and part.audio.HasField("id"):
            wire["audio"] = {"id": part.audio.id}
        else:
            raise InvalidRequest.of(
                f"messages[{index}].parts[{place}]",
                f"provider {encoding.target.provider!r} takes no {kind} in assistant messages",
            )
    if len(texts) == 1 and texts[0].WhichOneof("kind") == "refusal":
        wire["refusal"] = texts[0].refusal
    elif texts:
        vendor = encoding.target.vendor
        wire["content"] = _content(texts, f"messages[{index}].parts", vendor)
    if calls:
        wire["tool_calls"] = calls
    if reasoning:
        field = encoding.target.vendor.reasoning_field
        if field == "none":
            encoding.warn(
                f"messages[{index}].reasoning",
                f"left out: provider {encoding.target.provider!r} takes no earlier thinking back",
            )
        else:
            wire[field] = "".join(reasoning)
    return wire


def _tool_call(part: content_pb2.Part, call_id: str) -> Json:
    call = part.tool_call
    wire: Json
    if call.custom:
        custom = {"name": call.name, "input": call.arguments_json}
        wire = {"id": call_id, "type": "custom", "custom": custom}
    else:
        function = {"name": call.name, "arguments": call.arguments_json}
        wire = {"id": call_id, "type": "function", "function": function}
    if part.HasField("extra_json"):
        _merge_raw(wire, part.extra_json)
    return wire


def _tool_results(
    message: content_pb2.Message, path: str, unanswered: list[tuple[str, str]], vendor: Vendor
) -> Iterable[Json]:
    for place, part in enumerate(message.parts):
        result = part.tool_result
        call_id = result.tool_call_id
        if not call_id:
            # OpenAI's deprecated functions have no ids: the oldest open call of that name is meant.
            match = next((c for c in unanswered if c[0] == result.name), None)
            if match is None:
                raise InvalidRequest.of(
                    f"{path}.parts[{place}]", f"no earlier call of {result.name!r} waits for this"
                )
            unanswered.remove(match)
            call_id = match[1]
        content = _content(result.parts, f"{path}.parts[{place}].tool_result.parts", vendor)
        wire: Json = {"role": "tool", "tool_call_id": call_id, "content": content}
        name = message.name or result.name
        if name and message.role == content_pb2.ROLE_TOOL:
            wire["name"] = name
        if part.HasField("extra_json"):
            _merge_raw(wire, part.extra_json)
        if message.HasField("extra_json"):
            _merge_raw(wire, message.extra_json)
        yield wire


# Parts.


def _plain_text(parts: Sequence[content_pb2.Part], vendor: Vendor) -> str | None:
    """The text, if there is one plain text and nothing else."""
    if len(parts) != 1:
        return None
    only = parts[0]
    if (
        only.WhichOneof("kind") != "text"
        or only.HasField("extra_json")
        or (vendor.cache_control and only.HasField("cache_control"))
    ):
        return None
    return only.text


def _content(parts: Iterable[content_pb2.Part], path: str, vendor: Vendor) -> str | list[Json]:
    """A string for one plain text (every vendor takes that), else an array of content parts."""
    listed = list(parts)
    if not listed:
        return ""
    text = _plain_text(listed, vendor)
    if text is not None:
        return text
    return [_part(part, f"{path}[{place}]", vendor) for place, part in enumerate(listed)]


def _part(part: content_pb2.Part, path: str, vendor: Vendor) -> Json:
    kind = part.WhichOneof("kind")
    wire: Json
    if kind == "text":
        wire = {"type": "text", "text": part.text}
    elif kind == "refusal":
        wire = {"type": "refusal", "refusal": part.refusal}
    elif kind == "image":
        image: Json = {"url": _media_url(part.image, path)}
        if part.image.HasField("detail"):
            image["detail"] = part.image.detail
        wire = {"type": "image_url", "image_url": image}
    elif kind == "audio":
        wire = {"type": "input_audio", "input_audio": _input_audio(part.audio, path)}
    elif kind == "file":
        wire = {"type": "file", "file": _file(part.file)}
    else:
        raise InvalidRequest.of(path, f"a {kind or 'part without a kind'} cannot stand here")
    if vendor.cache_control and part.HasField("cache_control"):
        wire["cache_control"] = _cache_control(part.cache_control)
    if part.HasField("extra_json"):
        _merge_raw(wire, part.extra_json)
    return wire


def _cache_control(control: content_pb2.CacheControl) -> Json:
    return {"type": "ephemeral", **({"ttl": control.ttl} if control.ttl else {})}


def _media_url(media: content_pb2.Media, path: str) -> str:
    source = media.WhichOneof("source")
    if source == "url":
        return media.url
    if source == "data":
        return f"data:{media.media_type};base64,{base64.b64encode(media.data).decode()}"
    raise InvalidRequest.of(path, "this provider takes images as data or URL, not as a file id")


def _input_audio(media: content_pb2.Media, path: str) -> Json:
    if media.WhichOneof("source") != "data":
        raise InvalidRequest.of(path, "this provider takes audio as data only")
    form = AUDIO_FORMATS.get(media.media_type) or media.media_type.removeprefix("audio/")
    return {"data": base64.b64encode(media.data).decode(), "format": form}


def _file(media: content_pb2.Media) -> Json:
    wire: Json = {}
    source = media.WhichOneof("source")
    if source == "file_id":
        wire["file_id"] = media.file_id
    elif source == "url":
        wire["file_data"] = media.url
    else:
        data = base64.b64encode(media.data).decode()
        typed = media.media_type
        wire["file_data"] = f"data:{typed};base64,{data}" if typed else data
    if media.HasField("filename"):
        wire["filename"] = media.filename
    return wire


# Tools.


def _tools(encoding: Encoding, tools: Iterable[chat_pb2.Tool]) -> None:
    vendor = encoding.target.vendor
    encoding.body["tools"] = [_tool(tool, vendor) for tool in tools]


def _tool(tool: chat_pb2.Tool, vendor: Vendor) -> object:
    if tool.HasField("provider_tool_json"):
        return msgspec.Raw(tool.provider_tool_json)
    function: Json = {"name": tool.function.name}
    if tool.function.HasField("description"):
        function["description"] = tool.function.description
    if tool.function.parameters_json:
        function["parameters"] = msgspec.Raw(tool.function.parameters_json)
    if tool.function.HasField("strict"):
        function["strict"] = tool.function.strict
    wire: Json = {"type": "function", "function": function}
    if vendor.cache_control and tool.HasField("cache_control"):
        wire["cache_control"] = _cache_control(tool.cache_control)
    if tool.HasField("extra_json"):
        _merge_raw(wire, tool.extra_json)
    return wire


def _merge_raw(wire: Json, extra_json: str) -> None:
    """Merges members that our schema does not name; where both have an object, member by member."""
    for key, value in msgspec.json.decode(extra_json, type=dict[str, msgspec.Raw]).items():
        present = wire.get(key)
        if isinstance(present, dict) and bytes(value)[:1] == b"{":
            for inner, raw in msgspec.json.decode(value, type=dict[str, msgspec.Raw]).items():
                present.setdefault(inner, raw)
        else:
            wire.setdefault(key, value)


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "model": lambda encoding, value: None,  # the target's name stands there instead
    "messages": _messages,
    "tools": _tools,
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
    "extra_body_json": _extra_body,
}
