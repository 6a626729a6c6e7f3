"""`models`, and what it shares with `chat`: reaching a gateway, listing its models, explaining errors.

Speaks gRPC through the public client only, so that it works where only the client is installed. Text from
a gateway passes `clean` before a terminal sees it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headgate import errors
from headgate.client import Client
from headgate.core import CallContext
from headgate.v1 import model_service_pb2

if TYPE_CHECKING:
    from headgate.client import Tls

_DEFAULT_PORT = 50051
_LIST_SECONDS = 15.0
_PAGE_SIZE = 1000
# What gRPC puts before a reason: a status, and the address that was tried.
_PREFIX = re.compile(r"^[A-Z_]+: (?:(?:ipv[46]|unix):\S+: )?")


def run(target: str, key: str | None, tls: Tls | None, *, as_json: bool) -> None:
    """Prints the models: a table for people, tab-separated lines or JSON for programs."""
    target = address(target)
    try:
        models = asyncio.run(_list(target, key, tls))
    except errors.GatewayError as error:
        sys.exit(f"error: {explain(error, target)}")
    except KeyboardInterrupt:
        sys.exit(130)
    if as_json:
        print(json.dumps([_plain(model) for model in models], indent=2))  # noqa: T201
    elif sys.stdout.isatty():
        _print_table(models)
    else:
        for model in models:
            print("\t".join(cell or "-" for cell in _row(model)))  # noqa: T201


async def _list(target: str, key: str | None, tls: Tls | None) -> list[model_service_pb2.Model]:
    async with connect(target, key, tls) as client:
        return await all_models(client)


def address(target: str) -> str:
    """Completes what people write for a gateway's gRPC address; exits if it cannot be one."""
    target = target.strip()
    if "://" in target and not target.startswith(("dns:", "unix:")):
        sys.exit(f"error: {clean(target)}: expected the gRPC address HOST:PORT, without a scheme")
    if target.startswith(("dns:", "unix:", "ipv4:", "ipv6:")):
        return target
    host, colon, port = target.rpartition(":")
    if not colon or target.endswith("]"):
        host, port = target, str(_DEFAULT_PORT)
    # HEADGATE_GRPC may say where to listen: on every interface is also on this one.
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"{host}:{port}"


def connect(target: str, key: str | None, tls: Tls | None) -> Client:
    """A client; exits if the key cannot be one."""
    key = (key or "").strip() or None
    if key and not all("!" <= character <= "~" for character in key):
        sys.exit("error: the key holds characters that no key has (value not shown)")
    return Client(target, api_key=key, tls=tls)


