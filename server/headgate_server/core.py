"""The core: everything that happens to a call between the front door and the upstream.

::

    authenticate -> validate -> route -> check content -> kept answers -> execute -> settle

`Core` is the in-process `headgate.ChatCore`; the gRPC servicers are thin adapters around it. It holds no
gRPC types and opens no sockets.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from headgate.core import CallContext, EventStream
from headgate.errors import DeadlineExceeded, InvalidRequest
from headgate.v1 import chat_pb2, model_service_pb2
from headgate_server.answers import Answers
from headgate_server.auth import Authenticator, Caller
from headgate_server.call import Call
from headgate_server.catalog import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    check_content,
    describe,
)
from headgate_server.estimate import estimate_tokens
from headgate_server.execute import Executor
from headgate_server.health import Board
from headgate_server.prices import Prices
from headgate_server.providers.runtime import Provider
from headgate_server.routing import Router, not_found
from headgate_server.settlement import Hook, Settlement, Settling
from headgate_server.shadow import Shadows
from headgate_server.validate import validate


class Setup(msgspec.Struct, eq=False):
    """All that a configuration decides; another configuration is another one.

    Attributes:
        authenticator: who may call.
        router: which targets serve a model.
        executor: makes the attempts.
        answers: those that are kept, and calls that share one.
        shadows: copies of calls.
        board: how the targets are.
        providers: by name.
        prices: the price list.
        running: calls that use it now.
    """

    authenticator: Authenticator
    router: Router
    executor: Executor
    answers: Answers
    shadows: Shadows
    board: Board
    providers: Mapping[str, Provider]
    prices: Prices
    running: int = 0


class Core:
    """Satisfies `headgate.ChatCore` directly.

    Args:
        setup: what the configuration says.
        hooks: get the settlement of each chat call.

    Attributes:
        setup: the current one. A call keeps the one that it began with.
    """

    def __init__(self, setup: Setup, hooks: Sequence[Hook] = ()) -> None:
        self.setup = setup
        self._hooks = tuple(hooks)
        self._serving = True

    def use(self, setup: Setup) -> Setup:
        """Serves new calls with another setup; returns the one before, which may still have calls."""
        before, self.setup = self.setup, setup
        return before

    async def chat_complete(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> chat_pb2.ChatResponse:
        """Runs a completion and returns it whole."""
        setup = self.setup
        with self._open(setup, request, context, streamed=False) as settling:
            record = settling.record
            call = admit(setup, request, context, record)
            if setup.answers.wanted(call, streamed=False):
                return await setup.answers.complete(
                    call, record, lambda own: _complete(setup, call, own)
                )
            return await _complete(setup, call, record)

    def chat_stream(self, request: chat_pb2.ChatRequest, context: CallContext) -> EventStream:
        """Runs a completion and returns its events as they arrive."""
        return EventStream(self._events(request, context))

    async def count_tokens(
        self, request: chat_pb2.CountTokensRequest, context: CallContext
    ) -> chat_pb2.CountTokensResponse:
        """Counts the tokens of a prompt, or estimates them where the provider does not count."""
        setup, asked = self.setup, request.request
        with self._open(setup, asked, context, streamed=False) as settling:
            call = admit(setup, asked, context, settling.record)
            counted = await setup.executor.count_tokens(call, settling.record)
            if counted is None:
                counted = chat_pb2.CountTokensResponse(
                    input_tokens=estimate_tokens(asked), estimated=True
                )
        return counted

    async def list_models(
        self, request: model_service_pb2.ListModelsRequest, context: CallContext
    ) -> model_service_pb2.ListModelsResponse:
        """One page of the models that the caller may use, sorted by id."""
        setup = self.setup
        with _unsettled(context):
            caller = setup.authenticator.authenticate(context)
            if request.page_size < 0:
                raise InvalidRequest.of("page_size", "must not be negative")
            size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
            after = _read_page_token(request.page_token)
            routes = setup.router.routes
            ids = sorted(name for name in routes if name > after and caller.may_use(name))
            await setup.prices.load()
            response = model_service_pb2.ListModelsResponse(
                models=[describe(routes[name], setup.prices) for name in ids[:size]]
            )
            if len(ids) > size:
                response.next_page_token = _write_page_token(ids[size - 1])
            return response

    async def get_model(
        self, request: model_service_pb2.GetModelRequest, context: CallContext
    ) -> model_service_pb2.Model:
        """One model."""
        setup = self.setup
        with _unsettled(context):
            caller = setup.authenticator.authenticate(context)
            if not request.id:
                raise InvalidRequest.of("id", "is required")
            _check_permission(setup, caller, request.id)
            route = setup.router.route(request.id)
            await setup.prices.load()
            return describe(route, setup.prices)

    async def ready(self) -> bool:
        """Whether calls are taken."""
        return self._serving

    def drain(self) -> None:
        """Says from now on that no new calls should come; running ones go on."""
        self._serving = False

    async def _events(
        self, request: chat_pb2.ChatRequest, context: CallContext
    ) -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
        setup = self.setup
        with self._open(setup, request, context, streamed=True) as settling:
            record = settling.record
            call = admit(setup, request, context, record)
            if setup.answers.wanted(call, streamed=True):
                events = setup.answers.stream(call, record, lambda own: _stream(setup, call, own))
            else:
                events = _stream(setup, call, record)
            # `aclosing`, here and below: a generator that is merely dropped is closed when the
            # garbage collector comes by, and until then the upstream's socket stays open.
            async with aclosing(events):
                async for batch in events:
                    settling.first_event()
                    if batch[-1].HasField("completed"):
                        settling.completed = True
                    yield batch

    def _open(
        self, setup: Setup, request: chat_pb2.ChatRequest, context: CallContext, *, streamed: bool
    ) -> Settling:
        record = Settlement(request_id=context.request_id, model=request.model, streamed=streamed)
        return Settling(record, self._hooks, context.deadline, setup)


def admit(
    setup: Setup, request: chat_pb2.ChatRequest, context: CallContext, record: Settlement
) -> Call:
    """Everything that can be refused before an upstream is asked."""
    caller = setup.authenticator.authenticate(context)
    record.caller = caller.name
    validate(request)
    _check_permission(setup, caller, request.model)
    route, shadow = setup.router.resolve(request, context, caller)
    check_content(request, describe(route))
    if context.deadline is not None and not context.remaining():
        raise DeadlineExceeded("the caller's deadline passed before the call began")
    return Call(request, context, caller, route, shadow)


def _check_permission(setup: Setup, caller: Caller, model: str) -> None:
    """Raises `ModelNotFound` for a model that the caller may not use under this or its own name."""
    if not caller.may_use(model) and not caller.may_use(setup.router.canonical(model)):
        raise not_found(model)


async def _complete(setup: Setup, call: Call, record: Settlement) -> chat_pb2.ChatResponse:
    shadow = setup.shadows.send(call) if call.shadow is not None else None
    try:
        response = await setup.executor.complete(call, record)
    except asyncio.CancelledError:
        if shadow is not None:
            shadow.cancel()
        raise
    if response.HasField("usage"):
        record.usage = response.usage
    return response


async def _stream(
    setup: Setup, call: Call, record: Settlement
) -> AsyncGenerator[list[chat_pb2.ChatEvent], None]:
    shadow = setup.shadows.send(call) if call.shadow is not None else None
    try:
        async with aclosing(setup.executor.stream(call, record)) as events:
            async for batch in events:
                last = batch[-1]
                if last.HasField("completed"):
                    shadow = None  # whoever leaves now has had the answer
                    if last.completed.HasField("usage"):
                        record.usage = last.completed.usage
                yield batch
    except (asyncio.CancelledError, GeneratorExit):
        if shadow is not None:
            shadow.cancel()
        raise


def _unsettled(context: CallContext) -> Settling:
    """The same care for errors around calls that cost nothing, and that no hook hears of."""
    return Settling(Settlement(context.request_id, "", streamed=False), ())


def _write_page_token(last_id: str) -> str:
    return base64.urlsafe_b64encode(b"m:" + last_id.encode()).decode()


def _read_page_token(token: str) -> str:
    if not token:
        return ""
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        text = raw.decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest.of("page_token", "is not one that this gateway gave out") from error
    if not text.startswith("m:"):
        raise InvalidRequest.of("page_token", "is not one that this gateway gave out")
    return text[2:]
