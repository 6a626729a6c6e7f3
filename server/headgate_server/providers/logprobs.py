"""Log probabilities in the form that OpenAI made common. Pure."""

from __future__ import annotations

from headgate.errors import UpstreamProtocol
from headgate.v1 import chat_pb2
from headgate.wire import Extra, extra_slot
from headgate_server.providers.shapes import Number, Wire

_IMPOSSIBLE = -9999.0  # what OpenAI says of a token outside of the 20 most likely ones


class TopLogprobWire(Wire):
    """An alternative for a token."""

    token: str | None = None
    logprob: Number | None = None
    bytes: list[int] | None = None
    extra: Extra = extra_slot()


class TokenLogprobWire(TopLogprobWire):
    """A token and how likely it was."""

    top_logprobs: list[TopLogprobWire] | None = None


def decode_token(wire: TokenLogprobWire) -> chat_pb2.TokenLogprob:
    """The message for a token. Raises `UpstreamProtocol` for bytes that are none."""
    token = chat_pb2.TokenLogprob()
    _fill(token, wire)
    for top in wire.top_logprobs or ():
        _fill(token.top.add(), top)
    return token


def _fill(token: chat_pb2.TokenLogprob | chat_pb2.TopLogprob, wire: TopLogprobWire) -> None:
    token.token = wire.token or ""
    token.logprob = _IMPOSSIBLE if wire.logprob is None else float(wire.logprob)
    if wire.bytes is not None:
        try:
            token.bytes = bytes(wire.bytes)
        except ValueError as error:
            raise UpstreamProtocol("the upstream's token bytes are not bytes") from error
