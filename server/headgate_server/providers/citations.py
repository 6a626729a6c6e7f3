"""Sources of a text as annotations, and back. Pure.

A source on the web is a UrlCitation; whatever else a vendor cites stays its own JSON, which goes back to
that vendor only.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headgate.v1 import content_pb2
from headgate.wire import raw_text


def url_citation(url: str, title: str, start: int, end: int) -> content_pb2.Annotation:
    """A source on the web.

    Args:
        url, title: of the page.
        start, end: of the stretch that it backs, in characters of the message's text.
    """
    annotation = content_pb2.Annotation()
    citation = annotation.url_citation
    citation.url, citation.title = url, title
    citation.start_index, citation.end_index = start, end
    return annotation


def other_citation(raw: msgspec.Raw) -> content_pb2.Annotation:
    """A source of another kind, as it is."""
    return content_pb2.Annotation(other_json=raw_text(raw) or "{}")


def own_citations(part: content_pb2.Part, is_own: Callable[[str], bool]) -> list[msgspec.Raw]:
    """A part's sources that a vendor named in its own form.

    Args:
        part: of the history.
        is_own: whether the JSON of an annotation is in that form.
    """
    return [
        msgspec.Raw(annotation.other_json)
        for annotation in part.annotations
        if annotation.other_json and is_own(annotation.other_json)
    ]
