"""ChatResponse to OpenAI's chat completion object, and the pieces that streams share with it. Pure.

Source: https://platform.openai.com/docs/api-reference/chat/object: which members there are, their order,
and which are null rather than absent. Beyond them, where there is something to say: `reasoning_content`,
`reasoning_details` and `extra_content` (see proofs.py), `images` as OpenRouter has it, and
`vendor_parts`, blocks that another vendor's API answered with.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_into
from headgate_facade.openai.proofs import extra_content, has_proof, write_details

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode

FINISH_REASONS = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    chat_pb2.FINISH_REASON_REFUSAL: "content_filter",
    chat_pb2.FINISH_REASON_PAUSE: "stop",
    chat_pb2.FINISH_REASON_OTHER: "stop",
}


def write_response(
    response: chat_pb2.ChatResponse, *, legacy_functions: bool, with_reasoning: bool
) -> bytes:
    """The body of a unary answer."""
    body: Json = {
        "id": response.id,
        "object": "chat.completion",
        "created": response.create_time.seconds,
        "model": response.model,
        "choices": [
            _choice(choice, response.served.dialect, legacy_functions, with_reasoning)
            for choice in response.choices
        ],
    }
    if response.HasField("usage"):
        body["usage"] = usage_json(response.usage)
    if response.HasField("service_tier"):
        body["service_tier"] = response.service_tier
    if response.HasField("system_fingerprint"):
        body["system_fingerprint"] = response.system_fingerprint
    if response.HasField("extra_json"):
        merge_into(body, response.extra_json)
    return _encode(body)


def _choice(
    choice: chat_pb2.Choice, dialect: str, legacy_functions: bool, with_reasoning: bool
) -> Json:
    message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    texts: list[str] = []
    thoughts: list[content_pb2.Part] = []
    calls: list[Json] = []
    beyond: dict[str, list[Json]] = {}
    signature = ""
    for part in choice.message.parts:
        kind = part.WhichOneof("kind")
        if kind == "text":
            texts.append(part.text)
            message["annotations"].extend(annotation_json(a) for a in part.annotations)
            signature = part.thought_signature or signature
        elif kind == "reasoning":
            thoughts.append(part)
        elif kind == "tool_call":
            calls.append(call_json(part))
        elif kind == "refusal":
            message["refusal"] = (message["refusal"] or "") + part.refusal
        elif kind == "audio":
            message["audio"] = _audio(part)
        elif kind == "image":
            images = beyond.setdefault("images", [])
            images.append(image_json(part, len(images)))
        elif kind == "vendor_part":
            blocks = beyond.setdefault("vendor_parts", [])
            blocks.append(vendor_part_json(part.vendor_part, len(blocks)))
    if texts or not (calls or message["refusal"] or "audio" in message or "images" in beyond):
        message["content"] = "".join(texts)
    if thoughts:
        if with_reasoning:
            message["reasoning_content"] = "".join(part.reasoning.text for part in thoughts)
        if any(has_proof(part.reasoning) for part in thoughts):
            details: list[Json] = []
            for part in thoughts:
                details += write_details(part, dialect, len(details))
            beyond["reasoning_details"] = details
    if calls and legacy_functions:
        message["function_call"] = calls[0].get("function")
    elif calls:
        message["tool_calls"] = calls
    message |= beyond
    if choice.message.HasField("extra_json"):
        merge_into(message, choice.message.extra_json)
    if signature:
        message.setdefault("extra_content", extra_content(signature))
    body: Json = {
        "index": choice.index,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(choice.finish_reason, legacy_functions=legacy_functions),
    }
    if choice.HasField("logprobs"):
        body["logprobs"] = {
            "content": [token_json(t) for t in choice.logprobs.content] or None,
            "refusal": [token_json(t) for t in choice.logprobs.refusal] or None,
        }
    if choice.HasField("extra_json"):
        merge_into(body, choice.extra_json)
    return body


def finish_reason(reason: chat_pb2.FinishReason.ValueType, *, legacy_functions: bool) -> str:
    """OpenAI's word for why an answer ended."""
    if legacy_functions and reason == chat_pb2.FINISH_REASON_TOOL_CALLS:
        return "function_call"
    return FINISH_REASONS.get(reason, "stop")


