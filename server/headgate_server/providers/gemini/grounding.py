"""Sources of a grounded answer to annotations. Pure.

groundingMetadata counts in bytes of UTF-8 within a part; a UrlCitation counts in characters within the
message's text. Source: https://ai.google.dev/api/generate-content#GroundingMetadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from headgate.v1 import content_pb2
from headgate_server.providers.citations import url_citation
from headgate_server.providers.gemini.wire import (
    GROUNDING,
    Grounding,
    GroundingChunk,
    Segment,
    Source,
)


@dataclass(slots=True)
class TextPart:
    """A text part as far as it has come."""

    pieces: list[str] = field(default_factory=list)
    size: int = 0  # in bytes


class Texts:
    """The texts of a message, and which of the provider's parts they came from."""

    def __init__(self) -> None:
        self._parts: list[TextPart] = []
        # For each part of the provider's: our text part and where in it, in bytes; None for others.
        self._origins: list[tuple[TextPart, int] | None] = []

    def other(self) -> None:
        """The provider sent a part that is no text."""
        self._origins.append(None)

    def text(self, piece: str, *, new: bool) -> None:
        """The provider sent a text: the beginning of a new part of ours, or more of the last."""
        if new:
            self._parts.append(TextPart())
        part = self._parts[-1]
        self._origins.append((part, part.size))
        part.pieces.append(piece)
        part.size += len(piece) if piece.isascii() else len(piece.encode())

    def annotations(self, metadata: msgspec.Raw) -> list[content_pb2.Annotation]:
        """One for each stretch and source; none where the metadata are of another form."""
        try:
            grounding = GROUNDING.decode(metadata)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        return self._annotations(grounding)

    def _annotations(self, grounding: Grounding) -> list[content_pb2.Annotation]:
        found: list[content_pb2.Annotation] = []
        sources = [_source(chunk) for chunk in grounding.grounding_chunks]
        for support in grounding.grounding_supports:
            place = self._place(support.segment) if support.segment is not None else None
            if place is None:
                continue
            start, end = place
            for index in support.grounding_chunk_indices:
                source = sources[index] if 0 <= index < len(sources) else None
                if source is not None:
                    found.append(url_citation(source.uri, source.title, start, end))
        return found

    def _place(self, segment: Segment) -> tuple[int, int] | None:
        """(start, end) in characters of the message's text.

        The index of the part is not always that of a text, and in a stream parts come in pieces; so
        the words of the segment decide.
        """
        candidates: list[tuple[TextPart, int]] = []
        if 0 <= segment.part_index < len(self._origins):
            origin = self._origins[segment.part_index]
            if origin is not None:
                candidates.append(origin)
        candidates.extend((part, 0) for part in self._parts)
        wanted = segment.text.encode()
        for part, base in candidates:
            data = "".join(part.pieces).encode()
            start, end = base + segment.start_index, base + segment.end_index
            if not 0 <= start <= end <= len(data) or (wanted and data[start:end] != wanted):
                continue
            before = 0
            for earlier in self._parts:
                if earlier is part:
                    break
                before += sum(map(len, earlier.pieces))
            characters = len(data[:start].decode(errors="ignore"))
            return before + characters, before + characters + len(
                data[start:end].decode(errors="ignore")
            )
        return None


def _source(chunk: GroundingChunk) -> Source | None:
    for source in (chunk.web, chunk.maps, chunk.retrieved_context):
        if source is not None and source.uri.startswith(("https://", "http://")):
            return source
    return None
