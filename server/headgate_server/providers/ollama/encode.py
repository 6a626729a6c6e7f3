"""ChatRequest to the body of POST /api/chat. Pure.

What shapes the answer stands in `options`; an extra or a provider option of that name is merged with it
member by member, so that `{"options": {"num_ctx": 8192}}` adds to what the caller tuned. The conversation
and the tools are encoded in `messages`.

Source: https://docs.ollama.com/api/chat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, raw_object, raw_text
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.encoding import Encoding, encode_fields
from headgate_server.providers.ollama.messages import encode_messages, encode_tools
from headgate_server.providers.shapes import ABSENT

NAME = "ollama"

PLAIN_FIELDS = {
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "temperature": "options.temperature",
    "top_p": "options.top_p",
    "top_k": "options.top_k",
    "max_completion_tokens": "options.num_predict",
    "max_tokens": "options.num_predict",
    "stop": "options.stop",
    "seed": "options.seed",
    "frequency_penalty": "options.frequency_penalty",
    "presence_penalty": "options.presence_penalty",
}
# Members that the gateway decides about: whoever may use one model could name another here.
FIXED_MEMBERS = frozenset({"model", "stream"})
# Efforts of others that it has under another name: https://docs.ollama.com/api/openai-compatibility
_EFFORTS = {"minimal": "low", "xhigh": "max"}


def encode_request(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: content that this API cannot express, or, under the policy "strict", tuning
            that it lacks.
    """
    encoding = Encoding(request, target, NAME)
    body = encoding.body
    body["model"] = target.model
    if not request.HasField("text_completion"):
        body["messages"] = encode_messages(encoding)
    encode_fields(encoding, PLAIN_FIELDS, FIELDS)
    body["stream"] = stream
    _check_options(request)
    encoding.merge_extras(FIXED_MEMBERS)
    if "options" in body:
        body["options"] = body.pop("options")  # the longest member stands last
    # Settings for its OpenAI-compatible API name the path of that.
    return encoding.call(f"{endpoint.base_url.removesuffix('/v1')}/api/chat", endpoint.headers)


def _check_options(request: chat_pb2.ChatRequest) -> None:
    """Raises `InvalidRequest` for options that cannot be merged with ours."""
    given = {"extra_body_json": request.extra_body_json}
    for key, text in request.provider_options_json.items():
        given[f"provider_options_json[{key!r}]"] = text
    for field, text in given.items():
        options = raw_object(text).get("options", ABSENT) if '"options"' in text else ABSENT
        try:
            raw_object(raw_text(options) or "{}")
        except MalformedJson as error:
            raise InvalidRequest.of(
                field, f"holds options that are not a JSON object: {error.problem}"
            ) from error


# Tuning that needs more than a copy. Each takes the encoding and the field's value.


def _tool_choice(encoding: Encoding, choice: chat_pb2.ToolChoice) -> None:
    # "auto" is what it does; for "none" the tools stay away.
    if choice.mode not in (chat_pb2.ToolChoice.MODE_AUTO, chat_pb2.ToolChoice.MODE_NONE):
        encoding.leave_out("tool_choice", "Ollama cannot force a call; the model decides")


def _response_format(encoding: Encoding, form: chat_pb2.ResponseFormat) -> None:
    kind = form.WhichOneof("kind")
    if kind == "json_schema":
        schema = form.json_schema
        if schema.HasField("description"):
            encoding.leave_out(
                "response_format.json_schema.description", "Ollama takes the schema alone"
            )
        if schema.schema_json:
            encoding.body["format"] = msgspec.Raw(schema.schema_json.encode())
            return
    if kind != "text":
        encoding.body["format"] = "json"


def _reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    family, model = encoding.target.family, encoding.target.model
    for name in ("budget_tokens", "native_json"):
        if options.HasField(name):
            encoding.leave_out(
                f"reasoning.{name}", "Ollama has no such parameter; use reasoning.effort"
            )
    if options.HasField("summary") and options.summary != "auto":
        encoding.leave_out("reasoning.summary", "Ollama shows all of the thinking or none")
    effort = options.effort
    if not effort and not options.HasField("enabled"):
        return
    field = "reasoning.effort" if effort else "reasoning.enabled"
    think: bool | str = options.enabled
    if effort:
        think = False if effort == "none" else _EFFORTS.get(effort, effort)
    if encoding.target.policy == "pass":
        encoding.body["think"] = think
    elif think and family.reasoning is False:
        # It would answer 400.
        encoding.leave_out(field, f"{model!r} does not think")
    elif not think and family.efforts and "none" not in family.efforts:
        # https://docs.ollama.com/capabilities/thinking: it would ignore the boolean.
        encoding.leave_out(field, f"{model!r} cannot but think; choose an effort")
    else:
        encoding.body["think"] = think


def _modalities(encoding: Encoding, values: Any) -> None:
    for place, value in enumerate(values):
        if value != "text":
            raise InvalidRequest.of(
                f"modalities[{place}]", f"is {value!r:.40}, but Ollama answers with text only"
            )


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "tools": encode_tools,
    "tool_choice": _tool_choice,
    "response_format": _response_format,
    "reasoning": _reasoning,
    "modalities": _modalities,
}
