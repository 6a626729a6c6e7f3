"""What every dialect's `encode` has in common: the body so far, the warnings, the route's policy.

A dialect describes itself by two tables: the fields of ChatRequest that it copies under a name of its
own, and the fields that it translates. `encode_fields` walks the request over them, and whatever is
in neither is unsupported: tuning goes by the policy, content is an error. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import merge_into
from headgate_server.providers.base import Target

Json = dict[str, Any]

# Fields that are not tuning: an answer without them would be an answer to something else.
_CONTENT = frozenset({"messages", "tools", "response_format", "modalities", "text_completion"})
# Fields that `Encoding.merge_extras` looks at, or that only say how to read others.
_META = frozenset(
    {"model", "messages", "extra_body_json", "extra_dialect", "provider_options_json"}
)


class Encoding:
    """One translation under way: the body so far, and the warnings.

    Args:
        request: what is translated.
        target: where it goes.
        dialect: the name of the dialect that translates.
    """

    def __init__(self, request: chat_pb2.ChatRequest, target: Target, dialect: str) -> None:
        self.request = request
        self.target = target
        self.dialect = dialect
        self.body: Json = {}
        self.warnings: list[chat_pb2.Warning] = []

    @property
    def speaks_extras(self) -> bool:
        """Whether the request's `*_json` texts are written in this dialect."""
        return (self.request.extra_dialect or "openai") == self.dialect

    def warn(self, field: str, message: str) -> None:
        """Tells the caller what became of a field; once for each."""
        if all(warning.field != field for warning in self.warnings):
            self.warnings.append(chat_pb2.Warning(field=field, message=message))

    def leave_out(self, field: str, why: str) -> None:
        """Applies the route's policy to tuning that cannot be sent. Raises under "strict"."""
        if self.target.policy == "strict":
            raise InvalidRequest.of(field, why)
        self.warn(field, f"left out: {why}")

    def unsupported(self, field: str, value: Any) -> None:
        """Tuning that the dialect has no name for: refused, left out, or passed on as it is."""
        if self.target.policy == "pass" and isinstance(value, str | int | float | bool):
            self.body[field] = value
        else:
            self.leave_out(field, f"the {self.dialect} API has no such parameter")

    def refused(self, name: str) -> bool:
        """Whether the model is known to refuse this tuning, which then is dealt with."""
        if self.target.policy == "pass":
            return False
        target = self.target
        for owner, names in (
            (f"provider kind {target.kind!r}", target.vendor.unsupported),
            (f"model family {target.family.name!r}", target.family.refuses),
        ):
            if name in names:
                self.leave_out(name, f"{owner} does not take it")
                return True
        return False

    def part_extras(self, into: Json, extra_json: str, path: str) -> None:
        """Merges the `extra_json` of a message, a part or a tool, if it is in this dialect."""
        if not extra_json:
            return
        if self.speaks_extras:
            merge_into(into, extra_json)
        else:
            for name in msgspec.json.decode(extra_json, type=dict[str, msgspec.Raw]):
                self.unsupported_extra(f"{path}.{name}")

    def unsupported_extra(self, field: str) -> None:
        """A member that belongs to another dialect."""
        origin = self.request.extra_dialect or "openai"
        self.leave_out(field, f"it belongs to the {origin} API; this target speaks {self.dialect}")

    def merge_extras(self, fixed: frozenset[str]) -> None:
        """Merges `extra_body_json` and `provider_options_json` into the body; call it last.

        Args:
            fixed: members that the gateway decides about, such as the model's name.
        """
        request, target = self.request, self.target
        if request.extra_body_json:
            extra = msgspec.json.decode(request.extra_body_json, type=dict[str, msgspec.Raw])
            for name, value in extra.items():
                if name in fixed:
                    continue
                if self.speaks_extras or target.policy == "pass":
                    self.body.setdefault(name, value)
                else:
                    self.unsupported_extra(name)
        for key in dict.fromkeys((self.dialect, target.kind, target.provider)):
            options = (
                request.provider_options_json.get(key, "") if request.provider_options_json else ""
            )
            if options:
                given = msgspec.json.decode(options, type=dict[str, msgspec.Raw])
                self.body.update((k, v) for k, v in given.items() if k not in fixed)


def encode_fields(
    encoding: Encoding,
    plain: Mapping[str, str],
    fields: Mapping[str, Callable[[Encoding, Any], None]],
) -> None:
    """Walks the request's fields: copies the plain ones, translates the others.

    `model`, `messages`, and what `merge_extras` merges, are the caller's. A default that says nothing
    (one choice, no log probabilities) is not worth a warning.

    Raises:
        InvalidRequest: content, or under "strict" tuning, that the dialect has no place for.
    """
    for descriptor, value in encoding.request.ListFields():
        name = descriptor.name
        if name in _META or encoding.refused(name):
            continue
        if name in plain:
            encoding.body[plain[name]] = value
        elif name in fields:
            fields[name](encoding, value)
        elif name in _CONTENT:
            raise InvalidRequest.of(name, f"the {encoding.dialect} API has no place for it")
        elif not (name == "n" and value == 1) and value is not False:
            encoding.unsupported(name, value)
