"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's door, and its endpoints.

Owns what Anthropic's HTTP has besides its bodies: the betas in a header, and the header `request-id`.
"""

from __future__ import annotations

import logging

from headgate.core import CallContext, ChatCore
from headgate.errors import GatewayError, InternalError, InvalidRequest
from headgate.v1 import chat_pb2
from headgate_facade.anthropic.errors import envelope, error_headers
from headgate_facade.anthropic.messages_in import Asked, read_messages
from headgate_facade.anthropic.messages_out import write_message
from headgate_facade.anthropic.refusals import in_words_of_the_body
from headgate_facade.anthropic.stream_out import MessageWriter
from headgate_facade.endpoint import Call, ChatEndpoint
from headgate_facade.http import (
    JSON,
    ClientGone,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    answer_headers,
    call_context,
    cancelled_when_gone,
    read_body,
    send_body,
)
from headgate_facade.settings import FacadeSettings

_log = logging.getLogger(__name__)


class MessagesDoor:
    """See `headgate_facade.endpoint.Door`."""

    def read(self, scope: Scope, body: bytes) -> MessagesCall:
        """Reads a request."""
        return MessagesCall(read_messages(body, betas_of(scope)))

    def error(self, error: GatewayError, request_id: str) -> bytes:
        """The body of an error."""
        return envelope(error, request_id)

    def error_headers(self, error: GatewayError, request_id: str) -> Headers:
        """The headers of an error."""
        return error_headers(error, request_id)


class MessagesCall:
    """See `headgate_facade.endpoint.Call`.

    Attributes:
        places: for each message of the request, where in the body it comes from.
    """

    __slots__ = ("places", "request", "stream")

    def __init__(self, asked: Asked) -> None:
        self.request = asked.request
        self.stream = asked.stream
        self.places = asked.places

    def answer(self, response: chat_pb2.ChatResponse) -> bytes:
        """The body of a whole answer."""
        return write_message(response)

    def writer(self) -> MessageWriter:
        """A writer for a streamed answer."""
        return MessageWriter(self.places)


def betas_of(scope: Scope) -> list[str]:
    """The features in test that the caller asks for.

    https://platform.claude.com/docs/en/api/beta-headers
    """
    given = b",".join(value for name, value in scope["headers"] if name == b"anthropic-beta")
    names = (name.strip() for name in given.decode("latin-1").split(","))
    return [name for name in names if name]


class MessagesEndpoint(ChatEndpoint):
    """The endpoint of messages: what is refused is said in the words of the body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await super().__call__(scope, receive, _naming_the_request(send))

    async def _complete(self, call: Call, context: CallContext, send: Send) -> None:
        try:
            await super()._complete(call, context, send)
        except InvalidRequest as error:
            raise _told(error, call) from error

    async def _stream(self, call: Call, context: CallContext, send: Send) -> None:
        try:
            await super()._stream(call, context, send)
        except InvalidRequest as error:
            raise _told(error, call) from error


def _told(error: GatewayError, call: Call) -> GatewayError:
    return in_words_of_the_body(error, call.places) if isinstance(call, MessagesCall) else error


class CountEndpoint:
    """The endpoint of token counts, a plain ASGI app."""

    def __init__(self, core: ChatCore, settings: FacadeSettings) -> None:
        self._core = core
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        send = _naming_the_request(send)
        context = call_context(scope)
        try:
            body = await read_body(scope, receive, self._settings.body_limit)
            count = chat_pb2.CountTokensRequest()
            asked = read_messages(body, betas_of(scope), into=count.request, counting=True)
            async with cancelled_when_gone(scope, receive):
                try:
                    counted = await self._core.count_tokens(count, context)
                except InvalidRequest as error:
                    raise in_words_of_the_body(error, asked.places) from error
                headers = [JSON, *_count_headers(counted, context)]
                await send_body(send, 200, headers, b'{"input_tokens":%d}' % counted.input_tokens)
        except GatewayError as error:
            await self._send_error(send, error, context)
        except ClientGone:
            return
        except Exception:
            _log.exception("request %s failed", context.request_id)
            opaque = InternalError(f"internal error; the log has it under {context.request_id}")
            await self._send_error(send, opaque, context)

    async def _send_error(self, send: Send, error: GatewayError, context: CallContext) -> None:
        headers = error_headers(error, context.request_id)
        await send_body(send, error.http_status, headers, envelope(error, context.request_id))


def _count_headers(counted: chat_pb2.CountTokensResponse, context: CallContext) -> Headers:
    warnings = list(counted.warnings)
    if counted.estimated:
        message = "estimated, because the provider does not count"
        warnings.insert(0, chat_pb2.Warning(field="input_tokens", message=message))
    headers = answer_headers(context, counted.served, warnings)
    # Nobody served an estimate.
    return headers if counted.HasField("served") else [headers[0], *headers[4:]]


def _naming_the_request(send: Send) -> Send:
    """Repeats the request's id in the header where Anthropic's SDKs look for it."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = message["headers"]
            headers += [
                (b"request-id", value) for name, value in headers if name == b"x-request-id"
            ]
        await send(message)

    return named
