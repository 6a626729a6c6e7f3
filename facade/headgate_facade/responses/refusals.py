"""Bodies that cannot be read: what is special about OpenAI's content types. Pure."""

from __future__ import annotations

import re

from headgate.errors import InvalidRequest
from headgate.wire import MalformedJson
from headgate_facade import malformed

# What msgspec says.
_TAG = re.compile(r"invalid value '(.*)'")


def misshapen(error: MalformedJson, within: str = "") -> InvalidRequest:
    """JSON of another shape than OpenAI's; names the member, the missing one included."""
    found = malformed.misshapen(error, within)
    tag = _TAG.fullmatch(error.problem)
    path = found.violations[0].field if found.violations else ""
    if tag is not None and path.endswith("].type"):
        return InvalidRequest.of(
            path,
            f"{tag[1]!r} is not known here; it must be input_text, input_image, input_file,"
            " input_audio, or in messages of the model output_text or refusal",
        )
    return found
