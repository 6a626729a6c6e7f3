"""Input items to messages. Pure.

Items are finer than messages: what the model said, thought and called in one turn are several items, and
become the parts of one message. What the other vendors have no form for (calls of custom tools, names in
namespaces) gets the form of `tools_in`; the input as it came is kept beside it for providers of this
door's own dialect.

Source: the `input` member of https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from headgate.errors import InvalidRequest
from headgate.reasoning import unseal
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, raw_array, raw_text
from headgate_facade.responses import wire
from headgate_facade.responses.content_in import fill_part, thought_signature
from headgate_facade.responses.naming import DIALECT, call_of_proof, is_made_up
from headgate_facade.responses.refusals import misshapen
from headgate_facade.responses.tools_in import ToolTable, extra_text, portable_name

_ROLES = {
    "user": content_pb2.ROLE_USER,
    "assistant": content_pb2.ROLE_ASSISTANT,
    "system": content_pb2.ROLE_SYSTEM,
    "developer": content_pb2.ROLE_DEVELOPER,
}
# What the model did, beside calls (`*_call`); whatever else only this API has, somebody told the model.
_OF_THE_MODEL = {"compaction", "mcp_approval_request", "mcp_list_tools", "program"}
KEPT_NOTHING = (
    "this gateway keeps no answers, so there is nothing to refer to; send the items themselves in"
    " `input` (SDKs that refer to items of their own accord do so with `store: false`)"
)


class InputReader:
    """Reads the items of one request.

    Attributes:
        paths: for each message where it came from, and where its parts came from.
        changed: whether the messages say less than the items.
    """

    def __init__(self, request: chat_pb2.ChatRequest, tools: ToolTable) -> None:
        self.paths: list[tuple[str, list[str]]] = []
        self.changed = False
        self._request = request
        self._tools = tools
        self._items: list[msgspec.Raw] = []
        self._turn: content_pb2.Message | None = None  # of the model, as long as its items come
        self._calls: dict[str, content_pb2.Part] = {}
        self._proofs: dict[str, str] = {}  # thought signatures, by the id of their call
        self._here = ""

    def instruct(self, text: str) -> None:
        """Takes the instructions, which stand before everything."""
        message = self._message(content_pb2.ROLE_SYSTEM, "instructions")
        self._part(message, "instructions").text = text

    def read(self, raw: msgspec.Raw) -> None:
        """Takes the input. Raises `InvalidRequest`."""
        text = bytes(raw)
        if text[:1] == b'"':
            message = self._message(content_pb2.ROLE_USER, "input")
            self._part(message, "input").text = wire.TEXT.decode(text)
        elif text[:1] == b"[":
            for index, item in enumerate(raw_array(raw)):
                self._here = f"input[{index}]"
                self._item(item)
        else:
            raise InvalidRequest.of("input", "must be a text or a list of items")

    def verbatim(self) -> msgspec.Raw:
        """The items as they came, but for the thinking of other vendors."""
        return msgspec.Raw(msgspec.json.encode(self._items))

    def _item(self, raw: msgspec.Raw) -> None:
        try:
            kind = wire.KIND.decode(bytes(raw)).type
        except MalformedJson as error:
            raise InvalidRequest.of(self._here, "must be an object") from error
        if kind is None and b'"role"' not in bytes(raw):
            kind = "item_reference" if b'"id"' in bytes(raw) else ""
        kind = "message" if kind is None else kind
        read = _READERS.get(kind)
        try:
            if read is None:
                self._vendor_item(kind, raw)
            else:
                read(self, raw)
        except MalformedJson as error:
            raise misshapen(error, self._here) from error

    # Messages and parts. They are filled in place: one built apart is copied when it is put in.

    def _message(self, role: content_pb2.Role.ValueType, path: str) -> content_pb2.Message:
        self._turn = None
        message = self._request.messages.add()
        message.role = role
        self.paths.append((path, []))
        return message

    def _part(self, message: content_pb2.Message, path: str) -> content_pb2.Part:
        self.paths[-1][1].append(path)
        return message.parts.add()

    def _of_the_model(self) -> content_pb2.Message:
        if self._turn is None:
            self._turn = self._message(content_pb2.ROLE_ASSISTANT, self._here)
        return self._turn

    def _on_message(self, raw: msgspec.Raw) -> None:
        item = wire.MESSAGE.decode(bytes(raw))
        self._items.append(raw)
        path = f"{self._here}.content"
        if item.role == "assistant":
            self._said(item, path)
            return
        message = self._message(_ROLES[item.role], self._here)
        if isinstance(item.content, str):
            self._part(message, path).text = item.content
        for index, content in enumerate(item.content if isinstance(item.content, list) else ()):
            inner = f"{path}[{index}]"
            self._fill(self._part(message, inner), content, inner)
        extra = extra_text(item.extra)
        if extra is not None:
            message.extra_json = extra

    def _said(self, item: wire.Message, path: str) -> None:
        """A message of the model; what belongs to the item is in each of its parts."""
        message = self._of_the_model()
        head = dict(item.extra or {})
        for name in ("id", "phase", "status"):
            value = getattr(item, name)
            if value is not None and not (
                is_made_up(value) if name == "id" else name == "status" and value != "incomplete"
            ):
                head[name] = msgspec.Raw(msgspec.json.encode(value))
        contents: Iterable[wire.Content] = (
            [wire.OutputText(item.content)] if isinstance(item.content, str) else item.content
        )
        for index, content in enumerate(contents):
            inner = path if isinstance(item.content, str) else f"{path}[{index}]"
            part = self._part(message, inner)
            self._fill(part, content, inner)
            extra = extra_text({**(content.extra or {}), **head})
            if extra is not None:
                part.extra_json = extra

    def _fill(self, part: content_pb2.Part, content: wire.Content, path: str) -> None:
        fill_part(part, content, path)
        if (
            isinstance(content, wire.InputText | wire.InputImage | wire.InputFile)
            and content.prompt_cache_breakpoint is not None
        ):
            # Without its lifetime, because those of other vendors are others.
            self.changed = True
            part.cache_control.SetInParent()

    def _on_reasoning(self, raw: msgspec.Raw) -> None:
        item = wire.REASONING.decode(bytes(raw))
        proof = unseal(item.encrypted_content) if item.encrypted_content else None
        if proof is not None and (call_id := call_of_proof(proof)) is not None:
            self._proofs[call_id] = proof.signature
            if call_id in self._calls:
                self._calls[call_id].thought_signature = proof.signature
            return
        part = self._part(self._of_the_model(), self._here)
        reasoning = part.reasoning
        reasoning.SetInParent()
        if proof is not None:
            if is_made_up(proof.id):
                proof.Clear()  # a stand-in for a proof
            reasoning.CopyFrom(proof)
        elif item.encrypted_content or (item.id and not is_made_up(item.id)):
            self._items.append(raw)
            reasoning.dialect = DIALECT
            if item.encrypted_content:
                reasoning.encrypted = item.encrypted_content
            if item.id and not is_made_up(item.id):
                reasoning.id = item.id
        pieces = [*(item.content or ()), *(item.summary or ())]
        reasoning.text = "\n\n".join(piece.text for piece in pieces if piece.text)
        extra = extra_text(item.extra)
        if extra is not None:
            part.extra_json = extra

    def _on_function_call(self, raw: msgspec.Raw) -> None:
        item = wire.FUNCTION_CALL.decode(bytes(raw))
        self._call(raw, item, item.arguments)

    def _on_custom_call(self, raw: msgspec.Raw) -> None:
        item = wire.CUSTOM_CALL.decode(bytes(raw))
        self.changed = True
        self._call(raw, item, msgspec.json.encode({"input": item.input}).decode())

    def _call(
        self, raw: msgspec.Raw, item: wire.FunctionCall | wire.CustomCall, arguments: str
    ) -> None:
        self._items.append(raw)
        part = self._part(self._of_the_model(), self._here)
        call = part.tool_call
        call.id, call.arguments_json = item.call_id, arguments
        call.name = portable_name(item.name, item.namespace)
        self.changed = self.changed or bool(item.namespace)
        self._calls[item.call_id] = part
        extra = dict(item.extra or {})
        content = raw_text(item.extra_content)
        if content is not None:
            signature, rest = thought_signature(content)
            if signature:
                part.thought_signature = signature
            if rest:
                extra["extra_content"] = msgspec.Raw(rest.encode())
        if item.call_id in self._proofs:
            part.thought_signature = self._proofs[item.call_id]
        text = extra_text(extra)
        if text is not None:
            part.extra_json = text

    def _on_output(self, raw: msgspec.Raw) -> None:
        item = wire.CALL_OUTPUT.decode(bytes(raw))
        self._items.append(raw)
        self.changed = self.changed or item.type == "custom_tool_call_output"
        message = self._message(content_pb2.ROLE_TOOL, self._here)
        part = self._part(message, self._here)
        result = part.tool_result
        result.tool_call_id = item.call_id
        if item.name:
            result.name = portable_name(item.name, item.namespace)
        if isinstance(item.output, str):
            result.parts.add().text = item.output
        else:
            for index, content in enumerate(item.output):
                self._fill(result.parts.add(), content, f"{self._here}.output[{index}]")
        extra = extra_text(item.extra)
        if extra is not None:
            part.extra_json = extra

    def _on_tools(self, raw: msgspec.Raw) -> None:
        item = wire.ADDITIONAL_TOOLS.decode(bytes(raw))
        self._items.append(raw)
        self.changed = True
        self._tools.read(item.tools, f"{self._here}.tools")

    def _on_reference(self, raw: msgspec.Raw) -> None:
        raise InvalidRequest.of(self._here, f"is an item_reference: {KEPT_NOTHING}")

    def _vendor_item(self, kind: str, raw: msgspec.Raw) -> None:
        """An item that only this API has."""
        if not kind:
            raise InvalidRequest.of(f"{self._here}.type", "is required")
        self._items.append(raw)
        if kind.endswith("_call") or kind in _OF_THE_MODEL:
            message = self._of_the_model()
        else:
            message = self._message(content_pb2.ROLE_USER, self._here)
        part = self._part(message, self._here).vendor_part
        part.dialect, part.json = DIALECT, raw_text(raw) or ""


_READERS: dict[str, Callable[[InputReader, msgspec.Raw], None]] = {
    "message": InputReader._on_message,
    "reasoning": InputReader._on_reasoning,
    "function_call": InputReader._on_function_call,
    "function_call_output": InputReader._on_output,
    "custom_tool_call": InputReader._on_custom_call,
    "custom_tool_call_output": InputReader._on_output,
    "additional_tools": InputReader._on_tools,
    "item_reference": InputReader._on_reference,
}
