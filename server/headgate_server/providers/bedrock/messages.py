"""Messages and parts to Converse's messages, system blocks and content blocks. Pure.

Source: Message and ContentBlock of
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Types_Amazon_Bedrock_Runtime.html. Converse
knows users and assistants who take turns: results of tools are the user's, instructions stand apart, and
messages of one role that follow each other become one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate.wire import MalformedJson, raw_object
from headgate_server.providers.bedrock.media import MediaEncoder
from headgate_server.providers.bedrock.models import caches, is_claude, proof_dialect
from headgate_server.providers.citations import own_citations
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.history import (
    INSTRUCTIONS,
    RESULTS,
    OpenCalls,
    arguments_object,
    said,
)

Blocks = list[Json | msgspec.Raw]


def encode_messages(encoding: Encoding, messages: Sequence[content_pb2.Message]) -> None:
    """Puts the conversation into the body.

    Raises:
        InvalidRequest: content that Converse cannot express.
    """
    conversation = Conversation(encoding)
    for index, message in enumerate(messages):
        conversation.add(message, f"messages[{index}]")
    if conversation.system:
        encoding.body["system"] = conversation.system
    encoding.body["messages"] = conversation.turns


class Conversation:
    """The translation of one conversation under way.

    Attributes:
        system: the instructions.
        turns: the messages of users and assistants.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.system: Blocks = []
        self.turns: list[Json] = []
        self._encoding = encoding
        self._media = MediaEncoder()
        self._caches = caches(encoding.target)
        self._open = OpenCalls()

    def add(self, message: content_pb2.Message, path: str) -> None:
        """Adds the next message."""
        encoding = self._encoding
        if message.HasField("name"):
            encoding.warn(f"{path}.name", "left out: the bedrock API knows no names of speakers")
        if message.role in INSTRUCTIONS:
            self._instructions(message, path)
            return
        blocks: Blocks = []
        assistant = message.role == content_pb2.ROLE_ASSISTANT
        for place, part in enumerate(message.parts):
            where = f"{path}.parts[{place}]"
            if _says_nothing(part):
                continue
            if message.role in RESULTS:
                self._result(part, where, blocks)
            elif assistant:
                self._said(part, where, blocks)
            else:
                blocks.append(self._content(part, where))
            self._cache_point(part, blocks)
        role = "assistant" if assistant else "user"
        last = self.turns[-1] if self.turns else None
        follows = last is not None and last["role"] == role
        if not blocks and (assistant or follows) and not message.extra_json:
            return  # a turn in which nothing was said
        turn: Json = {"role": role, "content": blocks or [{"text": ""}]}
        encoding.part_extras(turn, message.extra_json, path)
        if last is not None and follows:
            last["content"] += turn.pop("content")
            for name, value in turn.items():
                last.setdefault(name, value)
        else:
            self.turns.append(turn)

    def _instructions(self, message: content_pb2.Message, path: str) -> None:
        if self.turns:
            self._encoding.warn(
                path,
                "moved to the front: the bedrock API takes instructions apart from the messages",
            )
        for place, part in enumerate(message.parts):
            where = f"{path}.parts[{place}]"
            kind = part.WhichOneof("kind")
            if kind == "vendor_part":
                self.system.append(self._encoding.own_block(part.vendor_part, where))
            elif kind != "text":
                raise InvalidRequest.of(
                    where, f"the bedrock API takes no {kind} in instructions; send text"
                )
            elif part.text:
                block: Json = {"text": part.text}
                self._encoding.part_extras(block, part.extra_json, where)
                self.system.append(block)
            self._cache_point(part, self.system)
        if message.extra_json:
            self._encoding.leave_out(
                f"{path}.extra_json", "the bedrock API has no members for a message of instructions"
            )

    def _cache_point(self, part: content_pb2.Part, blocks: Blocks) -> None:
        """Adds a cache point behind a part that asks for one, or whose inner parts do."""
        if not (self._caches and blocks):
            return
        control = next(
            (
                found.cache_control
                for found in (part, *part.tool_result.parts)
                if found.HasField("cache_control")
            ),
            None,
        )
        if control is not None:
            blocks.append(cache_point(control))

    # Parts.

    def _said(self, part: content_pb2.Part, path: str, blocks: Blocks) -> None:
        """Adds a part of an assistant message."""
        kind = part.WhichOneof("kind")
        if kind == "tool_call":
            blocks.append(self._call(part, path))
        elif kind == "reasoning":
            self._thought(part, path, blocks)
        elif kind == "refusal":
            blocks.append({"text": part.refusal})
        elif kind == "text" and (cited := own_citations(part, _is_citation)):
            block: Json = {"content": [{"text": part.text}], "citations": cited}
            self._encoding.part_extras(block, part.extra_json, path)
            blocks.append({"citationsContent": block})
        else:
            blocks.append(self._content(part, path))

    def _content(self, part: content_pb2.Part, path: str) -> Json | msgspec.Raw:
        """Text, media, or a block of Converse's own."""
        kind = part.WhichOneof("kind")
        block: Json
        if kind == "text":
            block = {"text": part.text}
        elif kind == "image":
            block = self._media.block(kind, part.image, f"{path}.image")
        elif kind == "audio":
            block = self._media.block(kind, part.audio, f"{path}.audio")
        elif kind == "file":
            block = self._media.block(kind, part.file, f"{path}.file")
        elif kind == "vendor_part":
            return self._encoding.own_block(part.vendor_part, path)
        else:
            raise InvalidRequest.of(path, f"a {kind or 'part without a kind'} cannot stand here")
        self._encoding.part_extras(block, part.extra_json, path)
        return block

    def _call(self, part: content_pb2.Part, path: str) -> Json:
        call = part.tool_call
        if call.custom:
            raise InvalidRequest.of(
                f"{path}.tool_call.custom", "the bedrock API takes calls with JSON arguments only"
            )
        call_id = self._open.id_of(call, path)
        why = "must be a JSON object for the bedrock API"
        arguments = arguments_object(call, f"{path}.tool_call", why)
        use: Json = {"toolUseId": call_id, "name": call.name, "input": arguments}
        block: Json = {"toolUse": use}
        self._encoding.part_extras(use, part.extra_json, path)
        return block

    def _result(self, part: content_pb2.Part, path: str, blocks: Blocks) -> None:
        """Adds the result of a tool call."""
        result = part.tool_result
        call_id = self._open.answered_by(result, path)
        inside = f"{path}.tool_result.parts"
        inner = [self._content(each, where) for where, each in said(result.parts, inside)]
        use: Json = {"toolUseId": call_id, "content": inner}
        if result.is_error:
            use["status"] = "error"
        self._encoding.part_extras(use, part.extra_json, path)
        blocks.append({"toolResult": use})

    def _thought(self, part: content_pb2.Part, path: str, blocks: Blocks) -> None:
        """Adds earlier thinking, if it is proven: unsigned thinking is refused by most models."""
        thought = part.reasoning
        target = self._encoding.target
        own = thought.dialect in ("", proof_dialect(target))
        before = len(blocks)
        if own and thought.signature:
            block: Json = {"reasoningText": {"text": thought.text, "signature": thought.signature}}
            self._encoding.part_extras(block, part.extra_json, path)
            blocks.append({"reasoningContent": block})
        if own and _is_base64(thought.encrypted):
            blocks.append({"reasoningContent": {"redactedContent": thought.encrypted}})
        if len(blocks) == before:
            whose = "Claude" if is_claude(target) else "the model"
            self._encoding.warn(
                "messages.reasoning", f"left out: {whose} takes only thinking of its own back"
            )


