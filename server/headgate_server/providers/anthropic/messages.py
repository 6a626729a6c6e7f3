"""The conversation to `system` and `messages`. Pure; blocks are made in `blocks`.

The API wants the turns of user and assistant to alternate, all results of one turn's calls together and
in front of whatever else the user says, and system messages in front of the conversation. Newer models
take one in its middle, too, right behind a user's turn. Sources:
https://platform.claude.com/docs/en/build-with-claude/working-with-messages,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls,
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headgate.errors import InvalidRequest
from headgate.v1 import content_pb2
from headgate_server.providers.anthropic.blocks import (
    Blocks,
    content_of,
    input_blocks,
    refusal_block,
    system_blocks,
    text_block,
    thinking_block,
    tool_result_block,
    tool_use_block,
    vendor_block,
)
from headgate_server.providers.encoding import Encoding, Json
from headgate_server.providers.history import INSTRUCTIONS, RESULTS, OpenCalls


def encode_messages(encoding: Encoding, messages: Iterable[content_pb2.Message]) -> None:
    """Puts the conversation into the body. Raises `InvalidRequest` for what cannot be expressed."""
    conversation = _Conversation(encoding)
    for index, message in enumerate(messages):
        conversation.add(message, f"messages[{index}]")
    conversation.finish()


class _Conversation:
    """The turns so far."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._takes_system_turns = encoding.target.family.system_turns
        self._system: Blocks = []
        self._turns: list[Json] = []
        self._waiting: list[_SystemMessage] = []  # for the end of the user's turn
        self._open = OpenCalls()

    def add(self, message: content_pb2.Message, path: str) -> None:
        role = message.role
        if message.HasField("name"):
            self._encoding.warn(f"{path}.name", "left out: the API knows no names of speakers")
        if role in INSTRUCTIONS:
            self._system_message(message, path)
        elif role == content_pb2.ROLE_ASSISTANT:
            blocks = self._assistant(message, path)
            if blocks:
                self._settle_system_messages()
                self._turn("assistant", blocks, message, path)
        else:
            if role in RESULTS:
                blocks = self._results(message, path)
            else:
                blocks = input_blocks(self._encoding, message.parts, f"{path}.parts")
            self._turn("user", blocks, message, path)
            for waiting in self._waiting:
                waiting.moved = True

    def finish(self) -> None:
        """Puts it all into the body."""
        self._settle_system_messages()
        body = self._encoding.body
        if self._system:
            body["system"] = content_of(self._system)
        for turn in self._turns:
            turn["content"] = content_of(turn["content"])
        body["messages"] = self._turns

    def _turn(self, role: str, blocks: Blocks, message: content_pb2.Message, path: str) -> None:
        """Adds a turn, or goes on with the last one."""
        last = self._turns[-1] if self._turns else None
        if last is None or last["role"] != role:
            last = {"role": role, "content": blocks}
            self._turns.append(last)
        else:
            present: Blocks = last["content"]
            place = _results_end(present) if _results_end(blocks) else len(present)
            present[place:place] = blocks
        self._encoding.part_extras(last, message.extra_json, path)

    # System messages.

    def _system_message(self, message: content_pb2.Message, path: str) -> None:
        blocks = system_blocks(self._encoding, message.parts, f"{path}.parts")
        if not self._turns:
            self._hoist(_SystemMessage(blocks, message.extra_json, path))
        elif self._takes_system_turns:
            self._waiting.append(_SystemMessage(blocks, message.extra_json, path))
        else:
            self._encoding.warn(
                path,
                "moved to the front: model "
                f"{self._encoding.target.model!r} takes no system message within a conversation",
            )
            self._hoist(_SystemMessage(blocks, message.extra_json, path))

    def _settle_system_messages(self) -> None:
        """The user's turn is over: the system messages that came in it or behind it stand here."""
        for waiting in self._waiting:
            if self._turns[-1]["role"] == "assistant":
                self._encoding.warn(
                    waiting.path, "moved to the front: the API takes it only behind a user's turn"
                )
                self._hoist(waiting)
                continue
            if waiting.moved:
                self._encoding.warn(
                    waiting.path, "moved behind the user's turn: the API takes it only there"
                )
            last = self._turns[-1]
            if last["role"] == "system":
                last["content"].extend(waiting.blocks)
            else:
                last = {"role": "system", "content": waiting.blocks}
                self._turns.append(last)
            self._encoding.part_extras(last, waiting.extra_json, waiting.path)
        self._waiting.clear()

    def _hoist(self, message: _SystemMessage) -> None:
        self._system.extend(message.blocks)
        if message.extra_json:
            self._encoding.leave_out(
                f"{message.path}.extra_json", "the API's system prompt has no members"
            )

    # Turns.

    def _assistant(self, message: content_pb2.Message, path: str) -> Blocks:
        blocks: Blocks = []
        for place, part in enumerate(message.parts):
            here = f"{path}.parts[{place}]"
            kind = part.WhichOneof("kind")
            block: Json | msgspec.Raw | None
            if kind == "text":
                block = text_block(self._encoding, part, here)
            elif kind == "refusal":
                block = refusal_block(self._encoding, part, here)
            elif kind == "tool_call":
                call_id = self._open.id_of(part.tool_call, here)
                block = tool_use_block(self._encoding, part, call_id, here)
            elif kind == "reasoning":
                block = thinking_block(self._encoding, part, here)
                if block is None:
                    self._encoding.warn(
                        f"{path}.reasoning",
                        "left out: the API takes back only thinking that it has signed",
                    )
            elif kind == "vendor_part":
                block = vendor_block(self._encoding, part, here)
            else:
                raise InvalidRequest.of(
                    f"{here}.{kind}" if kind else here,
                    f"provider {self._encoding.target.provider!r} takes no {kind} in assistant "
                    "messages; leave it out, or put it into words",
                )
            if block is not None:
                blocks.append(block)
        return blocks

    def _results(self, message: content_pb2.Message, path: str) -> Blocks:
        blocks: Blocks = []
        for place, part in enumerate(message.parts):
            here = f"{path}.parts[{place}]"
            call_id = self._open.answered_by(part.tool_result, here)
            blocks.append(tool_result_block(self._encoding, part, call_id, here))
        return blocks


class _SystemMessage:
    """A system message on its way to its place."""

    __slots__ = ("blocks", "extra_json", "moved", "path")

    def __init__(self, blocks: Blocks, extra_json: str, path: str) -> None:
        self.blocks = blocks
        self.extra_json = extra_json
        self.path = path
        self.moved = False


def _results_end(blocks: Blocks) -> int:
    """How many tool results the blocks begin with."""
    for place, block in enumerate(blocks):
        if not (isinstance(block, dict) and block["type"] == "tool_result"):
            return place
    return len(blocks)
