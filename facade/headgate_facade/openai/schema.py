"""JSON Schemas of the objects that chat_out.py and chunks_out.py write, for the OpenAPI document.

Source: https://platform.openai.com/docs/api-reference/chat/object and .../chat/streaming. Nothing here
runs for a request; a test holds the writers to it.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FINISH_REASONS = ["stop", "length", "tool_calls", "content_filter", "function_call"]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(description: str, required: str, **properties: Schema) -> Schema:
    """Open, because members that only a vendor knows pass through."""
    return {
        "type": "object",
        "description": description,
        "required": required.split(),
        "properties": properties,
        "additionalProperties": True,
    }


_DELTA: Schema = {
    "role": {"const": "assistant"},
    "content": _NULLABLE_TEXT,
    "refusal": _NULLABLE_TEXT,
    "reasoning_content": _TEXT | {"description": "The model's thinking, where it shows it."},
    "annotations": _list(_ref("Annotation")),
    "reasoning_details": _list(_ref("ReasoningDetail"))
    | {"description": "Thinking with the proofs of its maker, to be sent back unchanged."},
    "images": _list(_ref("GeneratedImage")),
    "vendor_parts": _list(_ref("VendorPart"))
    | {"description": "Blocks that only another vendor's API has, to be sent back unchanged."},
    "extra_content": _ref("ExtraContent"),
}
_LOGPROBS = _or_null(_ref("Logprobs"))
_ENVELOPE: Schema = {
    "id": _TEXT,
    "created": {"type": "integer", "description": "Unix time."},
    "model": _TEXT | {"description": "The model that answered, in the provider's words."},
    "service_tier": _TEXT,
    "system_fingerprint": _TEXT,
}

SCHEMAS: dict[str, Schema] = {
    "ChatCompletion": _object(
        "A whole answer.",
        "id object created model choices",
        object={"const": "chat.completion"},
        choices=_list(_ref("Choice")),
        usage=_ref("Usage"),
        **_ENVELOPE,
    ),
    "Choice": _object(
        "One of the answers.",
        "index message logprobs finish_reason",
        index=_COUNT,
        message=_ref("Answer"),
        logprobs=_LOGPROBS,
        finish_reason={"enum": _FINISH_REASONS},
    ),
    "Answer": _object(
        "The assistant's message. `tool_calls` and the like are absent where there are none.",
        "role content refusal",
        **_DELTA,
        audio=_ref("Audio"),
        tool_calls=_list(_ref("AnswerToolCall")),
        function_call=_ref("AnswerFunction"),
    ),
    "AnswerToolCall": _object(
        "A call that the model asks for.",
        "id type",
        id=_TEXT,
        type={"enum": ["function", "custom"]},
        function=_ref("AnswerFunction"),
        custom=_object("A custom tool's call.", "name input", name=_TEXT, input=_TEXT),
        extra_content=_ref("ExtraContent"),
    ),
    "ReasoningDetail": _object(
        "A piece of thinking, as OpenRouter shows it; `format` says whose proof it holds.",
        "type index",
        type=_TEXT
        | {"description": "`reasoning.text`, `reasoning.summary` or `reasoning.encrypted`."},
        text=_TEXT,
        summary=_TEXT,
        data=_TEXT,
        signature=_TEXT,
        id=_TEXT,
        format=_TEXT,
        index=_COUNT,
    ),
    "GeneratedImage": _object(
        "A generated image, as OpenRouter shows it: a data: URL, or another.",
        "type image_url",
        type={"const": "image_url"},
        image_url=_object("Where it is.", "url", url=_TEXT),
        index=_COUNT,
    ),
    "VendorPart": _object(
        "A block of a vendor's own.",
        "dialect json",
        dialect=_TEXT | {"description": "The API that it belongs to, such as `anthropic`."},
        json={"type": "object"},
        index=_COUNT,
    ),
    "ExtraContent": _object(
        "Gemini's proof of the thoughts behind a call or a text, to be sent back unchanged.",
        "",
        google=_object("Google's.", "", thought_signature=_TEXT),
    ),
    "AnswerFunction": _object(
        "A function and its arguments, JSON as a string.",
        "name arguments",
        name=_TEXT,
        arguments=_TEXT,
    ),
    "Annotation": _object(
        "Where a statement comes from.",
        "type",
        type=_TEXT,
        url_citation=_object(
            "A web page.",
            "url title start_index end_index",
            url=_TEXT,
            title=_TEXT,
            start_index=_COUNT,
            end_index=_COUNT,
        ),
    ),
    "Audio": _object(
        "Speech; in chunks, a piece of it.",
        "",
        id=_TEXT,
        expires_at={"type": "integer"},
        data=_TEXT | {"description": "Base64."},
        transcript=_TEXT,
    ),
    "Logprobs": _object(
        "Log probabilities of the tokens.",
        "content refusal",
        content=_or_null(_list(_ref("TokenLogprob"))),
        refusal=_or_null(_list(_ref("TokenLogprob"))),
    ),
    "TokenLogprob": _object(
        "A token and how likely it was.",
        "token logprob bytes",
        token=_TEXT,
        logprob={"type": "number"},
        bytes={"type": ["array", "null"], "items": {"type": "integer"}},
        top_logprobs=_list(_ref("TokenLogprob")),
    ),
    "Usage": _object(
        "Tokens used.",
        "prompt_tokens completion_tokens total_tokens",
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details={"type": "object", "additionalProperties": True},
        completion_tokens_details={"type": "object", "additionalProperties": True},
    ),
    "ChatCompletionChunk": _object(
        "A piece of a streamed answer: the data of one server-sent event. `[DONE]` ends the stream; an "
        "error envelope in its place means that the answer is not whole.",
        "id object created model choices",
        object={"const": "chat.completion.chunk"},
        choices=_list(_ref("ChunkChoice")),
        usage=_or_null(_ref("Usage"))
        | {"description": "Only with stream_options.include_usage: null but in the last chunk."},
        **_ENVELOPE,
    ),
    "ChunkChoice": _object(
        "What one choice adds.",
        "index delta logprobs finish_reason",
        index=_COUNT,
        delta=_object(
            "The message's next piece.",
            "",
            **_DELTA,
            audio=_ref("Audio"),
            tool_calls=_list(
                _object(
                    "A piece of the call at this index.",
                    "index",
                    index=_COUNT,
                    id=_TEXT,
                    type={"enum": ["function", "custom"]},
                    function={"type": "object"},
                    custom={"type": "object"},
                )
            ),
            function_call={"type": "object"},
        ),
        logprobs=_LOGPROBS,
        finish_reason={"enum": [*_FINISH_REASONS, None]},
    ),
}
