"""What is known about a model: family facts, overridden by the configuration. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2, model_service_pb2
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


def describe(route: Route) -> model_service_pb2.Model:
    """The catalogue entry of a route."""
    family = route.targets[0].family
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
    for field, value in facts.items():
        if value is not None:
            setattr(model, field, value)
    return model


def check_content(request: chat_pb2.ChatRequest, model: model_service_pb2.Model) -> None:
    """Refuses content that the model is known not to take.

    Raises:
        InvalidRequest: names the first such part.
    """
    reads = model.input_modalities
    if not reads:
        return
    takes_images = model_service_pb2.MODALITY_IMAGE in reads
    takes = {
        "image": takes_images,
        "audio": model_service_pb2.MODALITY_AUDIO in reads,
        # Whoever sees images gets documents as pages.
        "file": takes_images or model_service_pb2.MODALITY_FILE in reads,
    }
    if all(takes.values()):
        return
    for index, message in enumerate(request.messages):
        for path, part in _all_parts(message.parts, f"messages[{index}].parts"):
            kind = part.WhichOneof("kind")
            if kind in takes and not takes[kind]:
                known = ", ".join(n for n, number in MODALITIES.items() if number in reads)
                raise InvalidRequest.of(
                    path, f"the model {model.id!r} takes no {kind} input, only {known}"
                )


def _all_parts(
    parts: Iterable[content_pb2.Part], path: str
) -> Iterator[tuple[str, content_pb2.Part]]:
    """The parts and those inside tool results, each with its path."""
    for place, part in enumerate(parts):
        yield f"{path}[{place}]", part
        if part.WhichOneof("kind") == "tool_result":
            yield from _all_parts(part.tool_result.parts, f"{path}[{place}].tool_result.parts")
