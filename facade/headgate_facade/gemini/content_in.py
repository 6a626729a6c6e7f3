"""Contents of a Gemini request to messages. Pure.

Source: https://ai.google.dev/api/caching#Content and https://ai.google.dev/gemini-api/docs/thought-signatures.

Gemini's history differs from other vendors' in three ways, which are evened out here:

- Calls need no id, and their outcomes come in a turn of the user. Calls without one get an id made of
  their place, and an outcome without one answers the first open call of its function.
- A streamed answer comes back piece by piece: the SDKs' chats keep every chunk as a content of its own,
  others collect the parts in one. Contents of the model that follow each other are one message, in which
  texts, and thoughts, that were cut by nothing but the stream are joined again.
- A thought's proof may stand on any part. One that `headgate.reasoning.seal` made is opened.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headgate.errors import InvalidRequest
from headgate.reasoning import unseal
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import json_text, raw_object
from headgate_facade.gemini import wire
from headgate_facade.gemini.media_in import file, inline, members_of
from headgate_facade.gemini.members import (
    as_list,
    camel,
    compact_object,
    present,
    standard_base64,
    take,
)
from headgate_facade.gemini.places import Places

DIALECT = "gemini"
_USER_ROLES = (None, "", "user", "function", "tool")


class ContentReader:
    """Fills the messages of one request.

    Args:
        request: gets the messages.
        places: gets to know where they come from.

    Attributes:
        own_members: whether something stands in the messages that only Gemini's dialect can read.
    """

    def __init__(self, request: chat_pb2.ChatRequest, places: Places) -> None:
        self._request = request
        self._places = places
        self._calls = _OpenCalls()
        self._turn: content_pb2.Message | None = None  # the model's, while it may go on
        self._last: content_pb2.Part | None = None  # of the message under way
        self._pieces: list[str] = []  # the last part's text, while it grows
        self.own_members = False

    def system(self, content: wire.Content | str) -> None:
        """Reads `systemInstruction`."""
        message = self._begin(content_pb2.ROLE_SYSTEM, "systemInstruction")
        if isinstance(content, str):
            self._add(message, "systemInstruction").text = content
            return
        self._message_extras(content, message)
        for place, part in enumerate(as_list(content.parts)):
            self._part(part, message, f"systemInstruction.parts[{place}]")

    def content(self, content: wire.Content, index: int) -> None:
        """Reads one of `contents`."""
        path = f"contents[{index}]"
        if content.role == "model":
            self._model(content, path)
        elif content.role in _USER_ROLES:
            self._turn = None
            self._user(content, path)
        else:
            raise InvalidRequest.of(
                f"{path}.role", f'must be "user" or "model", not {content.role!r}; '
                "instructions go into systemInstruction"
            )  # fmt: skip

    def text(self, text: str) -> None:
        """Reads `contents` that are a bare text."""
        message = self._begin(content_pb2.ROLE_USER, "contents")
        self._add(message, "contents").text = text

    def finish(self) -> None:
        """To be called behind the last one."""
        last, pieces = self._last, self._pieces
        if last is not None and pieces:
            # Now, and not piece by piece: appending to a message's text copies it.
            if last.HasField("reasoning"):
                last.reasoning.text += "".join(pieces)
            else:
                last.text += "".join(pieces)
            self._pieces = []

    # Turns.

    def _begin(self, role: content_pb2.Role.ValueType, path: str) -> content_pb2.Message:
        self.finish()
        self._last = None
        self._places.messages.append((path, []))
        return self._request.messages.add(role=role)

    def _add(self, message: content_pb2.Message, path: str) -> content_pb2.Part:
        self.finish()
        self._places.messages[-1][1].append(path)
        self._last = part = message.parts.add()
        return part

    def _message_extras(self, content: wire.Content, message: content_pb2.Message) -> None:
        if content.extra:
            message.extra_json = json_text(content.extra) or ""
            self.own_members = True

    def _user(self, content: wire.Content, path: str) -> None:
        parts = as_list(content.parts)
        results = [i for i, part in enumerate(parts) if part.function_response is not None]
        if results:
            # First, whatever stands around them: everyone else wants outcomes right behind the calls.
            message = self._begin(content_pb2.ROLE_TOOL, path)
            for place in results:
                self._result(parts[place], message, f"{path}.parts[{place}]")
            if len(results) == len(parts):
                self._message_extras(content, message)
                return
        message = self._begin(content_pb2.ROLE_USER, path)
        self._message_extras(content, message)
        for place, part in enumerate(parts):
            if part.function_response is None:
                self._part(part, message, f"{path}.parts[{place}]")

    def _model(self, content: wire.Content, path: str) -> None:
        message, parts = self._turn, as_list(content.parts)
        if message is None:
            message = self._turn = self._begin(content_pb2.ROLE_ASSISTANT, path)
            self._calls = _OpenCalls()
        self._message_extras(content, message)
        for place, part in enumerate(parts):
            where = f"{path}.parts[{place}]"
            if part.thought and _is_text(part):
                self._thought(part, message, where)
            elif (
                part.text == ""
                and wire.is_plain_text(part)
                and (self._last is not None or len(parts) > 1)
            ):
                continue  # it says nothing, as the last chunk of a stream does
            elif not self._joined(part):
                self._part(part, message, where)

    # Parts.

    def _thought(self, part: wire.Part, message: content_pb2.Message, path: str) -> None:
        text, given, last = part.text or "", part.thought_signature, self._last
        if (
            last is None
            or not last.HasField("reasoning")
            or last.HasField("extra_json")
            or _is_proven(last.reasoning)
            or (given and text)
        ):
            last = self._add(message, path)
            last.reasoning.SetInParent()
        if text:
            self._pieces.append(text)
        if given:
            self.finish()
            # A seal may hold the text, too, if the caller had not asked to see it.
            last.reasoning.MergeFrom(_proof(given))
        self._part_extras(part, last)

    def _joined(self, part: wire.Part) -> bool:
        """Whether the part is what the stream had cut off the part before, which takes it in."""
        last = self._last
        if (
            last is None
            or part.text is None
            or last.WhichOneof("kind") != "text"
            or last.HasField("extra_json")
            or last.HasField("thought_signature")
        ):
            return False
        if wire.is_plain_text(part):
            self._pieces.append(part.text)
            return True
        signature = standard_base64(part.thought_signature or "")
        if not signature or not _is_mere_signature(part) or unseal(signature) is not None:
            return False
        last.thought_signature = signature
        return True

    def _part(self, part: wire.Part, message: content_pb2.Message, path: str) -> None:
        if wire.is_plain_text(part):
            self._add(message, path).text = part.text or ""
            return
        if part.thought_signature:
            sealed = unseal(standard_base64(part.thought_signature))
            if sealed is not None:
                # Another vendor's proof, moved here by the client.
                self._add(message, path).reasoning.CopyFrom(sealed)
                part.thought_signature = None
        out = self._add(message, path)
        kinds = _kinds(part)
        blob = part.inline_data or part.file_data
        if len(kinds) > 1:
            raise InvalidRequest.of(
                path, f"is {' and '.join(kinds)} at once; make one part of each"
            )
        if part.text is not None or (not kinds and part.thought_signature):
            out.text = part.text or ""
        elif part.thought and blob is not None:
            # An image on the way to the answer.
            self._vendor_part(part, {kinds[0]: members_of(blob)}, out, path)
            return
        elif part.inline_data is not None:
            inline(part.inline_data, out, f"{path}.inlineData")
        elif part.file_data is not None:
            file(part.file_data, out, f"{path}.fileData")
        elif part.function_call is not None:
            self._call(part.function_call, out, path)
        elif part.function_response is not None:
            raise InvalidRequest.of(
                path, "a functionResponse cannot stand here; it goes into a content of role user"
            )
        else:
            self._vendor_part(part, {}, out, path)
            return
        if part.thought_signature:
            out.thought_signature = standard_base64(part.thought_signature)
        self._part_extras(part, out)

    def _vendor_part(
        self, part: wire.Part, members: dict[str, Any], out: content_pb2.Part, path: str
    ) -> None:
        """A kind that is Gemini's alone, or newer than this code: as it is."""
        if part.thought is not None:
            members["thought"] = part.thought
        take(part, (*wire.VENDOR_KINDS, *wire.BESIDES), part.extra, members)
        if part.thought_signature:
            members["thoughtSignature"] = part.thought_signature
        if not members:
            raise InvalidRequest.of(
                path, "has no kind; set one of text, inlineData, fileData, functionCall, ..."
            )
        out.vendor_part.dialect = DIALECT
        out.vendor_part.json = json_text(members) or ""

    def _call(self, call: wire.FunctionCall, out: content_pb2.Part, path: str) -> None:
        if not call.name:
            raise InvalidRequest.of(f"{path}.functionCall.name", "is required")
        tool_call = out.tool_call
        tool_call.id = call.id or _made_up_id(path)
        tool_call.name = call.name
        tool_call.arguments_json = compact_object(call.args, f"{path}.functionCall.args") or "{}"
        self._calls.open(call.name, tool_call.id)
        if call.extra:
            self._nested_extras(out, "functionCall", call.extra)

    def _result(self, part: wire.Part, message: content_pb2.Message, path: str) -> None:
        given = part.function_response
        kinds = _kinds(part)
        if given is None or len(kinds) > 1:
            raise InvalidRequest.of(
                path, f"is {' and '.join(kinds)} at once; make one part of each"
            )
        where = f"{path}.functionResponse"
        if not given.name and not given.id:
            raise InvalidRequest.of(f"{where}.name", "is required")
        out = self._add(message, path)
        result = out.tool_result
        result.tool_call_id = self._calls.answered(given.name or "", given.id) or _made_up_id(path)
        if given.name:
            result.name = given.name
        text = compact_object(given.response, f"{where}.response")
        if text is not None:
            result.parts.add().text = text
            if text.startswith('{"error":') and len(raw_object(text)) == 1:
                result.is_error = True
        for place, media in enumerate(as_list(given.parts)):
            self._result_media(media, result.parts.add(), f"{where}.parts[{place}]")
        if part.thought_signature:
            out.thought_signature = standard_base64(part.thought_signature)
        extra: dict[str, Any] = {}
        take(given, ("will_continue", "scheduling"), given.extra, extra)
        if extra:
            self._nested_extras(out, "functionResponse", extra)
        self._part_extras(part, out)

    def _result_media(
        self, media: wire.FunctionResponsePart, out: content_pb2.Part, path: str
    ) -> None:
        if media.inline_data is not None:
            inline(media.inline_data, out, f"{path}.inlineData")
        elif media.file_data is not None:
            file(media.file_data, out, f"{path}.fileData")
        else:
            raise InvalidRequest.of(path, "must have inlineData or fileData")
        if media.extra:
            out.extra_json = json_text(media.extra) or ""
            self.own_members = True

    def _part_extras(self, part: wire.Part, out: content_pb2.Part) -> None:
        """What stands beside the kind."""
        members: dict[str, Any] = {}
        if part.thought and not out.HasField("reasoning"):
            members["thought"] = True
        take(part, wire.BESIDES, part.extra, members)
        for holder in ("inline_data", "file_data"):
            blob = getattr(part, holder)
            if blob is not None and blob.extra:
                members[camel(holder)] = blob.extra
        if members:
            if out.HasField("extra_json"):
                known: dict[str, Any] = dict(raw_object(out.extra_json))
                members = known | members
            out.extra_json = json_text(members) or ""
            self.own_members = True

    def _nested_extras(self, out: content_pb2.Part, name: str, extra: dict[str, Any]) -> None:
        members: dict[str, Any] = {name: extra}
        out.extra_json = json_text(members) or ""
        self.own_members = True


