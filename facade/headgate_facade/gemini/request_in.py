"""A Gemini body to ChatRequest: everything but the contents themselves. Pure.

Source: https://ai.google.dev/api/generate-content. What the proto has a field for goes there, so that any
provider can serve it; the rest goes into `extra_body_json`, in the shape that it came in, for
providers of this dialect. Every problem is an `InvalidRequest` that names the member.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2
from headgate.wire import MalformedJson, json_text, raw_object, raw_text
from headgate_facade.gemini import wire
from headgate_facade.gemini.content_in import DIALECT, ContentReader
from headgate_facade.gemini.members import as_list, camel, take
from headgate_facade.gemini.places import Places
from headgate_facade.gemini.schema import json_schema
from headgate_facade.malformed import unreadable

# Members of generationConfig that become fields as they are.
_NUMBERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "response_logprobs": "logprobs",
}
_WHOLE_NUMBERS = {
    "top_k": "top_k",
    "candidate_count": "n",
    # The newer of the two spellings; providers that know only the other one translate.
    "max_output_tokens": "max_completion_tokens",
    "seed": "seed",
    "logprobs": "top_logprobs",
}
_MODES = {
    "AUTO": chat_pb2.ToolChoice.MODE_AUTO,
    "ANY": chat_pb2.ToolChoice.MODE_REQUIRED,
    "NONE": chat_pb2.ToolChoice.MODE_NONE,
}
# Whose other names are the same.
_TIERS = {"standard": "default"}
_JSON = "application/json"
# An answer that is one word of a list. Elsewhere that can only be JSON, whose root must be an object.
ENUM = "text/x.enum"
ENUM_MEMBER = "value"


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What a body asks for.

    Attributes:
        request: the message for the core.
        include_thoughts: whether the caller wants to see thoughts.
        one_word: whether the answer is a bare word of a list: see `ENUM`.
        places: where its parts and tools stand in the body.
    """

    request: chat_pb2.ChatRequest
    include_thoughts: bool
    one_word: bool
    places: Places


def read_generate(body: bytes, model: str) -> Asked:
    """Reads the body of generateContent. Raises `InvalidRequest`."""
    try:
        return _Reader(model).read(wire.GENERATE_BODY.decode(body))
    except MalformedJson as error:
        raise unreadable(error, body, "contents") from error


def read_count(body: bytes, model: str) -> Asked:
    """Reads the body of countTokens. Raises `InvalidRequest`."""
    try:
        asked = wire.COUNT_BODY.decode(body)
        inner = asked.generate_content_request
        if inner is not None and asked.contents is not None:
            raise InvalidRequest.of("contents", "stands beside generateContentRequest; send one")
        return _Reader(model).read(inner or asked)
    except MalformedJson as error:
        raise unreadable(error, body, "contents") from error


