"""Messages and parts to `systemInstruction` and `contents`. Pure.

Sources: https://ai.google.dev/api/caching#Content (contents and parts),
https://ai.google.dev/gemini-api/docs/function-calling (calls and responses),
https://ai.google.dev/gemini-api/docs/thought-signatures (what must come back, and the placeholder for
calls that another model made).
"""

from __future__ import annotations

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import MalformedJson, raw_object
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.gemini.address import is_vertex
from headgate_server.providers.gemini.media import encode_media, encode_result_media
from headgate_server.providers.gemini.traits import is_gemini_3, is_gemma
from headgate_server.providers.history import INSTRUCTIONS, RESULTS, arguments_object, said

NO_SIGNATURE = "skip_thought_signature_validator"


def encode_messages(encoding: Encoding) -> None:
    """Puts the conversation into the body. Raises `InvalidRequest` for what cannot be expressed."""
    _Conversation(encoding).write()


class _Conversation:
    """The contents as far as they are written, and the calls that results refer to."""

    def __init__(self, encoding: Encoding) -> None:
        family = encoding.target.family
        self._encoding = encoding
        self._vertex = is_vertex(encoding.target)
        self._gemini_3 = is_gemini_3(family)
        self._thoughts_back = not is_gemma(family)
        # Vertex AI learned of ids when Gemini 3 did; older models match results by their order.
        self._ids = not self._vertex or self._gemini_3
        self._instructions: list[object] = []
        self._instruction_extras: Json = {}
        self._contents: list[Json] = []
        self._calls: dict[str, tuple[int, str]] = {}  # id -> (order, name)
        self._waiting: list[tuple[int, Json]] = []  # results of one turn, by the order of the calls
        self._waiting_extras: Json = {}

    def write(self) -> None:
        """Writes everything."""
        body = self._encoding.body
        for index, message in enumerate(self._encoding.request.messages):
            path = f"messages[{index}]"
            if message.HasField("name"):
                self._encoding.warn(f"{path}.name", "left out: the gemini API knows no names")
            if message.role in RESULTS:
                self._results(message, path)
                continue
            self._flush_results()
            if message.role in INSTRUCTIONS:
                self._instruction(message, path)
            elif message.role == content_pb2.ROLE_ASSISTANT:
                self._content("model", self._model_parts(message, path), message, path)
            else:
                self._content("user", self._user_parts(message, path), message, path)
        self._flush_results()
        if self._instructions and not self._contents:
            self._encoding.warn(
                "messages", "sent as a user message: the gemini API wants more than instructions"
            )
            self._contents.append({"role": "user", "parts": self._instructions})
        elif self._instructions:
            instruction: Json = {"parts": self._instructions}
            body["systemInstruction"] = instruction | self._instruction_extras
        body["contents"] = self._contents

    def _content(
        self, role: str, parts: list[object], message: content_pb2.Message, path: str
    ) -> None:
        if not parts:
            return  # a turn in which the model said nothing; the API refuses it
        content: Json = {"role": role, "parts": parts}
        if message.HasField("extra_json"):
            self._encoding.part_extras(content, message.extra_json, path)
        self._contents.append(content)

    # The three kinds of messages.

    def _instruction(self, message: content_pb2.Message, path: str) -> None:
        if self._contents:
            self._encoding.warn(
                path,
                "moved to the system instruction: the gemini API has no place for instructions "
                "within the conversation",
            )
        for where, part in said(message.parts, f"{path}.parts"):
            kind = part.WhichOneof("kind")
            if kind not in ("text", "vendor_part"):
                raise InvalidRequest.of(
                    f"{where}.{kind}",
                    "the gemini API takes text as instructions only; move it into a user message",
                )
            self._instructions.append(self._part(part, where))
        if message.HasField("extra_json"):
            self._encoding.part_extras(self._instruction_extras, message.extra_json, path)

    def _user_parts(self, message: content_pb2.Message, path: str) -> list[object]:
        return [self._part(part, where) for where, part in said(message.parts, f"{path}.parts")]

    def _model_parts(self, message: content_pb2.Message, path: str) -> list[object]:
        parts: list[object] = []
        unsigned = self._gemini_3  # whether the first call of the turn may lack its signature
        for place, part in enumerate(message.parts):
            where = f"{path}.parts[{place}]"
            kind = part.WhichOneof("kind")
            if kind == "reasoning":
                thought = self._thought(part, path)
                if thought is not None:
                    parts.append(thought)
                continue
            if kind == "text" and not part.text and not part.thought_signature:
                continue
            wire = self._part(part, where)
            if kind == "tool_call":
                if unsigned and isinstance(wire, dict):
                    wire.setdefault("thoughtSignature", NO_SIGNATURE)
                unsigned = False
            parts.append(wire)
        return parts

    def _results(self, message: content_pb2.Message, path: str) -> None:
        """Collects results: those of parallel calls must stand in one content."""
        for place, part in enumerate(message.parts):
            where = f"{path}.parts[{place}]"
            result = part.tool_result
            order, name = self._calls.get(result.tool_call_id, (len(self._calls), ""))
            name = result.name or message.name or name
            if not name:
                raise InvalidRequest.of(
                    f"{where}.tool_result.name",
                    f"is required: the gemini API wants the tool's name, and no earlier call has the "
                    f"id {result.tool_call_id!r}",
                )
            response: Json = {"name": name}
            if result.tool_call_id and self._ids:
                response = {"id": result.tool_call_id, **response}
            self._response(result, response, f"{where}.tool_result")
            wire: Json = {"functionResponse": response}
            if part.thought_signature and self._thoughts_back:
                wire["thoughtSignature"] = part.thought_signature
            if part.HasField("extra_json"):
                self._encoding.part_extras(wire, part.extra_json, where)
            self._waiting.append((order, wire))
        if message.HasField("extra_json"):
            self._encoding.part_extras(self._waiting_extras, message.extra_json, path)

    def _flush_results(self) -> None:
        if self._waiting:
            if not self._ids:
                self._waiting.sort(key=lambda entry: entry[0])
            parts = [wire for _, wire in self._waiting]
            content: Json = {"role": "user", "parts": parts}
            self._contents.append(content | self._waiting_extras)
            self._waiting, self._waiting_extras = [], {}

    # Parts.

    def _part(self, part: content_pb2.Part, path: str) -> object:
        kind = part.WhichOneof("kind")
        wire: Json
        if kind == "text":
            wire = {"text": part.text}
        elif kind == "refusal":
            wire = {"text": part.refusal}
        elif kind == "image" or kind == "audio" or kind == "file":
            media = getattr(part, kind)
            where = f"{path}.{kind}"
            if media.HasField("filename"):
                self._encoding.warn(
                    f"{where}.filename", "left out: the gemini API takes no names of files"
                )
            wire = encode_media(media, where, vertex=self._vertex)
        elif kind == "tool_call":
            wire = {"functionCall": self._call(part.tool_call, f"{path}.tool_call")}
        elif kind == "vendor_part":
            return self._vendor_part(part.vendor_part, f"{path}.vendor_part")
        else:
            raise InvalidRequest.of(path, f"a {kind or 'part without a kind'} cannot stand here")
        if part.thought_signature and self._thoughts_back:
            wire["thoughtSignature"] = part.thought_signature
        if part.HasField("extra_json"):
            self._encoding.part_extras(wire, part.extra_json, path)
        return wire

    def _vendor_part(self, part: content_pb2.VendorPart, path: str) -> msgspec.Raw:
        if part.dialect != self._encoding.dialect:
            raise InvalidRequest.of(
                path,
                f"it belongs to the {part.dialect} API, and this target speaks gemini; leave it out",
            )
        return msgspec.Raw(part.json)

    def _thought(self, part: content_pb2.Part, path: str) -> Json | None:
        reasoning = part.reasoning
        if reasoning.dialect not in ("", self._encoding.dialect):
            self._encoding.warn(
                f"{path}.reasoning",
                f"left out: it is thinking of the {reasoning.dialect} API, which the gemini API does "
                "not take back",
            )
            return None
        signature = reasoning.signature or part.thought_signature
        if not reasoning.text and not signature:
            return None
        if not self._thoughts_back:
            self._encoding.warn(
                f"{path}.reasoning",
                f"left out: {self._encoding.target.model!r} takes no earlier thinking back",
            )
            return None
        wire: Json = {"thought": True, "text": reasoning.text}
        if signature:
            wire["thoughtSignature"] = signature
        return wire

    def _call(self, call: content_pb2.ToolCall, path: str) -> Json:
        if call.custom:
            raise InvalidRequest.of(
                path, "the gemini API knows functions with JSON arguments, and no custom tools"
            )
        why = "must be a JSON object, because the gemini API takes no text there"
        arguments = arguments_object(call, path, why)
        if call.id:
            self._calls[call.id] = (len(self._calls), call.name)
        wire: Json = {"name": call.name, "args": arguments}
        return {"id": call.id, **wire} if call.id and self._ids else wire

    def _response(self, result: content_pb2.ToolResult, response: Json, path: str) -> None:
        text = ""
        media: list[object] = []
        for place, part in enumerate(result.parts):
            where = f"{path}.parts[{place}]"
            kind = part.WhichOneof("kind")
            wire: Json = {}
            if kind == "text":
                text += part.text
            elif kind == "vendor_part":
                media.append(self._vendor_part(part.vendor_part, f"{where}.vendor_part"))
            elif kind == "image" or kind == "audio" or kind == "file":
                if not self._gemini_3:
                    raise InvalidRequest.of(
                        f"{where}.{kind}",
                        f"{self._encoding.target.model!r} takes only text as a tool's result; send "
                        "the media in a user message",
                    )
                found = getattr(part, kind)
                wire = encode_result_media(found, f"{where}.{kind}", vertex=self._vertex)
                media.append(wire)
            else:
                raise InvalidRequest.of(where, f"a {kind} cannot stand in a tool's result")
            if part.HasField("extra_json"):
                self._encoding.part_extras(wire, part.extra_json, where)
        members = _members(text)
        if members is not None and (not result.is_error or "error" in members):
            response["response"] = msgspec.Raw(text)
        else:
            response["response"] = {"error" if result.is_error else "result": text}
        if media:
            response["parts"] = media


def _members(text: str) -> Json | None:
    """The members of a JSON object; None if the text is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return dict(raw_object(text))
    except MalformedJson:
        return None