async def all_models(client: Client) -> list[model_service_pb2.Model]:
    """Every page of ListModels. Raises GatewayError."""
    context = CallContext.with_timeout(_LIST_SECONDS)
    request = model_service_pb2.ListModelsRequest(page_size=_PAGE_SIZE)
    found: list[model_service_pb2.Model] = []
    while True:
        page = await client.list_models(request, context)
        found.extend(page.models)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def clean(text: str, *, lines: bool = False) -> str:
    """The text without control characters, so that it cannot command a terminal.

    Args:
        text: from a model, a gateway or a user.
        lines: whether line breaks and tabs stay; else they become spaces.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    text = text if lines else " ".join(text.split())
    return "".join(c for c in text if c in kept or unicodedata.category(c) not in ("Cc", "Cs"))


def explain(error: errors.GatewayError, target: str) -> str:
    """What happened and what to do about it, on one line."""
    message = clean(error.message)
    if from_transport(error):
        reason = _PREFIX.sub("", message.rpartition("last error: ")[2])
        return f"no gateway answers at {clean(target)} ({_short(reason)}). {_unreachable(reason)}"
    wait = f" in {error.retry_after:.0f} s" if error.retry_after and error.retry_after >= 1 else ""
    advice = {
        "UNAUTHENTICATED": "Give a key of this gateway with --key or HEADGATE_API_KEY.",
        "PERMISSION_DENIED": "This key does not allow it; ask the gateway's operator.",
        "MODEL_NOT_FOUND": "`headgate models` (in a chat: /models) lists what there is.",
        "CONTEXT_TOO_LONG": "Shorten the prompt, or in a chat begin anew with /reset.",
        "RATE_LIMITED": f"Try again{wait or ' later'}.",
        "QUOTA_EXHAUSTED": "Use another model or provider, or raise the budget.",
        "UPSTREAM_UNAVAILABLE": f"Try again{wait or ' later'}, or another model.",
        "OVERLOADED": f"Try again{wait or ' later'}.",
        "DEADLINE_EXCEEDED": "Try again, or ask for less.",
        "UPSTREAM_TIMEOUT": "Try again, or another model.",
        "UPSTREAM_REJECTED_US": "`headgate doctor` beside the gateway tells which key to renew.",
        "INTERNAL": f"The gateway's log knows more, under request id {error.request_id}.",
    }.get(errors.reason_name(error), "")
    if message and message[-1] not in ".!?…":
        message += "."
    return f"{message} {advice}".rstrip()


def from_transport(error: errors.GatewayError) -> bool:
    """Whether gRPC itself made up the failure, because nothing spoke to it."""
    cause = error.__cause__
    if not isinstance(error, errors.UpstreamUnavailable) or not isinstance(cause, grpc.RpcError):
        return False
    trailers: Any = getattr(cause, "trailing_metadata", tuple)() or ()
    return all(key != errors.STATUS_DETAILS_KEY for key, _ in trailers)


def _short(reason: str) -> str:
    """The reason of gRPC, without the layers that it went through."""
    _, openssl, inner = reason.rpartition("OPENSSL_internal:")
    reason = f"TLS: {inner}" if openssl else reason
    return reason.removeprefix("Failed to connect to remote host: ")[:80]


def _unreachable(reason: str) -> str:
    lowered = reason.lower()
    if "http/2" in lowered:
        return "Something else listens there; --target wants the gRPC port, not the REST port."
    if "handshake" in lowered or "certificate" in lowered:
        return "TLS failed: see --tls, --ca, --cert and --cert-key."
    if "closed" in lowered or "reset" in lowered:
        return "If the gateway uses TLS, add --tls or --ca."
    return "Run `headgate serve`, say where it is with --target HOST:PORT, or add --tls if it uses TLS."


def _modalities(model: model_service_pb2.Model) -> list[str]:
    return [
        model_service_pb2.Modality.Name(modality).removeprefix("MODALITY_").lower()
        for modality in model.input_modalities
    ]


def _row(model: model_service_pb2.Model) -> tuple[str, ...]:
    context = model.context_window_tokens if model.HasField("context_window_tokens") else ""
    return (
        clean(model.id),
        clean(",".join(model.providers)),
        clean(model.family),
        ",".join(_modalities(model)),
        str(context),
    )


def _print_table(models: Sequence[model_service_pb2.Model]) -> None:
    if not models:
        print("The gateway lists no models; PROVIDER/MODEL may work all the same.")  # noqa: T201
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    # The id is what people copy: it wraps before it loses a letter.
    table.add_column("MODEL", overflow="fold")
    for header in ("PROVIDERS", "FAMILY", "INPUT"):
        table.add_column(header, overflow="fold")
    table.add_column("CONTEXT", justify="right")
    for model in models:
        *cells, context = _row(model)
        number = f"{int(context):,}" if context else "-"
        table.add_row(*(Text(cell or "-") for cell in cells), Text(number))
    Console().print(table)


def _plain(model: model_service_pb2.Model) -> dict[str, object]:
    entry: dict[str, object] = {
        "id": model.id,
        "providers": list(model.providers),
        "family": model.family or None,
        "input_modalities": _modalities(model),
    }
    for name in (
        "context_window_tokens",
        "max_output_tokens",
        "tools",
        "structured_output",
        "reasoning",
    ):
        entry[name] = getattr(model, name) if model.HasField(name) else None
    return entry