class _Reader:
    """Fills one request."""

    def __init__(self, model: str) -> None:
        self._request = chat_pb2.ChatRequest(model=model)
        self._places = Places()
        self._extra: dict[str, Any] = {}  # of the body
        self._config: dict[str, Any] = {}  # of its generationConfig
        self._include_thoughts = False
        self._one_word = False
        self._own_members = False

    def read(self, body: wire.GenerateBody) -> Asked:
        request = self._request
        if body.model and body.model.removeprefix("models/") != request.model:
            raise InvalidRequest.of(
                "model", f"is {body.model!r} in the body, but {request.model!r} in the path"
            )
        self._contents(body)
        if body.tools:
            self._tools(as_list(body.tools))
        if body.tool_config is not None:
            self._tool_config(body.tool_config)
        if body.generation_config is not None:
            self._generation_config(body.generation_config)
        if self._config:
            self._extra["generationConfig"] = self._config
        if body.store is not None:
            request.store = body.store
        tier = (body.service_tier or "").lower()
        if tier not in ("", "unspecified", "service_tier_unspecified"):
            request.service_tier = _TIERS.get(tier, tier)
        take(body, wire.OWN_MEMBERS, body.extra, self._extra)
        if self._extra:
            request.extra_body_json = json_text(self._extra) or ""
            self._own_members = True
        if self._own_members:
            request.extra_dialect = DIALECT
        return Asked(request, self._include_thoughts, self._one_word, self._places)

    def _contents(self, body: wire.GenerateBody) -> None:
        reader = ContentReader(self._request, self._places)
        if body.system_instruction is not None:
            reader.system(body.system_instruction)
        if isinstance(body.contents, str):
            reader.text(body.contents)
        else:
            contents = as_list(body.contents)
            if not contents:
                raise InvalidRequest.of("contents", "is required, and must not be empty")
            for index, content in enumerate(contents):
                reader.content(content, index)
            reader.finish()
        self._own_members = reader.own_members

    # Tools.

    def _tools(self, tools: Iterable[wire.Tool]) -> None:
        for index, tool in enumerate(tools):
            path = f"tools[{index}]"
            for place, declared in enumerate(as_list(tool.function_declarations)):
                self._function(declared, f"{path}.functionDeclarations[{place}]")
            own: dict[str, Any] = {}
            take(tool, wire.OWN_TOOLS, tool.extra, own)
            for name, value in own.items():
                if not bytes(value).lstrip().startswith(b"{"):
                    raise InvalidRequest.of(f"{path}.{name}", "must be an object")
                if name == "googleSearch" and not raw_object(bytes(value)):
                    # Plain web search is what other vendors have, too.
                    self._request.web_search_options.SetInParent()
                    continue
                self._places.tools.append(f"{path}.{name}")
                self._request.tools.add().provider_tool_json = json_text({name: value}) or ""
                self._own_members = True

    def _function(self, declared: wire.FunctionDeclaration, path: str) -> None:
        self._places.tools.append(path)
        tool = self._request.tools.add()
        function = tool.function
        function.name = declared.name
        if declared.description is not None:
            function.description = declared.description
        standard = raw_text(declared.parameters_json_schema)
        if standard is not None:
            function.parameters_json = standard
        elif raw_text(declared.parameters) is not None:
            function.parameters_json = json_schema(declared.parameters, f"{path}.parameters")
        extra: dict[str, Any] = {}
        take(declared, ("behavior", "response", "response_json_schema"), declared.extra, extra)
        if extra:
            tool.extra_json = json_text(extra) or ""
            self._own_members = True

    def _tool_config(self, config: wire.ToolConfig) -> None:
        if config.function_calling_config is not None:
            self._tool_choice(config.function_calling_config)
        extra: dict[str, Any] = {}
        names = ("retrieval_config", "include_server_side_tool_invocations")
        take(config, names, config.extra, extra)
        if extra:
            self._extra["toolConfig"] = extra

    def _tool_choice(self, config: wire.FunctionCallingConfig) -> None:
        names = list(as_list(config.allowed_function_names))
        mode = (config.mode or "").upper()
        choice = self._request.tool_choice
        if mode in _MODES and not names and not config.extra:
            choice.mode = _MODES[mode]
        elif mode == "ANY" and len(names) == 1 and not config.extra:
            choice.function_name = names[0]
        elif mode not in ("", "MODE_UNSPECIFIED") or names or config.extra:
            # VALIDATED, and choices among several functions, are Gemini's own.
            own: dict[str, Any] = {"mode": mode} if mode else {}
            if names:
                own["allowedFunctionNames"] = names
            own |= config.extra or {}
            choice.provider_choice_json = json_text(own) or ""
            self._own_members = True

    # generationConfig.

    def _generation_config(self, config: wire.GenerationConfig) -> None:
        request = self._request
        for name, field in _NUMBERS.items():
            value = getattr(config, name)
            if value is not None:
                setattr(request, field, value)
        for name, field in _WHOLE_NUMBERS.items():
            value = getattr(config, name)
            if value is not None:
                setattr(request, field, _whole(value, f"generationConfig.{camel(name)}", field))
        request.stop.extend(as_list(config.stop_sequences))
        request.modalities.extend(text.lower() for text in as_list(config.response_modalities))
        self._response_format(config)
        if config.thinking_config is not None:
            self._thinking(config.thinking_config)
        self._speech(config.speech_config)
        take(config, wire.OWN_CONFIG, config.extra, self._config)

    def _response_format(self, config: wire.GenerationConfig) -> None:
        kind = config.response_mime_type
        schema = raw_text(config.response_json_schema)
        if schema is None and raw_text(config.response_schema) is not None:
            schema = json_schema(config.response_schema, "generationConfig.responseSchema")
        if schema is None and kind is None:
            kind, schema = self._new_response_format(config.response_format)
        else:
            take(config, ("response_format",), None, self._config)
        out = self._request.response_format
        if kind == ENUM and schema is not None:
            self._one_word = True
            schema = (
                f'{{"type":"object","properties":{{"{ENUM_MEMBER}":{schema}}},'
                f'"required":["{ENUM_MEMBER}"],"additionalProperties":false}}'
            )
        elif kind not in (None, "", _JSON, "text/plain"):
            # Some form of Gemini's own.
            self._config["responseMimeType"] = kind
            take(config, ("response_schema", "response_json_schema"), None, self._config)
            return
        if schema is not None:
            out.json_schema.name = "response"
            out.json_schema.schema_json = schema
        elif kind == _JSON:
            out.json_object.SetInParent()
        elif kind == "text/plain":
            out.text.SetInParent()

    def _new_response_format(self, given: msgspec.Raw) -> tuple[str | None, str | None]:
        """`responseFormat`, which says the same in a list of forms."""
        text = raw_text(given)
        if text is None:
            return None, None
        try:
            listed = text if text.lstrip().startswith("[") else f"[{text}]"
            forms = wire.RESPONSE_FORMAT.decode(listed.encode())
        except MalformedJson:
            forms = []
        if len(forms) == 1:
            kind = forms[0].text.mime_type
            if kind.upper() in (_JSON.upper(), "APPLICATION_JSON"):
                return _JSON, raw_text(forms[0].text.schema)
        self._config["responseFormat"] = given
        return None, None

    def _thinking(self, config: wire.ThinkingConfig) -> None:
        options = self._request.reasoning
        if config.thinking_budget is not None:
            path = "generationConfig.thinkingConfig.thinkingBudget"
            budget = _whole(config.thinking_budget, path, "reasoning.budget_tokens")
            # 0 switches thinking off, -1 leaves the budget to the model.
            options.enabled = budget != 0
            if budget not in (0, -1):
                options.budget_tokens = budget
        level = (config.thinking_level or "").lower()
        if level and level != "thinking_level_unspecified":
            options.effort = level
        self._include_thoughts = bool(config.include_thoughts)
        if self._include_thoughts:
            options.summary = "auto"
        elif options.enabled or options.effort:
            # Gemini shows no thoughts unless it is told to; others do.
            options.summary = "none"
        if config.extra:
            self._config["thinkingConfig"] = config.extra

    def _speech(self, given: msgspec.Raw) -> None:
        text = raw_text(given)
        if text is None:
            return
        try:
            voice = wire.SPEECH_CONFIG.decode(text.encode()).voice_config.prebuilt_voice_config
        except MalformedJson:
            # Two speakers, a language, or what else only Gemini can do: whole, for Gemini alone.
            self._config["speechConfig"] = given
            return
        # What Gemini speaks: https://ai.google.dev/gemini-api/docs/speech-generation
        self._request.audio.voice, self._request.audio.format = voice.voice_name, "pcm16"


def _whole(value: float, path: str, field: str) -> int:
    limit = 2**31 - 1 if field in ("n", "top_logprobs") else 2**63 - 1
    if abs(value) > limit or value != int(value):
        raise InvalidRequest.of(path, f"must be a whole number of at most {limit}, not {value:g}")
    return int(value)
