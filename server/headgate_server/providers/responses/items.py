"""The conversation as the input items of the Responses API. Pure.

System and developer messages stay where they are, as items of their role: `instructions` would hold only
the text of a first one. Texts of an assistant message that came from this API go back as the output
messages that they were; others as plain text, unless a refusal or citations need the long form, whose
id is then made up. Thinking goes back only in its encrypted form, because that is all this API takes.

Source: the `input` member of https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import MalformedJson, raw_object
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.history import RESULTS, OpenCalls, said
from headgate_server.providers.media import base64_of, data_url_of, web_url_of
from headgate_server.providers.responses.answer import NAME
from headgate_server.providers.shapes import kind_of

ROLES = {
    content_pb2.ROLE_DEVELOPER: "developer",
    content_pb2.ROLE_SYSTEM: "system",
    content_pb2.ROLE_USER: "user",
}
# Members of a part's extras that belong to its message item.
_ITEM_MEMBERS = ("id", "phase", "status")

Item = Json | msgspec.Raw
Parts = Iterable[content_pb2.Part]


def encode_input(encoding: Encoding) -> list[Item]:
    """The conversation. Raises `InvalidRequest` for what cannot be expressed."""
    conversation = _Conversation(encoding)
    for index, message in enumerate(encoding.request.messages):
        conversation.add(message, index)
    return conversation.items


class _Conversation:
    """The items so far, and which calls they hold."""

    def __init__(self, encoding: Encoding) -> None:
        self.items: list[Item] = []
        self._encoding = encoding
        self._custom: set[str] = set()  # ids of calls of custom tools
        self._open = OpenCalls()

    def add(self, message: content_pb2.Message, index: int) -> None:
        path = f"messages[{index}]"
        if message.HasField("name"):
            self._encoding.warn(f"{path}.name", "left out: the Responses API knows no names")
        before = len(self.items)
        if message.role in RESULTS:
            for place, part in enumerate(message.parts):
                self._result(part, f"{path}.parts[{place}]")
        elif message.role == content_pb2.ROLE_ASSISTANT:
            _Turn(self, self._encoding, index).add(message.parts)
        else:
            self._input(message, path)
        if message.HasField("extra_json"):
            added = [item for item in self.items[before:] if isinstance(item, dict)]
            for item in [item for item in added if "role" in item] or added[:1]:
                self._encoding.part_extras(item, message.extra_json, path)

    def _input(self, message: content_pb2.Message, path: str) -> None:
        role = ROLES[message.role]
        if role == "developer" and not self._encoding.target.vendor.developer_role:
            role = "system"
        parts = list(said(message.parts, f"{path}.parts"))
        if (text := _plain_text(parts)) is not None:
            self.items.append({"role": role, "content": text})
            return
        content: list[Item] = []
        for where, part in parts:
            if part.HasField("vendor_part"):
                raw = own_block(part.vendor_part, where)
                if not _type_of(raw, where).startswith("input_"):
                    # Not content but an item, such as the answer to a request for approval.
                    if content:
                        self.items.append({"role": role, "content": content})
                        content = []
                    self.items.append(raw)
                    continue
                content.append(raw)
            else:
                content.append(self._content(part, where))
        if content:
            self.items.append({"role": role, "content": content})

    def note_call(self, call: content_pb2.ToolCall, path: str) -> str:
        """Remembers a call; its id, or a made-up one."""
        call_id = self._open.id_of(call, path)
        if call.custom:
            self._custom.add(call_id)
        return call_id

    def _result(self, part: content_pb2.Part, path: str) -> None:
        result = part.tool_result
        call_id = self._open.answered_by(result, path)
        kind = "custom_tool_call_output" if call_id in self._custom else "function_call_output"
        parts = list(said(result.parts, f"{path}.tool_result.parts"))
        output: str | list[Item] | None = _plain_text(parts) if parts else ""
        if output is None:
            output = [
                own_block(inner.vendor_part, where)
                if inner.HasField("vendor_part")
                else self._content(inner, where)
                for where, inner in parts
            ]
        wire: Json = {"type": kind, "call_id": call_id, "output": output}
        self._encoding.part_extras(wire, part.extra_json, path)
        self.items.append(wire)

    def _content(self, part: content_pb2.Part, path: str) -> Json:
        """A content part of an input message or of a tool's result."""
        kind = part.WhichOneof("kind")
        if kind == "text":
            wire: Json = {"type": "input_text", "text": part.text}
        elif kind == "image":
            wire = {"type": "input_image", "detail": part.image.detail or "auto"}
            if part.image.HasField("file_id"):
                wire["file_id"] = part.image.file_id
            else:
                wire["image_url"] = data_url_of(part.image, f"{path}.image")
        elif kind == "file":
            wire = {"type": "input_file", **_file(part.file, f"{path}.file")}
        else:
            raise InvalidRequest.of(
                f"{path}.{kind}",
                "the Responses API takes text, images and files here; leave it out",
            )
        self._encoding.part_extras(wire, part.extra_json, path)
        return wire


