"""The parts of an answer arranged as output items. Pure.

Whole parts or parts that still grow: the items are the same. Text that follows text is one text, because
clients take an item's last text for the answer; the texts of this door's own dialect stay apart.
"""

from __future__ import annotations

import msgspec

from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, raw_object
from headgate_facade.responses.naming import DIALECT, item_id, proof_of_call
from headgate_facade.responses.tools_in import Original

# Members of a text's or a refusal's `extra_json` that belong to the item around it.
OF_MESSAGE = ("id", "phase", "status")
_PREFIXES = {
    "message": "msg", "reasoning": "rs", "proof": "rs", "function_call": "fc",
    "custom_tool_call": "ctc", "image_generation_call": "ig",
}  # fmt: skip


class Growing:
    """A part, and what has been appended to it: in pieces, because appending to a field copies it."""

    __slots__ = ("data", "finished", "part", "pieces", "told")

    def __init__(self, part: content_pb2.Part, *, finished: bool) -> None:
        self.part = part
        self.pieces: list[str] = []
        self.data: list[bytes] = []
        self.finished = finished
        self.told = 0  # annotations that a stream has told

    def text(self, begun: str) -> str:
        """The whole text, which began with `begun`."""
        return begun + "".join(self.pieces)


class Content:
    """A text or a refusal in a message: parts that follow each other."""

    __slots__ = ("before", "kind", "parts")

    def __init__(self, kind: str, before: int) -> None:
        self.kind = kind
        self.before = before  # characters of the texts before it, from which citations count
        self.parts: list[Growing] = []

    def text(self) -> str:
        """What it says."""
        return "".join(each.text(getattr(each.part, self.kind)) for each in self.parts)


class Item:
    """An output item."""

    __slots__ = ("contents", "id", "index", "kind", "original", "part")

    def __init__(self, kind: str, index: int, part: Growing, original: Original | None) -> None:
        self.kind = kind
        self.index = index
        self.id = ""
        self.part = part
        self.original = original
        self.contents: list[Content] = []

    @property
    def finished(self) -> bool:
        """Whether all of its parts are whole."""
        if self.kind != "message":
            return self.part.finished
        return all(part.finished for content in self.contents for part in content.parts)


class Output:
    """The items of one answer.

    Args:
        response: the response's id.
        dialect: that of the provider that answers.
        originals: what the caller calls its tools.

    Attributes:
        items: in their order.
        tokens: log probabilities of all texts. Those of a refusal have no place here.
        dialect: that of the provider that answers.
        own: whether that is this door's.
    """

    def __init__(self, response: str, dialect: str, originals: dict[str, Original]) -> None:
        self.items: list[Item] = []
        self.tokens: list[chat_pb2.TokenLogprob] = []
        self._response = response
        self.dialect = dialect
        self.own = dialect == DIALECT
        self._originals = originals
        self._calls: list[Growing] = []

    def add(self, part: Growing) -> tuple[Item, bool] | None:
        """Takes the next part.

        Returns:
            The item that it went into, and whether that is new; None if this format has no place for it.
        """
        kind = part.part.WhichOneof("kind")
        if kind in ("text", "refusal"):
            return self._add_said(kind, part)
        if kind == "tool_call":
            self._calls.append(part)
            call = part.part.tool_call
            original = None if call.custom else self._originals.get(call.name)
            custom = call.custom or (original is not None and original.custom)
            return self._new(
                "custom_tool_call" if custom else "function_call", part, original
            ), True
        if kind == "reasoning":
            item = self._new("reasoning", part)
            if self.own and part.part.reasoning.id:
                item.id = part.part.reasoning.id
            return item, True
        if kind == "image":
            item = self._new("image_generation_call", part)
            if part.part.image.id:
                item.id = part.part.image.id
            return item, True
        if kind == "vendor_part" and part.part.vendor_part.dialect == DIALECT:
            return self._new("vendor", part), True
        return None

    def _new(self, kind: str, part: Growing, original: Original | None = None) -> Item:
        item = Item(kind, len(self.items), part, original)
        item.id = item_id(_PREFIXES.get(kind, "item"), self._response, item.index)
        self.items.append(item)
        return item

    def _add_said(self, kind: str, part: Growing) -> tuple[Item, bool]:
        own_id = _text(self.members(part).get("id"))
        item = self.items[-1] if self.items and self.items[-1].kind == "message" else None
        if item is not None and own_id and own_id != item.id:
            item = None
        new = item is None
        if item is None:
            item = self._new("message", part)
            item.id = own_id or item.id
        last = item.contents[-1] if item.contents else None
        if last is None or last.kind != kind or self.own:
            last = Content(kind, self._characters())
            item.contents.append(last)
        last.parts.append(part)
        return item, new

    def _characters(self) -> int:
        return sum(
            len(content.text())
            for item in self.items
            for content in item.contents
            if content.kind == "text"
        )

    def close(self) -> None:
        """Takes that there are no more parts: what calls need besides gets items of its own."""
        for call in self._calls:
            signature = call.part.thought_signature
            if signature:
                proof = proof_of_call(call.part.tool_call.id, signature)
                part = content_pb2.Part(reasoning=content_pb2.Reasoning(encrypted=proof))
                self._new("proof", Growing(part, finished=True))

    def refused(self) -> bool:
        """Whether the model said why it will not answer."""
        return any(content.kind == "refusal" for item in self.items for content in item.contents)

    def members(self, part: Growing) -> dict[str, msgspec.Raw]:
        """Members of the vendor's own, if that is the one whose format this is."""
        if not (self.own and part.part.HasField("extra_json")):
            return {}
        return object_of(part.part.extra_json)


def object_of(text: str) -> dict[str, msgspec.Raw]:
    """A JSON object; an empty one for anything else."""
    try:
        return raw_object(text)
    except MalformedJson:
        return {}


def _text(raw: msgspec.Raw | None) -> str:
    try:
        return msgspec.json.decode(raw, type=str) if raw is not None else ""
    except msgspec.DecodeError:
        return ""
