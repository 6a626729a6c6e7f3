"""What every dialect's `encode` has in common: the body so far, the warnings, the route's policy.

A dialect describes itself by two tables: the fields of ChatRequest that it copies under a name of its
own, and the fields that it translates. `encode_fields` walks the request over them, and whatever is
in neither is unsupported: tuning goes by the policy, content is an error. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_into, raw_object
from headgate_server.providers.base import HttpCall, Target
from headgate_server.providers.shapes import as_raw

Json = dict[str, Any]

NO_ARGUMENTS: Json = {"type": "object", "properties": {}}
"""The schema of a function that says nothing of its arguments, for APIs that insist on one."""

_encode_json = msgspec.json.Encoder().encode

_SCALARS = frozenset((bool, float, int, str))

# Fields that are not tuning: an answer without them would be an answer to something else.
_CONTENT = frozenset({"messages", "tools", "response_format", "modalities", "text_completion"})
# Fields that `Encoding.merge_extras` looks at, or that only say how to read others.
_META = frozenset(
    {"model", "messages", "extra_body_json", "extra_dialect", "provider_options_json"}
)
# Values that say what everybody does anyway; of fields that are not listed, False.
_IDLE = {"n": 1, "parallel_tool_calls": True}


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
    def origin(self) -> str:
        """The dialect that the request's `*_json` texts are written in."""
        return self.request.extra_dialect or "openai"

    @property
    def speaks_extras(self) -> bool:
        """Whether they are written in this dialect."""
        return self.origin == self.dialect

    def call(self, url: str, headers: Mapping[str, str], body: Json | None = None) -> HttpCall:
        """The call that carries the body, or another one that was made of it."""
        body = self.body if body is None else body
        return HttpCall(url, headers, _encode_json(body), self.warnings)

    def put(self, name: str, value: Any) -> None:
        """Puts a member into the body; a name like "options.seed" leads into an object of it."""
        into = self.body
        while "." in name:
            place, _, name = name.partition(".")
            into = into.setdefault(place, {})
        into[name] = value

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
        target = self.target
        if target.policy == "pass":
            return False
        if name in target.vendor.unsupported:
            owner = f"provider kind {target.kind!r}"
        elif name in target.family.refuses:
            owner = f"model family {target.family.name!r}"
        else:
            return False
        self.leave_out(name, f"{owner} does not take it")
        return True

    def part_extras(self, into: Json, extra_json: str, path: str) -> None:
        """Merges the `extra_json` of a message, a part or a tool, if it is in this dialect."""
        if not extra_json:
            return
        if self.speaks_extras:
            merge_into(into, extra_json)
        else:
            for name in msgspec.json.decode(extra_json, type=dict[str, msgspec.Raw]):
                self.unsupported_extra(f"{path}.{name}")

    def own_block(self, part: content_pb2.VendorPart, path: str) -> msgspec.Raw:
        """A block of this dialect's API as it is. Raises `InvalidRequest` for another API's."""
        if part.dialect != self.dialect:
            raise InvalidRequest.of(
                f"{path}.vendor_part",
                f"belongs to the {part.dialect} API; this target speaks {self.dialect}; leave it out",
            )
        return msgspec.Raw(part.json)

    def own_tool(self, tool: chat_pb2.Tool, path: str) -> msgspec.Raw:
        """A tool of this dialect's API as it is. Raises `InvalidRequest` for another API's."""
        if not self.speaks_extras:
            raise InvalidRequest.of(
                f"{path}.provider_tool_json",
                f"belongs to the {self.origin} API; this target speaks {self.dialect}; send a "
                "function instead",
            )
        return msgspec.Raw(tool.provider_tool_json)

    def unsupported_extra(self, field: str) -> None:
        """A member that belongs to another dialect."""
        self.leave_out(
            field, f"it belongs to the {self.origin} API; this target speaks {self.dialect}"
        )

    def merge_extras(self, fixed: frozenset[str]) -> None:
        """Merges `extra_body_json` and `provider_options_json` into the body; call it last.

        Where both sides have an object they become one, member by member. Of other values that of
        `provider_options_json` wins over the body's, and the body's over that of `extra_body_json`.

        Args:
            fixed: members that the gateway decides about, such as the model's name.
        """
        request, target = self.request, self.target
        extras: set[str] = set()
        if request.extra_body_json:
            passed = self.speaks_extras or target.policy == "pass"
            for name, value in raw_object(request.extra_body_json).items():
                if name in fixed:
                    continue
                if passed:
                    self._merge(name, value, extras, over=False)
                else:
                    self.unsupported_extra(name)
        given = request.provider_options_json
        for key in dict.fromkeys((self.dialect, target.kind, target.provider)) if given else ():
            for name, value in raw_object(given.get(key) or "{}").items():
                if name not in fixed:
                    self._merge(name, value, extras, over=True)

    def _merge(self, name: str, value: msgspec.Raw, extras: set[str], *, over: bool) -> None:
        """Merges one member; `extras` are those that came so, which are objects to mix with, too."""
        if name not in self.body:
            extras.add(name)
            self.body[name] = value
            return
        ours = self.body[name]
        if name in extras and _is_object(ours):
            ours = raw_object(bytes(ours))
        self.body[name] = _merged(ours, value, over=over)


