"""What a ChatRequest must be before anything is done with it. Pure: a request in, violations out.

Owns the rules that hold for every provider; what one provider cannot take is its dialect's business,
and ranges that vendors differ on are theirs. Front doors check their own JSON first, so most of this is
seen by gRPC callers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from headgate.errors import FieldViolation, InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, raw_object

_ASSISTANT_KINDS = frozenset(
    ("text", "refusal", "tool_call", "reasoning", "audio", "image", "file", "vendor_part")
)
_INPUT_KINDS = frozenset(("text", "image", "audio", "file", "vendor_part"))
_RESULT_KINDS = frozenset(("tool_result",))
_KINDS = {
    content_pb2.ROLE_DEVELOPER: _INPUT_KINDS,
    content_pb2.ROLE_SYSTEM: _INPUT_KINDS,
    content_pb2.ROLE_USER: _INPUT_KINDS,
    content_pb2.ROLE_ASSISTANT: _ASSISTANT_KINDS,
    content_pb2.ROLE_TOOL: _RESULT_KINDS,
    content_pb2.ROLE_FUNCTION: _RESULT_KINDS,
}
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "n": (1, 128),
    "top_k": (1, math.inf),
    "max_tokens": (1, math.inf),
    "max_completion_tokens": (1, math.inf),
    "top_logprobs": (0, 20),
}
# What some provider can read: each refuses those that it cannot.
_URLS = ("https://", "http://", "data:", "gs://", "s3://")
_MAX_METADATA_PAIRS, _MAX_METADATA_KEY, _MAX_METADATA_VALUE = 16, 64, 512


def validate(request: chat_pb2.ChatRequest) -> None:
    """Raises `InvalidRequest` with every violation found."""
    violations = [FieldViolation(field, problem) for field, problem in _violations(request)]
    if violations:
        raise InvalidRequest.of_all(violations)


Found = Iterator[tuple[str, str]]


def _violations(request: chat_pb2.ChatRequest) -> Found:
    if not request.model:
        yield "model", "is required"
    if request.HasField("text_completion"):
        yield from _text_completion(request)
    elif not request.messages:
        yield "messages", "must hold at least one message"
    for index, message in enumerate(request.messages):
        kinds = _KINDS.get(message.role)
        parts = message.parts
        if len(parts) == 1 and kinds is not None and "text" in kinds:
            only = parts[0]
            if (
                only.WhichOneof("kind") == "text"
                and not only.HasField("extra_json")
                and not message.HasField("extra_json")
            ):
                continue  # nearly every message: one plain text
        if kinds is None:
            yield f"messages[{index}].role", "is required and must be a role of content.proto"
        else:
            yield from _message(message, index, kinds)
    for descriptor, value in request.ListFields():
        name = descriptor.name
        bounds = _RANGES.get(name)
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            low, high = bounds
            bound = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
            yield name, f"must be {bound}, not {value:g}"
        check = _CHECKS.get(name)
        if check is not None:
            yield from check(request)


def _message(message: content_pb2.Message, index: int, kinds: frozenset[str]) -> Found:
    if not message.parts and message.role != content_pb2.ROLE_ASSISTANT:
        yield f"messages[{index}].parts", "must hold at least one part"
    if message.HasField("extra_json"):
        yield from _object(f"messages[{index}].extra_json", message.extra_json)
    for place, part in enumerate(message.parts):
        kind = part.WhichOneof("kind")
        if kind == "text" and "text" in kinds and not part.annotations:
            if part.HasField("extra_json"):
                yield from _object(f"messages[{index}].parts[{place}].extra_json", part.extra_json)
            continue
        path = f"messages[{index}].parts[{place}]"
        if kind is None:
            yield path, "has no kind; set one of text, image, audio, file, ..."
        elif kind not in kinds:
            role = content_pb2.Role.Name(message.role).removeprefix("ROLE_").lower()
            yield path, f"a {kind} cannot stand in a message of role {role}"
        else:
            yield from _part(part, kind, path, message.role)


def _part(part: content_pb2.Part, kind: str, path: str, role: content_pb2.Role.ValueType) -> Found:
    if part.HasField("extra_json"):
        yield from _object(f"{path}.extra_json", part.extra_json)
    for place, annotation in enumerate(part.annotations):
        if annotation.HasField("other_json"):
            yield from _object(f"{path}.annotations[{place}].other_json", annotation.other_json)
        elif not annotation.HasField("url_citation"):
            yield f"{path}.annotations[{place}]", "has no kind; set url_citation or other_json"
    if kind == "tool_call":
        if not part.tool_call.name:
            yield f"{path}.tool_call.name", "is required"
    elif kind == "tool_result":
        result = part.tool_result
        if role == content_pb2.ROLE_TOOL and not result.tool_call_id:
            yield f"{path}.tool_result.tool_call_id", "is required"
        if role == content_pb2.ROLE_FUNCTION and not result.name:
            yield f"{path}.tool_result.name", "is required"
        for place, inner in enumerate(result.parts):
            inner_kind = inner.WhichOneof("kind")
            inner_path = f"{path}.tool_result.parts[{place}]"
            if inner.HasField("extra_json"):
                yield from _object(f"{inner_path}.extra_json", inner.extra_json)
            if inner_kind not in _INPUT_KINDS:
                yield inner_path, "must be text, image, audio, file or vendor_part"
            elif inner_kind == "vendor_part":
                yield from _vendor_part(inner.vendor_part, f"{inner_path}.vendor_part")
            elif inner_kind != "text":
                yield from _media(getattr(inner, inner_kind), f"{inner_path}.{inner_kind}", role)
    elif kind in ("image", "audio", "file"):
        yield from _media(getattr(part, kind), f"{path}.{kind}", role)
    elif kind == "vendor_part":
        yield from _vendor_part(part.vendor_part, f"{path}.vendor_part")


def _vendor_part(part: content_pb2.VendorPart, path: str) -> Found:
    if not part.dialect:
        yield f"{path}.dialect", "is required"
    yield from _object(f"{path}.json", part.json)


def _text_completion(request: chat_pb2.ChatRequest) -> Found:
    if request.messages:
        yield "text_completion", "stands in place of messages; send one of them"
    prompt = request.text_completion.prompt_json
    try:
        parsed = msgspec.json.decode(prompt)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        parsed = None
    if not parsed or not isinstance(parsed, str | list):
        yield "text_completion.prompt_json", "must be a JSON string or array, and not empty"


def _media(media: content_pb2.Media, path: str, role: content_pb2.Role.ValueType) -> Found:
    source = media.WhichOneof("source")
    if source is None:
        if not (role == content_pb2.ROLE_ASSISTANT and media.HasField("id")):
            yield path, "has no source; set one of data, url, file_id"
    elif source == "data":
        if not media.media_type:
            yield f"{path}.media_type", "is required with data"
    elif source == "url" and not media.url.startswith(_URLS):
        yield f"{path}.url", f"must be a URL that begins with one of {', '.join(_URLS)}"


def _object(path: str, text: str) -> Found:
    try:
        raw_object(text)
    except MalformedJson as error:
        yield path, f"must be a JSON object: {error.problem}"


def _tools(request: chat_pb2.ChatRequest) -> Found:
    for index, tool in enumerate(request.tools):
        kind = tool.WhichOneof("kind")
        if kind is None:
            yield f"tools[{index}]", "has no kind; set function or provider_tool_json"
        elif kind == "function":
            name = tool.function.name
            if not 1 <= len(name) <= 128:
                yield f"tools[{index}].function.name", "must have 1 to 128 characters"
            if tool.function.parameters_json:
                path = f"tools[{index}].function.parameters_json"
                yield from _object(path, tool.function.parameters_json)
        else:
            yield from _object(f"tools[{index}].provider_tool_json", tool.provider_tool_json)
        if tool.HasField("extra_json"):
            yield from _object(f"tools[{index}].extra_json", tool.extra_json)


def _tool_choice(request: chat_pb2.ChatRequest) -> Found:
    choice = request.tool_choice
    kind = choice.WhichOneof("kind")
    if kind is None:
        yield "tool_choice", "has no kind; set mode, function_name or provider_choice_json"
    elif kind == "mode":
        if choice.mode not in (1, 2, 3):
            yield "tool_choice.mode", "must be none, auto or required"
        elif choice.mode == chat_pb2.ToolChoice.MODE_REQUIRED and not request.tools:
            yield "tool_choice", "cannot be required without tools"
    elif kind == "provider_choice_json":
        yield from _object("tool_choice.provider_choice_json", choice.provider_choice_json)
    elif all(
        tool.function.name != choice.function_name
        for tool in request.tools
        if tool.WhichOneof("kind") == "function"
    ):
        yield "tool_choice", f"names the function {choice.function_name!r}, which is not in tools"


def _response_format(request: chat_pb2.ChatRequest) -> Found:
    form = request.response_format
    kind = form.WhichOneof("kind")
    if kind is None:
        yield "response_format", "has no kind; set text, json_object or json_schema"
    elif kind == "json_schema":
        if not form.json_schema.name:
            yield "response_format.json_schema.name", "is required"
        if form.json_schema.schema_json:
            path = "response_format.json_schema.schema_json"
            yield from _object(path, form.json_schema.schema_json)


def _max_tokens(request: chat_pb2.ChatRequest) -> Found:
    if (
        request.HasField("max_completion_tokens")
        and request.max_tokens != request.max_completion_tokens
    ):
        yield "max_tokens", "differs from max_completion_tokens, which means the same; send one"


def _top_logprobs(request: chat_pb2.ChatRequest) -> Found:
    if not request.logprobs:
        yield "top_logprobs", "needs logprobs to be true"


def _logit_bias(request: chat_pb2.ChatRequest) -> Found:
    for token, bias in request.logit_bias.items():
        if not token.isascii() or not token.isdecimal():
            yield f"logit_bias[{token[:32]!r}]", "must be named by a token id, a decimal number"
        if not -100 <= bias <= 100:
            yield f"logit_bias[{token[:32]!r}]", f"must be from -100 to 100, not {bias:g}"


def _metadata(request: chat_pb2.ChatRequest) -> Found:
    if len(request.metadata) > _MAX_METADATA_PAIRS:
        yield "metadata", f"must hold at most {_MAX_METADATA_PAIRS} pairs"
    for key, value in request.metadata.items():
        if len(key) > _MAX_METADATA_KEY:
            yield "metadata", f"has a key of more than {_MAX_METADATA_KEY} characters"
        if len(value) > _MAX_METADATA_VALUE:
            path = f"metadata[{key[:_MAX_METADATA_KEY]!r}]"
            yield path, f"must have at most {_MAX_METADATA_VALUE} characters"


def _reasoning(request: chat_pb2.ChatRequest) -> Found:
    options = request.reasoning
    if options.HasField("budget_tokens") and options.budget_tokens < 0:
        yield "reasoning.budget_tokens", "must not be negative"
    if options.HasField("native_json"):
        yield from _object("reasoning.native_json", options.native_json)


def _prediction(request: chat_pb2.ChatRequest) -> Found:
    for place, part in enumerate(request.prediction.parts):
        if part.WhichOneof("kind") != "text":
            yield f"prediction.parts[{place}]", "must be text"
        if part.HasField("extra_json"):
            yield from _object(f"prediction.parts[{place}].extra_json", part.extra_json)


def _audio(request: chat_pb2.ChatRequest) -> Found:
    if request.audio.voice.startswith("{"):
        yield from _object("audio.voice", request.audio.voice)


def _provider_options(request: chat_pb2.ChatRequest) -> Found:
    for provider, text in request.provider_options_json.items():
        yield from _object(f"provider_options_json[{provider[:64]!r}]", text)


def _extra_body(request: chat_pb2.ChatRequest) -> Found:
    yield from _object("extra_body_json", request.extra_body_json)


_CHECKS = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "response_format": _response_format,
    "max_tokens": _max_tokens,
    "top_logprobs": _top_logprobs,
    "logit_bias": _logit_bias,
    "metadata": _metadata,
    "reasoning": _reasoning,
    "prediction": _prediction,
    "audio": _audio,
    "provider_options_json": _provider_options,
    "extra_body_json": _extra_body,
}