class _Turn:
    """One assistant message on its way to items."""

    def __init__(self, conversation: _Conversation, encoding: Encoding, index: int) -> None:
        self._items = conversation.items
        self._conversation = conversation
        self._encoding = encoding
        self._index = index
        self._head: dict[str, msgspec.Raw] = {}  # of the message item under way
        self._contents: list[Json] = []
        self._written = 0  # characters of text so far: citations count from the first

    def add(self, parts: Parts) -> None:
        for place, part in enumerate(parts):
            kind = part.WhichOneof("kind")
            path = f"messages[{self._index}].parts[{place}]"
            if kind in ("text", "refusal"):
                self._said(part, path)
                continue
            self._flush()
            if kind == "tool_call":
                self._items.append(self._call(part, path))
            elif kind == "reasoning":
                self._thinking(part, path)
            elif kind == "image" and part.image.HasField("id"):
                self._items.append(self._image(part, path))
            elif kind == "vendor_part":
                self._items.append(own_block(part.vendor_part, path))
            else:
                raise InvalidRequest.of(
                    f"{path}.{kind}",
                    "the Responses API takes no such thing in assistant messages, but images that "
                    "it made itself; leave it out or move it to a user message",
                )
        self._flush()

    def _said(self, part: content_pb2.Part, path: str) -> None:
        head: dict[str, msgspec.Raw] = {}
        extra: dict[str, msgspec.Raw] = {}
        if part.HasField("extra_json") and self._encoding.speaks_extras:
            extra = raw_object(part.extra_json)
            head = {name: extra.pop(name) for name in _ITEM_MEMBERS if name in extra}
        elif part.HasField("extra_json"):
            self._encoding.part_extras({}, part.extra_json, path)
        if part.HasField("text") and not (part.text or part.annotations or head or extra):
            return  # some clients have an empty text beside calls
        if _encoded(head) != _encoded(self._head):
            self._flush()
            self._head = head
        if part.HasField("refusal"):
            self._contents.append({"type": "refusal", "refusal": part.refusal, **extra})
            return
        annotations = list(self._annotations(part, path))
        self._written += len(part.text)
        self._contents.append(
            {"type": "output_text", "text": part.text, "annotations": annotations, **extra}
        )

    def _annotations(self, part: content_pb2.Part, path: str) -> Iterable[Item]:
        for annotation in part.annotations:
            if annotation.HasField("url_citation"):
                cited = annotation.url_citation
                yield {
                    "type": "url_citation",
                    "url": cited.url,
                    "title": cited.title,
                    "start_index": max(cited.start_index - self._written, 0),
                    "end_index": max(cited.end_index - self._written, 0),
                }
            elif self._encoding.speaks_extras:
                yield msgspec.Raw(annotation.other_json)
            else:
                self._encoding.warn(
                    f"{path}.annotations", "left out: only this API's own and web pages can be sent"
                )

    def _flush(self) -> None:
        """Ends the message item under way."""
        contents, head = self._contents, self._head
        self._contents, self._head = [], {}
        if not contents:
            return
        if "id" not in head and all(_is_plain(content) for content in contents):
            text = "".join(content["text"] for content in contents)
            self._items.append({"role": "assistant", "content": text, **head})
            return
        place = len(self._items)
        item = {"type": "message", "id": f"msg_{place}", "role": "assistant", "status": "completed"}
        self._items.append({**item, **head, "content": contents})

    def _call(self, part: content_pb2.Part, path: str) -> Json:
        call = part.tool_call
        call_id = self._conversation.note_call(call, path)
        kind, name = (
            ("custom_tool_call", "input") if call.custom else ("function_call", "arguments")
        )
        wire: Json = {
            "type": kind,
            "call_id": call_id,
            "name": call.name,
            name: call.arguments_json,
        }
        self._encoding.part_extras(wire, part.extra_json, path)
        return wire

    def _thinking(self, part: content_pb2.Part, path: str) -> None:
        thinking, encoding = part.reasoning, self._encoding
        own = thinking.dialect in ("", NAME)
        # Without its content the item is a reference, good only for what the vendor has kept.
        kept = thinking.HasField("id") and encoding.request.store
        if not own or not (thinking.encrypted or kept):
            encoding.warn(
                f"{path}.reasoning",
                "left out: the Responses API takes back only its own thinking, in encrypted form",
            )
            return
        wire: Json = {"type": "reasoning"}
        if thinking.HasField("id"):
            wire["id"] = thinking.id
        wire["summary"] = [{"type": "summary_text", "text": thinking.text}] if thinking.text else []
        if thinking.encrypted:
            wire["encrypted_content"] = thinking.encrypted
        encoding.part_extras(wire, part.extra_json, path)
        self._items.append(wire)

    def _image(self, part: content_pb2.Part, path: str) -> Json:
        image = part.image
        wire: Json = {"type": "image_generation_call", "id": image.id}
        if image.WhichOneof("source") == "data":
            wire["result"] = base64_of(image.data)
            wire["status"] = "completed"
        self._encoding.part_extras(wire, part.extra_json, path)
        return wire


