"""The shape of a legacy text completion request.

Source: https://platform.openai.com/docs/api-reference/completions/create. Members that no field names
travel on in the `extra` slot.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_facade.openai.wire import Int64, Positive, StreamOptions, Wire

Natural = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class CompletionBody(Wire):
    """The body of POST /v1/completions."""

    model: str
    prompt: msgspec.Raw  # a string, strings, token ids, or lists of token ids
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    echo: bool | None = None
    best_of: Natural | None = None
    logprobs: Natural | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Positive | None = None
    seed: Int64 | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    user: str | None = None
    extra: Extra = extra_slot()


COMPLETION_BODY = ShapeDecoder(CompletionBody)
