"""What a provider dialect is: pure translations between the proto messages and one wire format.

Owns the values that cross this border. A dialect does no I/O and keeps no state but a stream
decoder's; it never imports another dialect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from headgate.errors import GatewayError
from headgate.v1 import chat_pb2
from headgate_server.config import Concurrency, Price
from headgate_server.providers.vendors import Family, Vendor

UnsupportedPolicy = Literal["strict", "drop", "pass"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is reached, and the headers that authenticate us there.

    Attributes:
        base_url: as for the vendor's own SDK, without a slash at the end.
        headers: of every request, by lower-case name.
        region, project: of clouds that have them in their paths.
    """

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    region: str | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one upstream call, in seconds.

    Attributes:
        connect: to open a connection, TLS included.
        first_byte: from sending the request to the answer's head.
        first_token: from sending the request to the first content of a stream.
        idle: the longest silence within an answer; of a stream, between two pieces of content.
        total: for everything.
    """

    connect: float = 10.0
    first_byte: float = 600.0
    first_token: float = 600.0
    idle: float = 300.0
    total: float = 3600.0


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and a model there, with the facts that translation depends on.

    Attributes:
        provider: the provider's name in the configuration.
        kind: the provider's kind.
        model: the upstream's name of the model.
        vendor: facts of that kind.
        family: facts of the model's family.
        policy: what to do with tuning that the target lacks.
        timeouts: limits of an attempt, where the model's differ from the provider's; None if they do not.
        weight: its share of requests, where the strategy goes by weight.
        price: what its tokens cost, if the configuration says so.
        concurrency: how many attempts run at a time, if the configuration says so for this target.
    """

    provider: str
    kind: str
    model: str
    vendor: Vendor
    family: Family
    policy: UnsupportedPolicy = "drop"
    api_version: str | None = None
    timeouts: Timeouts | None = None
    weight: float = 1.0
    price: Price | None = None
    concurrency: Concurrency | None = None


@dataclass(frozen=True, slots=True)
class HttpCall:
    """An upstream request, ready to be sent with POST.

    Attributes:
        warnings: what the translation left out or changed.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    warnings: Sequence[chat_pb2.Warning] = ()


class StreamDecoder(Protocol):
    """Turns the bytes of a streamed answer into events, the same for every cut of the bytes.

    The events leave out `served` and the request's warnings: the core adds them.
    """

    @property
    def done(self) -> bool:
        """Whether the answer has said that it is over, so that nothing is to be waited for."""
        ...

    def feed(self, data: bytes) -> list[chat_pb2.ChatEvent]:
        """Takes the next bytes. Raises `GatewayError` for an error in the stream or nonsense."""
        ...

    def finish(self) -> list[chat_pb2.ChatEvent]:
        """The end of the body. Raises `UpstreamProtocol` if the answer is not whole."""
        ...


class Dialect(Protocol):
    """One wire format.

    Attributes:
        name: as in `ChatRequest.extra_dialect`, `Reasoning.dialect` and `Served.dialect`.
    """

    name: str

    def encode(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint, *, stream: bool
    ) -> HttpCall:
        """The upstream request. Raises `InvalidRequest` for content that the target cannot take."""
        ...

    def decode(
        self, body: bytes, request: chat_pb2.ChatRequest, target: Target
    ) -> chat_pb2.ChatResponse:
        """The answer to a unary call with status 200. Raises `UpstreamProtocol` for nonsense."""
        ...

    def stream_decoder(self, request: chat_pb2.ChatRequest, target: Target) -> StreamDecoder:
        """A decoder for one streamed answer."""
        ...

    def error_in_body(self, body: bytes) -> GatewayError | None:
        """The error in a body that came with status 200 where a stream was due; None if none."""
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """The error behind an answer with another status. Never raises."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """What a dialect has besides, if its API counts the tokens of a prompt."""

    def encode_count(
        self, request: chat_pb2.ChatRequest, target: Target, endpoint: Endpoint
    ) -> HttpCall | None:
        """The upstream request that counts; None if it does not for this model. Raises as `encode`."""
        ...

    def decode_count(self, body: bytes) -> int:
        """The number in an answer with status 200. Raises `UpstreamProtocol` for nonsense."""
        ...
