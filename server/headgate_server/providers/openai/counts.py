"""The numbers of an answer: tokens used, log probabilities. Pure."""

from __future__ import annotations

import msgspec

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate.wire import Extra, MalformedJson, json_text
from headgate_server.providers.openai.wire import LOGPROBS, Number, TokenLogprobWire, UsageWire


def whole(number: Number) -> int:
    """An index or count; vendors in dynamic languages send 1.0 for 1."""
    value = int(number)
    if not -(2**31) <= value < 2**63:
        raise UpstreamProtocol("the upstream sent a number out of range")
    return value


def decode_logprobs(raw: msgspec.Raw) -> chat_pb2.Logprobs | None:
    """Log probabilities; None if there are none, or in a form older than OpenAI's present one."""
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        wire = LOGPROBS.decode(bytes(raw))
    except MalformedJson:
        return None
    return chat_pb2.Logprobs(
        content=[_token(token) for token in wire.content or ()],
        refusal=[_token(token) for token in wire.refusal or ()],
    )


def _token(wire: TokenLogprobWire) -> chat_pb2.TokenLogprob:
    token = chat_pb2.TokenLogprob(token=wire.token, logprob=_logprob(wire.logprob))
    if wire.bytes is not None:
        token.bytes = _token_bytes(wire.bytes)
    for top in wire.top_logprobs or ():
        added = token.top.add(token=top.token, logprob=_logprob(top.logprob))
        if top.bytes is not None:
            added.bytes = _token_bytes(top.bytes)
    return token


def _logprob(value: Number | None) -> float:
    return -9999.0 if value is None else float(value)


def _token_bytes(values: list[int]) -> bytes:
    try:
        return bytes(values)
    except ValueError as error:
        raise UpstreamProtocol("the upstream's token bytes are not bytes") from error


def decode_usage(wire: UsageWire, usage: chat_pb2.Usage) -> chat_pb2.Usage:
    """Fills `usage`; details stay unset where the vendor tells nothing."""
    prompt, completion = whole(wire.prompt_tokens or 0), whole(wire.completion_tokens or 0)
    total = prompt + completion if wire.total_tokens is None else whole(wire.total_tokens)
    usage.input_tokens, usage.output_tokens, usage.total_tokens = prompt, completion, total
    extras: dict[str, msgspec.Raw] = dict(wire.extra or {})
    cached: Number | None = None
    if (details := wire.prompt_tokens_details) is not None:
        cached = details.cached_tokens
        if details.audio_tokens is not None:
            usage.audio_input_tokens = whole(details.audio_tokens)
        if details.cache_write_tokens is not None:
            usage.cache_write_input_tokens = whole(details.cache_write_tokens)
        nest(extras, "prompt_tokens_details", details.extra)
    if cached is None:
        cached = wire.prompt_cache_hit_tokens if wire.cached_tokens is None else wire.cached_tokens
    if cached is not None:
        usage.cached_input_tokens = whole(cached)
    if (out := wire.completion_tokens_details) is not None:
        if out.reasoning_tokens is not None:
            usage.reasoning_output_tokens = whole(out.reasoning_tokens)
        if out.audio_tokens is not None:
            usage.audio_output_tokens = whole(out.audio_tokens)
        if out.accepted_prediction_tokens is not None:
            usage.accepted_prediction_tokens = whole(out.accepted_prediction_tokens)
        if out.rejected_prediction_tokens is not None:
            usage.rejected_prediction_tokens = whole(out.rejected_prediction_tokens)
        nest(extras, "completion_tokens_details", out.extra)
    text = json_text(extras)
    if text:
        usage.extra_json = text
    return usage


def nest(extras: dict[str, msgspec.Raw], name: str, inner: Extra) -> None:
    """Keeps the unknown members of an object inside under that object's name."""
    if inner:
        extras[name] = msgspec.Raw(msgspec.json.encode(inner))
