"""ChatRequest to the body of POST /chat/completions. Pure.

Owns the walk over the request's fields and what the target refuses of them. What conversations are made
of is encoded in `messages`, tuning in `tuning` and `thinking`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, HttpCall, Target
from headgate_server.providers.encoding import Encoding
from headgate_server.providers.openai import tuning
from headgate_server.providers.openai.address import url_of
from headgate_server.providers.openai.members import add_extra_body, merge_provider_options
from headgate_server.providers.openai.messages import encode_messages, encode_tools
from headgate_server.providers.openai.thinking import reasoning

_encode_json = msgspec.json.Encoder().encode

# Fields that go into the body under their own name and as they are.
PLAIN_FIELDS = frozenset(
    {
        "parallel_tool_calls", "temperature", "top_p", "top_k", "n", "seed", "frequency_penalty",
        "presence_penalty", "logprobs", "top_logprobs", "service_tier", "store", "user",
        "safety_identifier", "prompt_cache_key", "verbosity",
    }
)  # fmt: skip


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
    merge_provider_options(encoding)
    return HttpCall(
        url=url_of(target, endpoint, "/chat/completions"),
        headers=endpoint.headers,
        body=_encode_json(body),
        warnings=encoding.warnings,
    )


def _leave_out_unsupported(encoding: Encoding) -> None:
    target, body = encoding.target, encoding.body
    if target.policy == "pass":
        return
    family = target.family
    for owner, names in (
        (f"provider kind {target.kind!r}", target.vendor.unsupported),
        (f"model family {family.name!r}", family.refuses),
    ):
        for name in names:
            # One choice is what everybody gives anyway.
            if name in body and not (name == "n" and body["n"] == 1):
                encoding.leave_out(name, f"{owner} does not take it")
                del body[name]
    if family.refuses_while_thinking and body.get("reasoning_effort", "none") != "none":
        for name in family.refuses_while_thinking:
            if name in body:
                encoding.leave_out(
                    name, f"model family {family.name!r} does not take it while it thinks"
                )
                del body[name]


FIELDS: dict[str, Callable[[Encoding, Any], None]] = {
    "model": lambda encoding, value: None,  # the target's name stands there instead
    "messages": encode_messages,
    "tools": encode_tools,
    "tool_choice": tuning.tool_choice,
    "max_tokens": lambda e, value: tuning.max_tokens(e, value, "max_tokens"),
    "max_completion_tokens": lambda e, value: tuning.max_tokens(e, value, "max_completion_tokens"),
    "stop": lambda e, value: e.body.__setitem__("stop", list(value)),
    "logit_bias": tuning.logit_bias,
    "metadata": lambda e, value: e.body.__setitem__("metadata", dict(sorted(value.items()))),
    "modalities": lambda e, value: e.body.__setitem__("modalities", list(value)),
    "response_format": tuning.response_format,
    "reasoning": reasoning,
    "audio": tuning.audio,
    "prediction": tuning.prediction,
    "web_search_options": tuning.web_search,
    "provider_options_json": lambda encoding, value: None,  # merged last
    "extra_dialect": lambda encoding, value: None,  # says how to read the extra_json texts
    "extra_body_json": add_extra_body,
}