def call_json(part: content_pb2.Part) -> Json:
    """A tool call, with its arguments as far as they are known."""
    call = part.tool_call
    body: Json
    if call.custom:
        custom = {"name": call.name, "input": call.arguments_json}
        body = {"id": call.id, "type": "custom", "custom": custom}
    else:
        function = {"name": call.name, "arguments": call.arguments_json}
        body = {"id": call.id, "type": "function", "function": function}
    return with_extras(body, part)


def with_extras(body: Json, part: content_pb2.Part) -> Json:
    """The same body with the part's unknown members and Gemini's proof."""
    if part.HasField("extra_json"):
        merge_into(body, part.extra_json)
    if part.thought_signature:
        body.setdefault("extra_content", extra_content(part.thought_signature))
    return body


def image_json(part: content_pb2.Part, index: int) -> Json:
    """A generated image; bytes as a data: URL."""
    image = part.image
    url = image.url
    if image.WhichOneof("source") == "data":
        url = f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
    return with_extras({"type": "image_url", "image_url": {"url": url}, "index": index}, part)


def vendor_part_json(block: content_pb2.VendorPart, index: int) -> Json:
    """A block of another vendor's API."""
    return {"dialect": block.dialect, "json": msgspec.Raw(block.json), "index": index}


def _audio(part: content_pb2.Part) -> Json:
    data = base64.b64encode(part.audio.data).decode()
    return {**audio_facts(part), "data": data, "transcript": part.audio.transcript}


def audio_facts(part: content_pb2.Part) -> Json:
    """What is known of audio beside its bytes and words."""
    body: Json = {}
    if part.audio.HasField("id"):
        body["id"] = part.audio.id
    if part.audio.HasField("expire_time"):
        body["expires_at"] = part.audio.expire_time.seconds
    if part.HasField("extra_json"):
        merge_into(body, part.extra_json)
    return body


def annotation_json(annotation: content_pb2.Annotation) -> object:
    """A citation."""
    if annotation.HasField("other_json"):
        return msgspec.Raw(annotation.other_json)
    cited = annotation.url_citation
    citation = {
        "url": cited.url,
        "title": cited.title,
        "start_index": cited.start_index,
        "end_index": cited.end_index,
    }
    return {"type": "url_citation", "url_citation": citation}


def token_json(token: chat_pb2.TokenLogprob) -> Json:
    """A token's log probabilities."""
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": list(token.bytes) if token.HasField("bytes") else None,
        "top_logprobs": [
            {
                "token": top.token,
                "logprob": top.logprob,
                "bytes": list(top.bytes) if top.HasField("bytes") else None,
            }
            for top in token.top
        ],
    }


def usage_json(usage: chat_pb2.Usage) -> Json:
    """The usage object. Details appear only if the provider told one of them."""
    body: Json = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    for field, count in usage.ListFields():
        place = _USAGE_DETAILS.get(field.name)
        if place is not None:
            body.setdefault(place[0], {})[place[1]] = count
    if usage.HasField("extra_json"):
        merge_into(body, usage.extra_json)
    return body


_USAGE_DETAILS = {
    "cached_input_tokens": ("prompt_tokens_details", "cached_tokens"),
    "audio_input_tokens": ("prompt_tokens_details", "audio_tokens"),
    "cache_write_input_tokens": ("prompt_tokens_details", "cache_write_tokens"),
    "reasoning_output_tokens": ("completion_tokens_details", "reasoning_tokens"),
    "audio_output_tokens": ("completion_tokens_details", "audio_tokens"),
    "accepted_prediction_tokens": ("completion_tokens_details", "accepted_prediction_tokens"),
    "rejected_prediction_tokens": ("completion_tokens_details", "rejected_prediction_tokens"),
}
