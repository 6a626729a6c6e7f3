"""Bedrock's failures to GatewayErrors: over HTTP, and as exceptions in a stream. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html and the
errors of https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. The type of
an error stands in the header x-amzn-errortype or in the body's __type, with or without a namespace.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headgate.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    QuotaExhausted,
    RateLimited,
    UpstreamProtocol,
    UpstreamRejectedUs,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from headgate_server.providers.faults import of_answer, of_status, patient, told
from headgate_server.providers.wordings import of_words

# Without the suffixes "Exception", "Error" and "Failure", in lower case: streams begin the names with a
# small letter. The common ones of all AWS services:
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
_CREDENTIALS = {
    "accessdenied",
    "expiredtoken",
    "incompletesignature",
    "invalidaccesskeyid",
    "invalidclienttokenid",
    "invalidsignature",
    "missingauthenticationtoken",
    "notauthorized",
    "optinrequired",
    "requestexpired",
    "signaturedoesnotmatch",
    "unauthorized",
    "unrecognizedclient",
}
_KINDS: dict[str, type[GatewayError]] = {
    "throttling": RateLimited,
    "toomanyrequests": RateLimited,
    "requestlimitexceeded": RateLimited,
    "servicequotaexceeded": QuotaExhausted,
    "resourcenotfound": ModelNotFound,
    "modeltimeout": UpstreamTimeout,
    "modelnotready": Overloaded,
    "serviceunavailable": Overloaded,
    "internalserver": UpstreamUnavailable,
    "internal": UpstreamUnavailable,
    "model": UpstreamUnavailable,  # ModelErrorException
    "modelstream": UpstreamUnavailable,  # ModelStreamErrorException
    "requestentitytoolarge": PayloadTooLarge,
    "serialization": InvalidRequest,
    "validation": InvalidRequest,
    "conflict": InvalidRequest,
}
# What a ValidationException is about, only its words tell.
_MODEL_WORDS = (
    "model identifier is invalid",
    "on-demand throughput",
    "model id does not exist",
    "end of its life",
)
_ACCOUNT_WORDS = ("operation not allowed",)  # of accounts that may not use the service yet


class _Body(msgspec.Struct):
    """What an error body says; nested in `Output` where the path is unknown."""

    message: str | None = None
    Message: str | None = None
    type: str | None = msgspec.field(default=None, name="__type")
    code: str | int | None = None
    originalMessage: str | None = None
    originalStatusCode: int | None = None
    Output: _Body | None = None


_BODY = msgspec.json.Decoder(_Body)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """The error behind an answer whose status is not 200. Never raises."""
    found = _read(body)
    kind = _name(headers.get("x-amzn-errortype") or found.type or str(found.code or ""))
    return of_answer(_judge(kind, found, status), status, headers)


def error_in_body(body: bytes) -> GatewayError | None:
    """The error in a body that came with status 200; None if there is none."""
    found = _read(body)
    if not (found.type or found.message):
        return None
    return _judge(_name(found.type or ""), found, 500)


def error_in_stream(kind: str, body: bytes) -> GatewayError:
    """The exception that ends a stream: a message of the type "exception"."""
    return _judge(_name(kind), _read(body), 500)


def unmodeled_error(code: str, message: str) -> GatewayError:
    """The error that ends a stream: a message of the type "error", which is all in its headers."""
    return _judge(_name(code), _Body(message=message), 500)


def _read(body: bytes) -> _Body:
    try:
        found = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Body()
    found = found.Output or found
    found.message = found.message or found.Message
    return found


def _name(raw: str) -> str:
    """The bare name: "com.amazon.coral.service#ThrottlingException:http://..." has more around it."""
    return raw.partition(":")[0].rpartition("#")[2].strip()


def _judge(kind: str, found: _Body, status: int) -> GatewayError:
    message = found.message or ""
    if found.originalMessage and found.originalMessage not in message:
        message = f"{message} ({found.originalMessage})" if message else found.originalMessage
    explained = bool(message)
    message = message or f"the upstream answered with {kind or f'HTTP status {status}'}"
    error = _of_kind(kind, message, found) or of_status(status, message, explained=explained)
    return patient(told(error, code=kind))


def _of_kind(kind: str, message: str, found: _Body) -> GatewayError | None:
    short = kind.lower()
    for suffix in ("exception", "error", "failure"):
        short = short.removesuffix(suffix)
    if short in _CREDENTIALS:
        # AWS's words name our account and role, so they stay here.
        return UpstreamRejectedUs(
            f"the upstream does not accept the gateway's credentials, or they do not allow this ({kind})"
        )
    words = message.lower()
    if short == "validation":
        if any(word in words for word in _MODEL_WORDS):
            return ModelNotFound(message)
        if any(word in words for word in _ACCOUNT_WORDS):
            return UpstreamRejectedUs(
                f"the upstream does not serve the gateway's account: {message}"
            )
        if (told_in_words := of_words(400, message)) is not None:
            return told_in_words
    if short in ("model", "modelstream") and found.originalStatusCode == 429:
        return RateLimited(message)
    if short == "unknownoperation":
        return UpstreamProtocol("the upstream knows no such path; is base_url right?")
    made = _KINDS.get(short)
    return None if made is None else made(message)
