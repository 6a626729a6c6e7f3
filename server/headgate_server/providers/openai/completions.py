"""The legacy text completions: POST /completions, for requests with `text_completion`. Pure.

Source: https://platform.openai.com/docs/api-reference/completions. A completion is a choice of one text;
log probabilities in their legacy form stay JSON, in the choice's extras. Which vendors have this API is
said in vendors.toml.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.encoding import Encoding, encode_fields
from headgate_server.providers.openai.address import url_of
from headgate_server.providers.openai.answer import malformed, parse, response_of
from headgate_server.providers.openai.members import add_extra_body, merge_provider_options
from headgate_server.providers.openai.stream import OpenAIStreamDecoder
from headgate_server.providers.openai.tuning import logit_bias
from headgate_server.providers.openai.wire import TEXT_ANSWER, AnswerWire, MessageWire
from headgate_server.providers.vendors import Vendor

_encode_json = msgspec.json.Encoder().encode

# An array, but not of token ids.
_SEVERAL_PROMPTS = re.compile(r'\s*\[\s*["\[]')
# Values that ask for nothing, so that nobody need hear that the vendor does not take them.
_IDLE = {"suffix": "", "echo": False, "best_of": 1}
# Fields that go into the body as they are. The API knows one name for the bound only.
PLAIN_FIELDS = {
    name: name
    for name in (
        "temperature", "top_p", "top_k", "n", "seed", "frequency_penalty", "presence_penalty",
        "user", "max_tokens", "service_tier", "store", "safety_identifier", "prompt_cache_key",
    )
} | {"max_completion_tokens": "max_tokens"}  # fmt: skip


def encode_completion(
    request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
) -> HttpCall:
    """The upstream call.

    Raises:
        InvalidRequest: the vendor has no such API, or the API no place for what is asked.
    """
    path = target.vendor.completions
    if not path:
        raise InvalidRequest.of(
            "text_completion",
            f"provider {target.provider!r} has no text completions API; send messages (a chat) instead",
        )
    encoding = Encoding(request, target, "openai")
    body, asked = encoding.body, request.text_completion
    body["model"] = target.model
    body["prompt"] = msgspec.Raw(asked.prompt_json)
    for descriptor, value in asked.ListFields():
        name = descriptor.name
        if name == "prompt_json" or (
            value == _IDLE.get(name) and name in target.vendor.unsupported
        ):
            continue
        if not encoding.refused(name):
            body[name] = value
    encode_fields(encoding, PLAIN_FIELDS, FIELDS)
    if stream:
        body["stream"] = True
        if target.vendor.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if request.extra_body_json:
        add_extra_body(encoding, request.extra_body_json)
    merge_provider_options(encoding)
    return HttpCall(
        url=url_of(target, endpoint, path if isinstance(path, str) else "/completions"),
        headers=endpoint.headers,
        body=_encode_json(body),
        warnings=encoding.warnings,
    )


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "text_completion": lambda encoding, value: None,  # stands in the body already
    "stop": lambda e, value: e.body.__setitem__("stop", list(value)),
    "metadata": lambda e, value: e.body.__setitem__("metadata", dict(sorted(value.items()))),
    "logit_bias": logit_bias,
}


def decode_completion(body: bytes) -> chat_pb2.ChatResponse:
    """The whole answer. Raises as `answer.decode_answer`."""
    try:
        return response_of(_parse(body), body)
    except MalformedJson as error:
        raise malformed(error) from error


def completion_decoder(
    max_event_bytes: int, vendor: Vendor, request: chat_pb2.ChatRequest
) -> OpenAIStreamDecoder:
    """A decoder for one streamed answer."""
    prompt = request.text_completion.prompt_json
    # Of several completions of one prompt, each tells the tokens of the same prompt.
    several = request.n <= 1 and _SEVERAL_PROMPTS.match(prompt) is not None
    return OpenAIStreamDecoder(max_event_bytes, vendor, parse_chunk=_parse, several_prompts=several)


def _parse(data: bytes) -> AnswerWire:
    """An answer or chunk in the form of a chat's."""
    wire = parse(data, TEXT_ANSWER)
    for choice in wire.choices or ():
        choice.delta = MessageWire(content=getattr(choice, "text", None) or "")
        if bytes(choice.logprobs) not in (b"", b"null"):
            choice.extra = {**(choice.extra or {}), "logprobs": choice.logprobs}
            choice.logprobs = msgspec.Raw()
    return wire
