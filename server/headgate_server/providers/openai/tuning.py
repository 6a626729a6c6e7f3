"""Fields of the request that need more than a copy, each to its OpenAI form. Pure.

Source: https://platform.openai.com/docs/api-reference/chat/create. Each takes the encoding and the
field's value. How much to think is in `thinking`, messages and tools are in `messages`.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from headgate.v1 import chat_pb2
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.openai.messages import encode_content

TOOL_CHOICE_MODES = {
    chat_pb2.ToolChoice.MODE_NONE: "none",
    chat_pb2.ToolChoice.MODE_AUTO: "auto",
    chat_pb2.ToolChoice.MODE_REQUIRED: "required",
}


def max_tokens(encoding: Encoding, value: int, spelled: str) -> None:
    """The bound, under the name that model or vendor knows; `spelled` is the caller's."""
    family, vendor = encoding.target.family, encoding.target.vendor
    wanted = family.max_tokens_field if family.max_tokens_field != "as_sent" else (
        vendor.max_tokens_field
    )  # fmt: skip
    # Both spellings at once are an error at OpenAI; the newer one comes first.
    if "max_completion_tokens" not in encoding.body:
        encoding.body[spelled if wanted == "as_sent" else wanted] = value


def logit_bias(encoding: Encoding, bias: dict[str, float]) -> None:
    """Biases. Whole numbers go out as such: some servers declare the values as integers."""
    encoding.body["logit_bias"] = {
        token: int(value) if value.is_integer() else value for token, value in sorted(bias.items())
    }


def tool_choice(encoding: Encoding, choice: chat_pb2.ToolChoice) -> None:
    """Which tools may be called."""
    kind = choice.WhichOneof("kind")
    value: object
    if kind == "mode":
        value = TOOL_CHOICE_MODES[choice.mode]
    elif kind == "function_name":
        value = {"type": "function", "function": {"name": choice.function_name}}
    elif kind == "provider_choice_json":
        if not encoding.speaks_extras:
            encoding.unsupported_extra("tool_choice.provider_choice_json")
            return
        value = msgspec.Raw(choice.provider_choice_json)
    elif kind is None:
        return
    else:
        assert_never(kind)
    encoding.body["tool_choice"] = value


def response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    """The form of the answer."""
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


def audio(encoding: Encoding, options: chat_pb2.AudioOptions) -> None:
    """Voice and format of spoken answers."""
    custom = options.voice.startswith("{")
    encoding.body["audio"] = {
        "voice": msgspec.Raw(options.voice) if custom else options.voice,
        "format": options.format,
    }


def prediction(encoding: Encoding, predicted: chat_pb2.Prediction) -> None:
    """Text that the answer will mostly repeat."""
    encoding.body["prediction"] = {
        "type": "content",
        "content": encode_content(encoding, predicted.parts, "prediction.parts"),
    }


def web_search(encoding: Encoding, options: chat_pb2.WebSearchOptions) -> None:
    """Web search by the model."""
    value: Json = {}
    if options.HasField("search_context_size"):
        value["search_context_size"] = options.search_context_size
    if options.HasField("user_location"):
        place = {d.name: text for d, text in options.user_location.ListFields()}
        value["user_location"] = {"type": "approximate", "approximate": place}
    encoding.body["web_search_options"] = value
