"""The arguments of a call that is streamed piece by piece. Pure.

Vertex AI sends them so if `streamFunctionCallArguments` is set: each piece is a value, or more of a
string, at a JSON path (RFC 9535, names and indices only). Source:
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import msgspec

from headgate.errors import UpstreamProtocol
from headgate_server.providers.gemini.wire import PartialArgWire

_MAX_STEPS = 64
_STEP = re.compile(
    r"""\.(?P<name>[^.\[\]]+)|\[(?:(?P<index>\d{1,6})|(?P<quote>['"])(?P<quoted>.*?)(?P=quote))\]"""
)


class StreamedArguments:
    """The arguments so far."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}

    def add(self, piece: PartialArgWire) -> None:
        """Takes the next piece. Raises `UpstreamProtocol` if it fits nowhere."""
        steps = _steps(piece.json_path)
        place: Any = self._root
        for step, following in itertools.pairwise(steps):
            place = _child(place, step, [] if isinstance(following, int) else {})
        last, value = steps[-1], _value(piece)
        if isinstance(value, str):
            text = _child(place, last, "")
            if isinstance(text, str):
                value = text + value
        _set(place, last, value)

    def text(self) -> str:
        """The arguments as JSON."""
        return msgspec.json.encode(self._root).decode()


def _value(piece: PartialArgWire) -> object:
    if piece.string_value is not None:
        return piece.string_value
    if piece.number_value is not None:
        return piece.number_value
    if piece.bool_value is not None:
        return piece.bool_value
    return None if bytes(piece.null_value) else ""  # the beginning of a string, with nothing yet


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 1
    while path.startswith("$") and position < len(path) and len(steps) < _MAX_STEPS:
        found = _STEP.match(path, position)
        if found is None:
            break
        index = found["index"]
        steps.append(int(index) if index is not None else found["name"] or found["quoted"] or "")
        position = found.end()
    if not steps or position != len(path):
        raise UpstreamProtocol(f"the upstream sent an argument at {path!r:.80}, which is no path")
    return steps


def _child(place: Any, step: str | int, default: Any) -> Any:
    """What is at a step below a place, the default if nothing yet."""
    if isinstance(place, dict) and isinstance(step, str):
        return place.setdefault(step, default)
    if isinstance(place, list) and isinstance(step, int) and step <= len(place):
        if step == len(place):
            place.append(default)
        return place[step]
    raise UpstreamProtocol(f"the upstream sent arguments that do not fit together at {step!r:.40}")


def _set(place: Any, step: str | int, value: object) -> None:
    _child(place, step, None)
    place[step] = value