def own_block(part: content_pb2.VendorPart, path: str) -> msgspec.Raw:
    """A block of this API, as it is."""
    if part.dialect != NAME:
        raise InvalidRequest.of(
            f"{path}.vendor_part",
            f"is a block of the {part.dialect} API, and this target speaks {NAME}; leave it out",
        )
    return msgspec.Raw(part.json)


def _type_of(block: msgspec.Raw, path: str) -> str:
    try:
        return kind_of(block)
    except MalformedJson as error:
        raise InvalidRequest.of(
            f"{path}.vendor_part.json", "has a type that is no string; send the block as it came"
        ) from error


def _plain_text(parts: Sequence[tuple[str, content_pb2.Part]]) -> str | None:
    """The text, if there is one plain text and nothing else."""
    if len(parts) != 1:
        return None
    ((_, only),) = parts
    return only.text if only.HasField("text") and not only.HasField("extra_json") else None


def _is_plain(content: Json) -> bool:
    return content["type"] == "output_text" and len(content) == 3 and not content["annotations"]


def _encoded(head: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in head.items()}


def _file(media: content_pb2.Media, path: str) -> Json:
    wire: Json = {}
    if media.HasField("file_id"):
        wire["file_id"] = media.file_id
    elif media.HasField("url") and not media.url.startswith("data:"):
        wire["file_url"] = web_url_of(media, path)
    else:
        wire["file_data"] = data_url_of(media, path)
    if media.HasField("filename"):
        wire["filename"] = media.filename
    return wire