class _OpenCalls:
    """The calls of a turn that have no outcome yet, by the names of their functions."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[str]] = {}
        self._done: set[str] = set()
        self._latest: dict[str, str] = {}

    def open(self, name: str, call_id: str) -> None:
        """The model called the function."""
        self._waiting.setdefault(name, deque()).append(call_id)

    def answered(self, name: str, given: str | None) -> str | None:
        """The id of the call that an outcome is of: the one given, or the first that waits.

        Behind the last one, a further outcome of the same call.
        """
        if not given:
            waiting = self._waiting.get(name) or deque()
            while waiting and waiting[0] in self._done:
                waiting.popleft()
            given = waiting[0] if waiting else self._latest.get(name)
        if given:
            self._done.add(given)
            self._latest[name] = given
        return given


def _made_up_id(path: str) -> str:
    """The same for every turn of a conversation: the place of the call, as call_1_0."""
    return "call_" + path.removeprefix("contents[").replace("].parts[", "_").rstrip("]")


def _is_text(part: wire.Part) -> bool:
    """Whether a thought is text: there are thought images, too."""
    return part.text is not None or not _kinds(part)


def _is_mere_signature(part: wire.Part) -> bool:
    """Whether the part is an empty text with a signature."""
    members: dict[str, Any] = {}
    take(part, wire.BESIDES, part.extra, members)
    return part.text == "" and _kinds(part) == ["text"] and not members


def _kinds(part: wire.Part) -> list[str]:
    found = [
        name
        for name in ("text", "inline_data", "file_data", "function_call", "function_response")
        if getattr(part, name) is not None
    ]
    found += [name for name in wire.VENDOR_KINDS if present(getattr(part, name))]
    return [camel(name) for name in found]


def _proof(signature: str) -> content_pb2.Reasoning:
    """Whose proof it is: a vendor's that was sealed, or else Gemini's."""
    text = standard_base64(signature)
    sealed = unseal(text)
    if sealed is None:
        return content_pb2.Reasoning(signature=text, dialect=DIALECT)
    return sealed


def _is_proven(reasoning: content_pb2.Reasoning) -> bool:
    return bool(reasoning.signature or reasoning.encrypted or reasoning.id)
