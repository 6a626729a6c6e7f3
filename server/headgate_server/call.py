"""A call that may run: what was asked, by whom, and the route that it takes."""

from __future__ import annotations

import msgspec

from headgate.core import CallContext
from headgate.v1 import chat_pb2
from headgate_server.auth import Caller
from headgate_server.routing import Route


class Call(msgspec.Struct, frozen=True, gc=False):
    """An admitted call.

    Attributes:
        request: as it came; nobody changes it.
        context: what belongs to it besides.
        caller: who asks.
        route: the public model that serves it, after aliases and rules.
        shadow: the public model that gets a copy, if any.
    """

    request: chat_pb2.ChatRequest
    context: CallContext
    caller: Caller
    route: Route
    shadow: Route | None = None
