"""`explain`: where a request would go, and why, as a running gateway says. Nothing is sent to a provider.

Speaks gRPC through the public client only. A request in OpenAI's form is read by the front door's own
reader, where that is installed; one in the proto's JSON form always can be.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headgate.admin.v1 import route_service_pb2
from headgate.cli import models
from headgate.cli.models import clean
from headgate.core import CallContext
from headgate.errors import GatewayError, InvalidRequest
from headgate.plain import plain
from headgate.v1 import chat_pb2, content_pb2

if TYPE_CHECKING:
    from headgate.client import Tls

_SECONDS = 15.0
_DEFAULT_TEXT = "Hello!"
_WIDE = 240  # of what is no terminal, so that lines stay whole


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask about.

    Attributes:
        model: the public model; wins over that of the file.
        text: of the one message, unless there is a file.
        file: a request as JSON; ``-`` is stdin.
        headers: each as ``x-name=value``.
        tenant: whose request it would be; None: that of the key.
    """

    model: str
    text: str | None = None
    file: str | None = None
    headers: Sequence[str] = ()
    tenant: str | None = None


def run(
    question: Question, target: str, key: str | None, tls: Tls | None, *, as_json: bool
) -> None:
    """Prints the explanation: tables for people, JSON for programs."""
    target = models.address(target)
    asked = route_service_pb2.ExplainRequest(
        request=_request(question), headers=_headers(question.headers), tenant=question.tenant
    )
    try:
        found = asyncio.run(_ask(asked, target, key, tls))
    except GatewayError as error:
        sys.exit(f"error: {models.explain(error, target)}")
    except KeyboardInterrupt:
        sys.exit(130)
    if as_json:
        print(json.dumps(plain(found), indent=2))  # noqa: T201
    else:
        _show(found, Console(width=None if sys.stdout.isatty() else _WIDE))


async def _ask(
    asked: route_service_pb2.ExplainRequest, target: str, key: str | None, tls: Tls | None
) -> route_service_pb2.ExplainResponse:
    async with models.connect(target, key, tls) as client:
        return await client.explain(asked, CallContext.with_timeout(_SECONDS))


# -- the question ----------------------------------------------------------------------------------


def _headers(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        name = name.strip().lower()
        if not equals or not name.startswith("x-"):
            sys.exit(f"error: --header {clean(each)}: expected x-NAME=VALUE")
        found[name] = value.strip()
    return found


def _request(question: Question) -> chat_pb2.ChatRequest:
    if question.file is None:
        part = content_pb2.Part(text=question.text or _DEFAULT_TEXT)
        message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[part])
        return chat_pb2.ChatRequest(model=question.model, messages=[message])
    if question.text is not None:
        sys.exit("error: --message and --request do not go together")
    name = "stdin" if question.file == "-" else clean(question.file)
    try:
        text = sys.stdin.buffer.read() if question.file == "-" else Path(question.file).read_bytes()
    except OSError as error:
        sys.exit(f"error: cannot read {name}: {error.strerror}")
    request = chat_pb2.ChatRequest()
    try:
        request.CopyFrom(_read(text, question.model))
    except InvalidRequest as error:
        sys.exit(f"error: {name}: {clean(error.message)}")
    except (json_format.ParseError, ValueError, RecursionError) as error:
        sys.exit(f"error: {name} is no request: {clean(str(error))}")
    request.model = question.model
    return request


def _read(text: bytes, model: str) -> chat_pb2.ChatRequest:
    """A request in OpenAI's form, or in that of the proto, whose messages have parts.

    Raises:
        ValueError, RecursionError: it is no JSON object.
        json_format.ParseError: it is no ChatRequest.
        InvalidRequest: it is nothing that /v1/chat/completions takes.
    """
    body = json.loads(text)
    if not isinstance(body, dict):
        raise ValueError("expected a JSON object")
    messages = body.get("messages")
    if isinstance(messages, list) and any("parts" in m for m in messages if isinstance(m, dict)):
        return json_format.ParseDict(body, chat_pb2.ChatRequest())
    try:
        from headgate_facade.openai.chat_in import read_chat
    except ModuleNotFoundError:
        sys.exit("error: to read a request in OpenAI's form needs: pip install 'headgate[all]'")
    return read_chat(json.dumps({**body, "model": model}).encode()).request


# -- the answer ------------------------------------------------------------------------------------


def _show(found: route_service_pb2.ExplainResponse, console: Console) -> None:
    head = Text.assemble((clean(found.model), "bold"))
    if found.route != found.model:
        head.append(f" -> {clean(found.route)}")
    tokens = found.estimated_input_tokens
    head.append(f"   strategy {clean(found.strategy) or '-'}, about {tokens:,} input tokens")
    console.print(head)
    for step in found.steps:
        console.print(Text(f"  {clean(step)}"))
    if found.shadow:
        console.print(Text(f"  a copy goes to {clean(found.shadow)}"))
    table = _table("#", "TARGET", "WHY")
    for place, each in enumerate(found.candidates, 1):
        table.add_row(str(place), _target(each), Text(clean(each.reason)))
    if found.candidates:
        console.print()
        console.print(table)
    else:
        console.print(Text("\nNo target would be tried.", "bold"))
    if found.left_out:
        table = _table("LEFT OUT", "WHY")
        for left in found.left_out:
            table.add_row(_target(left), Text(clean(left.reason)))
        console.print()
        console.print(table)
    if found.fallbacks:
        table = _table("FALLBACK", "FOR", "LEFT OUT BECAUSE")
        for fallback in found.fallbacks:
            cells = (fallback.model, fallback.kind.replace("_", " "), fallback.left_out or "-")
            table.add_row(*(Text(clean(cell)) for cell in cells))
        console.print()
        console.print(table)


def _target(found: route_service_pb2.Candidate | route_service_pb2.LeftOut) -> Text:
    return Text(clean(f"{found.provider}/{found.model}"))


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
