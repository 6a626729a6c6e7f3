"""The tools of a Responses request, in a form that every provider knows. Pure.

Functions are functions everywhere. Custom tools (free text) and namespaces exist only in OpenAI's API,
and its agents use both: elsewhere a custom tool is a function with one argument, `input`, and a function
in a namespace has the namespace in its name. `ToolTable` keeps what turns the calls back. Providers of
this door's own dialect get the tools as they came.

Source: the `tools` and `tool_choice` members of https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import Extra, MalformedJson, json_text, raw_object, raw_text
from headgate_facade.responses import wire
from headgate_facade.responses.refusals import misshapen

_MODES = {
    b'"none"': chat_pb2.ToolChoice.MODE_NONE,
    b'"auto"': chat_pb2.ToolChoice.MODE_AUTO,
    b'"required"': chat_pb2.ToolChoice.MODE_REQUIRED,
}
_WEB_SEARCH = re.compile(r"web_search(_preview)?(_\d{4}_\d\d_\d\d)?")
# What most vendors allow: https://platform.openai.com/docs/api-reference/chat/create, `tools`.
_MAX_NAME = 64
_FOREIGN_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_PLACES = ("city", "country", "region", "timezone")
INPUT_SCHEMA = (
    '{"type":"object","properties":{"input":{"type":"string","description":'
    '"The whole input of the tool, as it is."}},"required":["input"],"additionalProperties":false}'
)


class Original(msgspec.Struct, frozen=True, gc=False):
    """What the caller calls a tool, where that is not what the provider calls it."""

    name: str
    namespace: str | None = None
    custom: bool = False


class ToolTable:
    """The tools under way into a request.

    Attributes:
        originals: by the name that the provider knows.
        paths: where in the body each tool of the request came from.
        changed: whether the request's tools say less than the body's.
        unavailable: tools that no other vendor has, and that an answer can do without.
    """

    def __init__(self, request: chat_pb2.ChatRequest) -> None:
        self.originals: dict[str, Original] = {}
        self.paths: list[str] = []
        self.changed = False
        self.unavailable: list[msgspec.Raw] = []
        self._request = request

    def read(self, tools: list[msgspec.Raw], path: str) -> None:
        """Takes a list of tools. Raises `InvalidRequest`."""
        for index, raw in enumerate(tools):
            self._tool(raw, f"{path}[{index}]")

    def _tool(self, raw: msgspec.Raw, path: str) -> None:
        try:
            kind = _kind(raw, path)
            if kind == "function":
                self._function(wire.FUNCTION_TOOL.decode(bytes(raw)), None, path)
            elif kind == "custom":
                self._custom(wire.CUSTOM_TOOL.decode(bytes(raw)), None, path)
            elif kind == "namespace":
                self._namespace(wire.NAMESPACE.decode(bytes(raw)), path)
            elif not (_WEB_SEARCH.fullmatch(kind) and self._web_search(raw)):
                self._add(path).provider_tool_json = raw_text(raw) or ""
        except MalformedJson as error:
            if kind == "function" and "function" in raw_object(bytes(raw)):
                raise InvalidRequest.of(
                    f"{path}.name", "is required; a function's members stand beside its type here"
                ) from error
            raise misshapen(error, path) from error

    def _add(self, path: str) -> chat_pb2.Tool:
        self.paths.append(path)
        return self._request.tools.add()

    def _function(self, tool: wire.FunctionTool, space: wire.Namespace | None, path: str) -> None:
        out = self._add(path)
        function = out.function
        function.name = self._name(tool.name, space, custom=False)
        described = _described(tool.description, space)
        if described is not None:
            function.description = described
        function.parameters_json = raw_text(tool.parameters) or ""
        if tool.strict is not None:
            function.strict = tool.strict
        extra = extra_text(tool.extra)
        if extra is not None:
            out.extra_json = extra

    def _custom(self, tool: wire.CustomTool, space: wire.Namespace | None, path: str) -> None:
        self.changed = True
        out = self._add(path)
        function = out.function
        function.name = self._name(tool.name, space, custom=True)
        described = _described(tool.description, space)
        rule = _rule(tool.format)
        told = "\n\n".join(text for text in (described, rule) if text)
        if told:
            function.description = told
        function.parameters_json = INPUT_SCHEMA
        extra = extra_text(tool.extra)
        if extra is not None:
            out.extra_json = extra

    def _namespace(self, space: wire.Namespace, path: str) -> None:
        self.changed = True
        for index, raw in enumerate(space.tools):
            inner = f"{path}.tools[{index}]"
            kind = _kind(raw, inner)
            # What its tools have in common is said once, where they begin.
            told = space if index == 0 else wire.Namespace(space.type, space.name, [])
            try:
                if kind == "function":
                    self._function(wire.FUNCTION_TOOL.decode(bytes(raw)), told, inner)
                elif kind == "custom":
                    self._custom(wire.CUSTOM_TOOL.decode(bytes(raw)), told, inner)
                else:
                    raise InvalidRequest.of(
                        f"{inner}.type",
                        f"{kind!r} cannot stand in a namespace; function and custom can",
                    )
            except MalformedJson as error:
                raise misshapen(error, inner) from error

    def _name(self, name: str, space: wire.Namespace | None, *, custom: bool) -> str:
        namespace = space.name if space is not None else None
        known = portable_name(name, namespace)
        if custom or namespace:
            self.originals[known] = Original(name, namespace, custom)
        return known

    def _web_search(self, raw: msgspec.Raw) -> bool:
        """Takes a web search that other vendors have, too; whether it is one."""
        tool = wire.WEB_SEARCH.decode(bytes(raw))
        if extra_text(tool.extra) is not None or self._request.HasField("web_search_options"):
            return False
        self.changed = True
        if tool.external_web_access is False:
            # A search in the vendor's own cache alone. Another vendor's search would go to the web,
            # which the caller does not want.
            self.unavailable.append(raw)
            return True
        options = self._request.web_search_options
        options.SetInParent()
        if tool.search_context_size is not None:
            options.search_context_size = tool.search_context_size
        if tool.user_location is not None:
            for name in _PLACES:
                value = getattr(tool.user_location, name)
                if value is not None:
                    setattr(options.user_location, name, value)
        return True

    # The choice.

    def choose(self, raw: msgspec.Raw) -> bool:
        """Takes the choice among the tools, once they are all known. Raises `InvalidRequest`.

        Returns:
            Whether the request says less than the body.
        """
        text = bytes(raw)
        if text in (b"", b"null"):
            return False
        choice = self._request.tool_choice
        if text in _MODES:
            if text == b'"required"' and not self._request.tools:
                return True  # there is nothing that every vendor has; the tools' own vendor decides
            choice.mode = _MODES[text]
            return False
        if text[:1] != b"{":
            raise InvalidRequest.of(
                "tool_choice", 'must be "none", "auto", "required" or an object that names a tool'
            )
        kind = _kind(raw, "tool_choice")
        try:
            if kind == "allowed_tools":
                self._allow(wire.ALLOWED_TOOLS.decode(text))
                return True
            if kind not in ("function", "custom"):
                choice.provider_choice_json = raw_text(raw) or ""
                return False
            named = wire.TOOL_NAME.decode(text)
        except MalformedJson as error:
            raise misshapen(error, "tool_choice") from error
        choice.function_name = portable_name(named.name, named.namespace)
        return choice.function_name in self.originals

    def _allow(self, allowed: wire.AllowedTools) -> None:
        """Leaves out what the model may not call: only OpenAI can be told of tools that it may not."""
        mode = _MODES.get(f'"{allowed.mode}"'.encode())
        if mode is None or mode == chat_pb2.ToolChoice.MODE_NONE:
            raise InvalidRequest.of("tool_choice.mode", 'must be "auto" or "required"')
        names: set[str] = set()
        kinds: set[str] = set()
        for index, raw in enumerate(allowed.tools):
            path = f"tool_choice.tools[{index}]"
            kind = _kind(raw, path)
            if kind in ("function", "custom"):
                try:
                    named = wire.TOOL_NAME.decode(bytes(raw))
                except MalformedJson as error:
                    raise misshapen(error, path) from error
                names.add(portable_name(named.name, named.namespace))
            else:
                kinds.add(kind)
        request = self._request
        kept = [
            (tool, path)
            for tool, path in zip(list(request.tools), self.paths, strict=True)
            if (
                tool.function.name in names
                if tool.HasField("function")
                else wire.KIND.decode(tool.provider_tool_json.encode()).type in kinds
            )
        ]
        self.changed = True
        del request.tools[:]
        request.tools.extend(tool for tool, _ in kept)
        self.paths = [path for _, path in kept]
        if not any(_WEB_SEARCH.fullmatch(kind) for kind in kinds):
            request.ClearField("web_search_options")
        if kept:
            request.tool_choice.mode = mode


def portable_name(name: str, namespace: str | None) -> str:
    """The name under which every provider knows a tool; the same for equal arguments."""
    if not namespace:
        return name
    known = _FOREIGN_IN_NAMES.sub("_", f"{namespace}__{name}")
    if len(known) <= _MAX_NAME:
        return known
    digest = hashlib.sha256(f"{namespace}__{name}".encode()).hexdigest()[:8]
    return f"{known[: _MAX_NAME - 9]}_{digest}"


def extra_text(extra: Extra) -> str | None:
    """Unknown members as JSON text; those that are null say nothing."""
    if not extra:
        return None
    return json_text({name: raw for name, raw in extra.items() if bytes(raw) != b"null"})


def _kind(raw: msgspec.Raw, path: str) -> str:
    try:
        kind = wire.KIND.decode(bytes(raw)).type
    except MalformedJson as error:
        raise InvalidRequest.of(path, "must be an object with a type") from error
    if not kind:
        raise InvalidRequest.of(f"{path}.type", "is required")
    return kind


def _described(description: str | None, space: wire.Namespace | None) -> str | None:
    if space is None or not space.description:
        return description
    about = f"{space.name}: {space.description}"
    return f"{about}\n\n{description}" if description else about


def _rule(form: msgspec.Raw) -> str:
    """What a custom tool's input has to look like, for models that can only be asked for it."""
    text = raw_text(form)
    if text is None:
        return ""
    try:
        grammar = wire.GRAMMAR.decode(text.encode())
    except MalformedJson:
        return f"The input's format: {text}"
    if not grammar.definition:
        return ""
    return f"The input must match this {grammar.syntax or ''} grammar:\n{grammar.definition}"