def _is_base64(text: str) -> bool:
    """Whether there is something that Converse can take for bytes."""
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def cache_point(control: content_pb2.CacheControl) -> Json:
    """A breakpoint up to which the prompt may be cached."""
    return {"cachePoint": {"type": "default", **({"ttl": control.ttl} if control.ttl else {})}}


def has_tool_blocks(turns: Iterable[Json]) -> bool:
    """Whether the conversation has calls of tools, or results."""
    return any(
        isinstance(block, dict) and ("toolUse" in block or "toolResult" in block)
        for turn in turns
        for block in turn["content"]
    )


def tool_names(turns: Iterable[Json]) -> list[str]:
    """The names of the tools that the conversation has called."""
    names = (
        block["toolUse"]["name"]
        for turn in turns
        for block in turn["content"]
        if isinstance(block, dict) and "toolUse" in block
    )
    return list(dict.fromkeys(names))


def _says_nothing(part: content_pb2.Part) -> bool:
    """Whether a part is an empty text, which Converse refuses."""
    return part.WhichOneof("kind") in ("text", "refusal") and not (part.text or part.refusal)


def _is_citation(text: str) -> bool:
    try:
        members = raw_object(text).keys()
    except MalformedJson:
        return False
    return bool(members) and members <= {"title", "source", "sourceContent", "location"}