def _is_object(value: Any) -> bool:
    return isinstance(value, msgspec.Raw) and bytes(value).lstrip()[:1] == b"{"


def _merged(ours: Any, theirs: msgspec.Raw, *, over: bool) -> Any:
    """Two values of one member; `over` says whose wins.

    Only objects that we made ourselves are mixed: others are the caller's, such as a schema, or of
    another type than theirs.
    """
    if not isinstance(ours, dict) or not _is_object(theirs):
        return theirs if over else ours
    more = raw_object(bytes(theirs))
    if "type" in ours and "type" in more and as_raw(ours["type"]) != more["type"]:
        return theirs if over else ours
    merged = ours | more
    for name in more.keys() & ours.keys():
        merged[name] = _merged(ours[name], more[name], over=over)
    return merged


def encode_fields(
    encoding: Encoding,
    plain: Mapping[str, str],
    fields: Mapping[str, Callable[[Encoding, Any], None]],
) -> None:
    """Walks the request's fields: copies the plain ones, translates the others.

    `model`, `messages`, and what `merge_extras` merges, are the caller's. A value that says what
    everybody does anyway (one choice, no log probabilities) is not worth a warning.

    Args:
        encoding: takes the values.
        plain: where a field goes as it is; see `Encoding.put`.
        fields: what becomes of the others.

    Raises:
        InvalidRequest: content, or under "strict" tuning, that the dialect has no place for.
    """
    for descriptor, value in encoding.request.ListFields():
        name = descriptor.name
        if name in _META or encoding.refused(name):
            continue
        if name in plain:
            if type(value) not in _SCALARS:
                value = dict(sorted(value.items())) if isinstance(value, Mapping) else list(value)
            encoding.put(plain[name], value)
        elif name in fields:
            fields[name](encoding, value)
        elif name in _CONTENT:
            raise InvalidRequest.of(name, f"the {encoding.dialect} API has no place for it")
        elif not _is_idle(name, value):
            encoding.unsupported(name, value)


def _is_idle(name: str, value: Any) -> bool:
    idle = _IDLE.get(name, False)
    return type(value) is type(idle) and bool(value == idle)


def elsewhere(encoding: Encoding, value: Any) -> None:
    """What becomes of a field that is dealt with before or behind the others."""


def text_only(encoding: Encoding, modalities: Sequence[str]) -> None:
    """What becomes of `modalities` where answers are text. Raises `InvalidRequest` for others."""
    if any(modality != "text" for modality in modalities):
        raise InvalidRequest.of(
            "modalities",
            f"the {encoding.dialect} API answers with text only, not with {', '.join(modalities)}",
        )


def schema_of(function: chat_pb2.FunctionTool) -> Json | msgspec.Raw:
    """The schema of a function's arguments as it is."""
    given = function.parameters_json
    return msgspec.Raw(given) if given else NO_ARGUMENTS


def place_of(options: chat_pb2.WebSearchOptions) -> Json:
    """The member `user_location` in the form that Anthropic and OpenAI share; empty if there is none."""
    if not options.HasField("user_location"):
        return {}
    place = {field.name: text for field, text in options.user_location.ListFields()}
    return {"user_location": {"type": "approximate", **place}}
