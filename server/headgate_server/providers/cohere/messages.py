"""Messages, parts and tools to Cohere's form. Pure.

Source: `messages` and `tools` of https://docs.cohere.com/reference/chat. Thinking goes back as a block of
content, or as the tool plan that it was; it needs no proof. Documents belong to results of tools: of the
user's own, Cohere takes the text only, in the request's member `documents`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, raw_object
from headgate_server.providers.citations import own_citations
from headgate_server.providers.cohere.answer import TOOL_PLAN
from headgate_server.providers.encoding import Encoding, Json, schema_of
from headgate_server.providers.history import RESULTS, OpenCalls, said
from headgate_server.providers.media import data_url_of

Blocks = list[Json | msgspec.Raw]
ROLES = {
    content_pb2.ROLE_DEVELOPER: "system",
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
}


def encode_messages(encoding: Encoding, messages: Sequence[content_pb2.Message]) -> None:
    """Puts the conversation into the body. Raises `InvalidRequest` for what cannot be expressed."""
    conversation = _Conversation(encoding)
    for index, message in enumerate(messages):
        conversation.add(message, f"messages[{index}]")
    encoding.body["messages"] = conversation.messages


class _Conversation:
    """The translation of one conversation under way."""

    def __init__(self, encoding: Encoding) -> None:
        self.messages: list[Json] = []
        self._encoding = encoding
        self._open = OpenCalls()

    def add(self, message: content_pb2.Message, path: str) -> None:
        """Adds the next message."""
        if message.HasField("name"):
            self._encoding.warn(
                f"{path}.name", "left out: the cohere API knows no names of speakers"
            )
        if message.role in RESULTS:
            for place, part in enumerate(message.parts):
                self._put(self._result(part, f"{path}.parts[{place}]"), message, path)
        elif message.role == content_pb2.ROLE_ASSISTANT:
            self._put(self._assistant(message, path), message, path)
        else:
            role = ROLES[message.role]
            content = self._contents(message.parts, f"{path}.parts", role)
            self._put({"role": role, "content": content}, message, path)

    def _put(self, wire: Json, message: content_pb2.Message, path: str) -> None:
        self._encoding.part_extras(wire, message.extra_json, path)
        self.messages.append(wire)

    def _contents(self, parts: Sequence[content_pb2.Part], path: str, role: str) -> str | Blocks:
        """A string for one plain text, else a list of blocks."""
        return _shortest([self._block(part, where, role) for where, part in said(parts, path)])

    def _block(self, part: content_pb2.Part, path: str, role: str) -> Json | msgspec.Raw:
        kind = part.WhichOneof("kind")
        wire: Json
        if kind == "text":
            wire = {"type": "text", "text": part.text}
        elif kind == "refusal":
            wire = {"type": "text", "text": part.refusal}
        elif kind == "image" and role == "user":
            wire = {"type": "image_url", "image_url": _image(part.image, f"{path}.image")}
        elif kind == "file" and role == "tool":
            wire = {"type": "document", "document": _document(part.file, f"{path}.file")}
        elif kind == "vendor_part":
            return self._encoding.own_block(part.vendor_part, path)
        else:
            hint = "; send its text in the member `documents`" if kind == "file" else ""
            raise InvalidRequest.of(
                path, f"the cohere API takes no {kind} in messages of the role {role}{hint}"
            )
        self._encoding.part_extras(wire, part.extra_json, path)
        return wire

    def _assistant(self, message: content_pb2.Message, path: str) -> Json:
        wire: Json = {"role": "assistant"}
        content: Blocks = []
        plans: list[str] = []
        calls: list[Json] = []
        citations: list[msgspec.Raw] = []
        has_calls = any(part.HasField("tool_call") for part in message.parts)
        for where, part in said(message.parts, f"{path}.parts"):
            kind = part.WhichOneof("kind")
            if kind == "tool_call":
                calls.append(self._call(part, where))
            elif kind == "reasoning":
                self._thought(part, where, content, plans, has_calls=has_calls)
            else:
                content.append(self._block(part, where, "assistant"))
            citations += own_citations(part, _is_citation)
        if content or not calls:
            wire["content"] = _shortest(content)
        if plans:
            wire["tool_plan"] = "".join(plans)
        if calls:
            wire["tool_calls"] = calls
        if citations:
            wire["citations"] = citations
        return wire

    def _thought(
        self,
        part: content_pb2.Part,
        path: str,
        content: Blocks,
        plans: list[str],
        *,
        has_calls: bool,
    ) -> None:
        """Adds earlier thinking: as a plan if it was one, or if that is all the model knows of it."""
        thought = part.reasoning
        was_plan = thought.id == TOOL_PLAN and thought.dialect in ("", "cohere")
        thinks = self._encoding.target.family.reasoning is not False
        if thought.text and has_calls and (was_plan or not thinks):
            plans.append(thought.text)
        elif thought.text and thinks:
            block: Json = {"type": "thinking", "thinking": thought.text}
            self._encoding.part_extras(block, part.extra_json, path)
            content.append(block)
        else:
            why = (
                f"{self._encoding.target.model!r} takes no thinking" if thought.text
                else "the cohere API cannot read it"
            )  # fmt: skip
            self._encoding.warn("messages.reasoning", f"left out: {why}")

    def _call(self, part: content_pb2.Part, path: str) -> Json:
        call = part.tool_call
        if call.custom:
            raise InvalidRequest.of(
                f"{path}.tool_call.custom", "the cohere API takes calls with JSON arguments only"
            )
        call_id = self._open.id_of(call, path)
        function = {"name": call.name, "arguments": call.arguments_json}
        wire: Json = {"id": call_id, "type": "function", "function": function}
        self._encoding.part_extras(wire, part.extra_json, path)
        return wire

    def _result(self, part: content_pb2.Part, path: str) -> Json:
        result = part.tool_result
        call_id = self._open.answered_by(result, path)
        content = self._contents(result.parts, f"{path}.tool_result.parts", "tool")
        wire: Json = {"role": "tool", "tool_call_id": call_id, "content": content}
        self._encoding.part_extras(wire, part.extra_json, path)
        return wire


def _shortest(blocks: Blocks) -> str | Blocks:
    """A string for one plain text or none at all, else the list of blocks."""
    only = blocks[0] if len(blocks) == 1 else None
    if isinstance(only, dict) and only.keys() == {"type", "text"}:
        text: str = only["text"]
        return text
    return blocks or ""


def _image(media: content_pb2.Media, path: str) -> Json:
    source = media.WhichOneof("source")
    if source not in ("data", "url"):
        raise InvalidRequest.of(
            f"{path}.{source or 'data'}", "the cohere API takes images as data or URL only"
        )
    detail = {"detail": media.detail} if media.HasField("detail") else {}
    return {"url": data_url_of(media, path), **detail}


def _document(media: content_pb2.Media, path: str) -> Json:
    """A text file that a tool gave back, as a document that the answer can cite."""
    if media.WhichOneof("source") != "data" or not _is_text(media.media_type):
        raise InvalidRequest.of(path, "the cohere API takes documents as data, and as text only")
    try:
        text = media.data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest.of(f"{path}.data", "must be UTF-8 for the cohere API") from error
    document: Json = {"data": {"text": text}}
    if media.HasField("filename"):
        document["id"] = media.filename
        document["data"]["title"] = media.filename
    return document


def _is_text(media_type: str) -> bool:
    return media_type.startswith("text/") or media_type in ("application/json", "application/xml")


def _is_citation(text: str) -> bool:
    try:
        return "sources" in raw_object(text)
    except MalformedJson:
        return False


# Tools.


def encode_tools(encoding: Encoding, tools: Sequence[chat_pb2.Tool]) -> None:
    """Puts the tools into the body. Strictness is a matter of all of them or none."""
    listed: list[Json | msgspec.Raw] = []
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.HasField("provider_tool_json"):
            listed.append(encoding.own_tool(tool, path))
            continue
        function: Json = {"name": tool.function.name}
        if tool.function.HasField("description"):
            function["description"] = tool.function.description
        function["parameters"] = schema_of(tool.function)
        wire: Json = {"type": "function", "function": function}
        encoding.part_extras(wire, tool.extra_json, path)
        listed.append(wire)
    encoding.body["tools"] = listed
    strict = [tool.function.strict for tool in tools]
    if all(strict):
        encoding.body["strict_tools"] = True
    elif any(strict):
        first = strict.index(True)
        encoding.leave_out(
            f"tools[{first}].function.strict",
            "the cohere API knows strictness of all tools together only",
        )
