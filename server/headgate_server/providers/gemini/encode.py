"""ChatRequest to the body of :generateContent, :streamGenerateContent and :countTokens. Pure.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/tokens, and for Vertex AI
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference. Reads top to bottom: the
calls, fields of generationConfig that are copied, fields that need translation, the extras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import raw_object
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.encoding import Encoding, Json, encode_fields
from headgate_server.providers.gemini.address import (
    is_vertex,
    method_url,
    model_path,
)
from headgate_server.providers.gemini.messages import encode_messages
from headgate_server.providers.gemini.thinking import encode_thinking
from headgate_server.providers.gemini.tools import (
    encode_tool_choice,
    encode_tools,
    encode_web_search,
    finish_tool_config,
)

DIALECT = "gemini"
# The order in which readers of the API's documentation expect them.
_ORDER = ("systemInstruction", "contents", "tools", "toolConfig", "generationConfig")
# The model's name is part of the address.
_FIXED = frozenset({"model"})
# Members of a request that make up its prompt; Vertex AI counts the first three only.
_PROMPT = ("contents", "systemInstruction", "tools", "toolConfig", "cachedContent")

# https://cloud.google.com/vertex-ai/generative-ai/docs/flex-paygo, and its page on priority: there the
# tier is a header, and the body's member is not looked at.
_TIER_HEADER = "x-vertex-ai-llm-shared-request-type"
_TIERS = {"default": "standard", "flex": "flex", "priority": "priority"}

_RESOLUTIONS = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}


def encode_request(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: content that this dialect cannot express, or, under the policy "strict",
            tuning that the target lacks.
    """
    encoding = Encoding(request, target, DIALECT)
    encode_messages(encoding)
    encode_fields(encoding, PLAIN_FIELDS, FIELDS)
    finish_tool_config(encoding)
    _detail(encoding)
    encoding.merge_extras(_FIXED)
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    headers = endpoint.headers
    if is_vertex(target):
        headers = {**_tier_header(encoding), **headers}
    body = {name: encoding.body[name] for name in _ORDER if name in encoding.body} | encoding.body
    return encoding.call(method_url(target, endpoint, method), headers, body)


def encode_count(request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint) -> HttpCall:
    """The upstream call that counts the prompt's tokens. Raises as `encode_request` does."""
    encoding = Encoding(request, target, DIALECT)
    encode_messages(encoding)
    if request.tools:
        encode_tools(encoding, request.tools)
    if request.HasField("web_search_options"):
        encode_web_search(encoding, chat_pb2.WebSearchOptions())
    finish_tool_config(encoding)
    if request.extra_body_json and encoding.speaks_extras:
        for name, value in raw_object(request.extra_body_json).items():
            encoding.body.setdefault(name, value)
    allowed = _PROMPT[:3] if is_vertex(target) else _PROMPT
    body: Json = {name: encoding.body[name] for name in allowed if name in encoding.body}
    if not is_vertex(target):
        # Contents alone would be counted without instructions and tools.
        body = {"generateContentRequest": {"model": model_path(target, endpoint), **body}}
    return encoding.call(method_url(target, endpoint, "countTokens"), endpoint.headers, body)


# Fields that generationConfig has under another name.

_GENERATION = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "stop": "stopSequences",
}


PLAIN_FIELDS = {ours: f"generationConfig.{theirs}" for ours, theirs in _GENERATION.items()}

# Fields that need more than a copy. Each takes the encoding and the field's value.


def _reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    thinking = encode_thinking(encoding, options)
    if thinking:
        encoding.put("generationConfig.thinkingConfig", thinking)


def _response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    kind = form.WhichOneof("kind")
    if kind in ("json_object", "json_schema"):
        encoding.put("generationConfig.responseMimeType", "application/json")
    if kind == "json_schema":
        if form.json_schema.schema_json:
            encoding.put(
                "generationConfig.responseJsonSchema", msgspec.Raw(form.json_schema.schema_json)
            )
        if form.json_schema.HasField("description"):
            encoding.warn(
                "response_format.json_schema.description",
                "left out: the gemini API has no place for it; put it into the schema",
            )


def _modalities(encoding: Encoding, modalities: list[str]) -> None:
    encoding.put("generationConfig.responseModalities", [name.upper() for name in modalities])


def _audio(encoding: Encoding, audio: chat_pb2.AudioOptions) -> None:
    """The voice; the format is not ours to choose: 16-bit PCM, as the answer's media type says."""
    if audio.voice:
        voice: object = {"prebuiltVoiceConfig": {"voiceName": audio.voice}}
        if audio.voice.startswith("{"):
            voice = msgspec.Raw(audio.voice)
        encoding.put("generationConfig.speechConfig", {"voiceConfig": voice})
    if audio.format not in ("", "pcm16"):
        encoding.leave_out("audio.format", "the gemini API answers with pcm16 only")


def _service_tier(encoding: Encoding, tier: str) -> None:
    if tier == "auto" or is_vertex(encoding.target):
        return  # that is what no tier means; and Vertex AI wants a header
    encoding.body["serviceTier"] = _TIERS.get(tier, tier)


def _tier_header(encoding: Encoding) -> dict[str, str]:
    tier = encoding.request.service_tier
    if tier in ("flex", "priority"):
        return {_TIER_HEADER: tier}
    if tier not in ("", "auto", "default"):
        encoding.leave_out("service_tier", f"Vertex AI knows flex and priority, not {tier!r}")
    return {}


def _store(encoding: Encoding, store: bool) -> None:
    if is_vertex(encoding.target):
        if store:
            encoding.unsupported("store", store)
    else:
        encoding.body["store"] = store


def _metadata(encoding: Encoding, metadata: Mapping[str, str]) -> None:
    if is_vertex(encoding.target):
        encoding.body["labels"] = dict(sorted(metadata.items()))
    else:
        encoding.unsupported("metadata", dict(metadata))


FIELDS: Mapping[str, Callable[[Encoding, Any], None]] = {
    "tools": encode_tools,
    "tool_choice": encode_tool_choice,
    "web_search_options": encode_web_search,
    "response_format": _response_format,
    "reasoning": _reasoning,
    "modalities": _modalities,
    "audio": _audio,
    "service_tier": _service_tier,
    "store": _store,
    "metadata": _metadata,
}


# How closely to look at images is said once for all media of a request; a resolution for each part is
# experimental: https://ai.google.dev/gemini-api/docs/media-resolution.


def _detail(encoding: Encoding) -> None:
    details = {
        part.image.detail if kind == "image" else None
        for kind, part in _media_parts(encoding.request)
    }
    wanted = details - {None, "", "auto"}
    if not wanted:
        return
    if len(details) == 1 and (resolution := _RESOLUTIONS.get(str(*wanted))):
        encoding.put("generationConfig.mediaResolution", resolution)
        return
    encoding.leave_out(
        "messages.parts.image.detail",
        "the gemini API takes one detail, low or high, for all media of a request",
    )


def _media_parts(request: chat_pb2.ChatRequest) -> Iterator[tuple[str, content_pb2.Part]]:
    for message in request.messages:
        for part in message.parts:
            kind = part.WhichOneof("kind")
            if kind in ("image", "audio", "file"):
                yield kind, part
