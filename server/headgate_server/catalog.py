"""What is known about a model: family facts and prices, overridden by the configuration. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2, model_service_pb2
from headgate_server.config import Price
from headgate_server.prices import Prices
from headgate_server.providers.base import Target

if TYPE_CHECKING:
    from headgate_server.routing import Route

MODALITIES = {
    "text": model_service_pb2.MODALITY_TEXT,
    "image": model_service_pb2.MODALITY_IMAGE,
    "audio": model_service_pb2.MODALITY_AUDIO,
    "video": model_service_pb2.MODALITY_VIDEO,
    "file": model_service_pb2.MODALITY_FILE,
}
_STARTED = int(time.time())
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000


def describe(route: Route, prices: Prices | None = None) -> model_service_pb2.Model:
    """The catalogue entry of a route: facts of its first target, unless the configuration knows better.

    Without prices it is made once; nobody changes it.

    Args:
        route: the public model.
        prices: the price list; without it only the configuration's own price is told.
    """
    if prices is None and route.facts is not None:
        return route.facts
    first = route.targets[0]
    family = first.family
    override = route.settings.catalog if route.settings is not None else None
    model = model_service_pb2.Model(
        id=route.name,
        providers=list(dict.fromkeys(target.provider for target in route.targets)),
        family=(override and override.family) or family.name,
    )
    model.create_time.FromSeconds(_STARTED)
    reads = override.input if override is not None and override.input is not None else family.input
    writes = (
        override.output if override is not None and override.output is not None else family.output
    )
    model.input_modalities.extend(MODALITIES[name] for name in reads)
    model.output_modalities.extend(MODALITIES[name] for name in writes)
    facts = {
        "context_window_tokens": (override and override.context_window) or family.context_window,
        "max_output_tokens": (override and override.max_output_tokens) or family.max_output_tokens,
    }
    for field in ("tools", "structured_output", "reasoning"):
        said = getattr(override, field) if override is not None else None
        facts[field] = getattr(family, field) if said is None else said
    if prices is not None and facts["context_window_tokens"] is None:
        facts["context_window_tokens"] = prices.context_window(first)
    for field, value in facts.items():
        if value is not None:
            setattr(model, field, value)
    told = override.price if override is not None else None
    _add_price(model, told or first.price, first, prices)
    if prices is None:
        route.facts = model
    return model


def _add_price(
    model: model_service_pb2.Model, own: Price | None, target: Target, prices: Prices | None
) -> None:
    if own is not None:
        model.price.input_per_million_usd = own.input
        model.price.output_per_million_usd = own.output
        if own.cached_input is not None:
            model.price.cached_input_per_million_usd = own.cached_input
        if own.cache_write is not None:
            model.price.cache_write_per_million_usd = own.cache_write
    elif prices is not None and (found := prices.of(target)) is not None:
        model.price.CopyFrom(found)


def check_content(request: chat_pb2.ChatRequest, model: model_service_pb2.Model) -> None:
    """Refuses content that the model is known not to take.

    Raises:
        InvalidRequest: names the first such part.
    """
    found = refused_content(request, model)
    if found is not None:
        path, kind = found
        known = ", ".join(n for n, number in MODALITIES.items() if number in model.input_modalities)
        raise InvalidRequest.of(path, f"the model {model.id!r} takes no {kind} input, only {known}")


def refused_content(
    request: chat_pb2.ChatRequest, model: model_service_pb2.Model
) -> tuple[str, str] | None:
    """The first part that the model is known not to take: its path and its kind; None if it takes all."""
    reads = model.input_modalities
    if not reads:
        return None
    takes_images = model_service_pb2.MODALITY_IMAGE in reads
    takes = {
        "image": takes_images,
        "audio": model_service_pb2.MODALITY_AUDIO in reads,
        # Whoever sees images gets documents as pages.
        "file": takes_images or model_service_pb2.MODALITY_FILE in reads,
        "video": model_service_pb2.MODALITY_VIDEO in reads,
    }
    if all(takes.values()):
        return None
    if all(takes.get(kind, True) for kind in kinds_of_input(request)):
        return None  # as mostly, and without a path for each part
    for path, kind in _kinds_of_parts(request):
        if not takes.get(kind, True):
            return path, kind
    return None


def kinds_of_input(request: chat_pb2.ChatRequest) -> frozenset[str]:
    """The modalities that a request holds: text, image, audio, video, file."""
    kinds: set[str] = set()
    for message in request.messages:
        _add_kinds(message.parts, kinds)
    if request.HasField("text_completion"):
        kinds.add("text")
    return frozenset(kinds)


def _add_kinds(parts: Iterable[content_pb2.Part], kinds: set[str]) -> None:
    for part in parts:
        kind = part.WhichOneof("kind")
        if kind == "file":
            kinds.add(_kind_of_file(part.file.media_type))
        elif kind == "tool_result":
            _add_kinds(part.tool_result.parts, kinds)
        elif kind in MODALITIES:
            kinds.add(kind)


def _kinds_of_parts(request: chat_pb2.ChatRequest) -> Iterator[tuple[str, str]]:
    """The path of every part, and what it is: a modality, or the name of another kind of part."""
    for index, message in enumerate(request.messages):
        for path, part in _all_parts(message.parts, f"messages[{index}].parts"):
            kind = part.WhichOneof("kind") or ""
            yield path, _kind_of_file(part.file.media_type) if kind == "file" else kind


def _kind_of_file(media_type: str) -> str:
    """What a file really is; plain text can be read by every model."""
    kind = media_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video", "text") else "file"


def _all_parts(
    parts: Iterable[content_pb2.Part], path: str
) -> Iterator[tuple[str, content_pb2.Part]]:
    """The parts and those inside tool results, each with its path."""
    for place, part in enumerate(parts):
        yield f"{path}[{place}]", part
        if part.WhichOneof("kind") == "tool_result":
            yield from _all_parts(part.tool_result.parts, f"{path}[{place}].tool_result.parts")
