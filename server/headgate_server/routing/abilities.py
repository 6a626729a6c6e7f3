"""Whether a model can take a request at all, by what the catalogue knows. Pure.

Asked before a fallback is tried. What is not known never speaks against a model.
"""

from __future__ import annotations

from collections.abc import Callable

from headgate.v1 import chat_pb2
from headgate_server.catalog import describe, refused_content
from headgate_server.prices import Prices
from headgate_server.routing.routes import Route


def lacks(
    route: Route,
    request: chat_pb2.ChatRequest,
    prices: Prices | None,
    tokens: Callable[[chat_pb2.ChatRequest], int],
) -> str:
    """Why a model cannot take a request, in words that follow its name; empty if it can.

    Args:
        route: the model.
        request: what it would have to take.
        prices: knows some context windows; None if there is no such list.
        tokens: estimates those of the prompt.
    """
    model = describe(route)
    refused = refused_content(request, model)
    if refused is not None:
        return f"takes no {refused[1]} input"
    if request.tools and model.HasField("tools") and not model.tools:
        return "takes no tools"
    if (
        request.response_format.HasField("json_schema")
        and model.HasField("structured_output")
        and not model.structured_output
    ):
        return "cannot keep to a JSON Schema"
    window = model.context_window_tokens
    if not window and prices is not None:
        window = prices.context_window(route.targets[0]) or 0
    if window and (estimate := tokens(request)) > window:
        return f"its context window of {window} tokens is smaller than the prompt's estimated {estimate}"
    return ""
