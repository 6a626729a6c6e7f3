"""Output items as JSON, as far as they are known. Pure.

Source: https://platform.openai.com/docs/api-reference/responses/object, `output`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headgate import reasoning
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import merge_into
from headgate_facade.responses.naming import DIALECT
from headgate_facade.responses.output import OF_MESSAGE, Content, Item, Output, object_of

Json = dict[str, Any]

# What a call's arguments are where the model wrote none: clients expect JSON.
_NO_ARGUMENTS = "{}"


def items_json(output: Output, status: str) -> list[Json]:
    """All items of an answer of that status. One that was cut was cut in its last item."""
    last = max((at for at, each in enumerate(output.items) if each.kind != "proof"), default=-1)
    return [
        item_json(output, each, status if at == last else "completed")
        for at, each in enumerate(output.items)
    ]


def item_json(output: Output, item: Item, status: str) -> Json:
    """One item."""
    return _TELLERS[item.kind](output, item, status)


def content_json(output: Output, content: Content) -> Json:
    """A content part of a message."""
    text = content.text()
    if content.kind == "refusal":
        body: Json = {"type": "refusal", "refusal": text}
    else:
        told = (
            annotation_json(output, each, content)
            for part in content.parts
            for each in part.part.annotations
        )
        body = {
            "type": "output_text",
            "annotations": [each for each in told if each is not None],
            "logprobs": [token_json(token) for token in _tokens_of(output, content, text)],
            "text": text,
        }
    for part in content.parts:
        if part.part.thought_signature:
            body["extra_content"] = _google(part.part)
        for name, value in output.members(part).items():
            if name not in OF_MESSAGE:
                body.setdefault(name, value)
    return body


def annotation_json(
    output: Output, annotation: content_pb2.Annotation, content: Content
) -> object | None:
    """A citation; None for a kind of another vendor's."""
    if annotation.HasField("other_json"):
        return msgspec.Raw(annotation.other_json.encode()) if output.own else None
    cited = annotation.url_citation
    return {
        "type": "url_citation",
        "start_index": max(cited.start_index - content.before, 0),
        "end_index": max(cited.end_index - content.before, 0),
        "title": cited.title,
        "url": cited.url,
    }


def token_json(token: chat_pb2.TokenLogprob) -> Json:
    """A token and how likely it was; SDKs insist on its bytes."""
    return {
        "token": token.token,
        "bytes": list(token.bytes if token.HasField("bytes") else token.token.encode()),
        "logprob": token.logprob,
        "top_logprobs": [
            {
                "token": top.token,
                "bytes": list(top.bytes if top.HasField("bytes") else top.token.encode()),
                "logprob": top.logprob,
            }
            for top in token.top
        ],
    }


def arguments_of(item: Item) -> str:
    """A call's arguments."""
    text = item.part.text(item.part.part.tool_call.arguments_json)
    return text if text or not item.part.finished else _NO_ARGUMENTS


def input_of(item: Item) -> str:
    """A custom tool's input, taken out of the arguments if the provider knows it as a function."""
    text = item.part.text(item.part.part.tool_call.arguments_json)
    if item.part.part.tool_call.custom:
        return text
    if not item.part.finished:
        return ""
    try:
        found = msgspec.json.decode(text or _NO_ARGUMENTS)
    except (msgspec.DecodeError, RecursionError):
        return text  # the model did not mind the schema, but wrote what the tool takes
    given = found.get("input") if isinstance(found, dict) else None
    return given if isinstance(given, str) else text


# Kinds of items.


def _message(output: Output, item: Item, status: str) -> Json:
    body: Json = {
        "id": item.id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [content_json(output, content) for content in item.contents],
    }
    for content in item.contents:
        for part in content.parts:
            members = output.members(part)
            body.update((name, members[name]) for name in OF_MESSAGE if name in members)
    return body


def _tokens_of(output: Output, content: Content, text: str) -> Sequence[chat_pb2.TokenLogprob]:
    """The tokens of one text: all of them if it is the only one, else as many as it is long."""
    tokens = output.tokens
    texts = [each for item in output.items for each in item.contents if each.kind == "text"]
    if len(texts) == 1 or not tokens:
        return tokens
    at = 0
    for each in texts:
        start, length, room = at, 0, len(text if each is content else each.text())
        while at < len(tokens) and (length < room or each is texts[-1]):
            length += len(tokens[at].token)
            at += 1
        if each is content:
            return tokens[start:at]
    return ()


def _reasoning(output: Output, item: Item, status: str) -> Json:
    part = item.part.part
    text = item.part.text(part.reasoning.text)
    body: Json = {
        "id": item.id,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if text else [],
    }
    if (part.reasoning.dialect or output.dialect) == DIALECT:
        proof = part.reasoning.encrypted
    else:
        proof = reasoning.seal(part.reasoning, output.dialect)
        if text and not proof:
            # Some clients send thinking back only if there is a proof to send with it.
            proof = reasoning.seal(content_pb2.Reasoning(id=item.id), output.dialect)
    if proof:
        body["encrypted_content"] = proof
    return _with_extras(output, body, part)


def _proof(output: Output, item: Item, status: str) -> Json:
    proof = item.part.part.reasoning.encrypted
    return {"id": item.id, "type": "reasoning", "summary": [], "encrypted_content": proof}


def _function_call(output: Output, item: Item, status: str) -> Json:
    body: Json = {
        "id": item.id,
        "type": "function_call",
        "status": status,
        "arguments": arguments_of(item),
    }
    return _call(output, item, body)


def _custom_call(output: Output, item: Item, status: str) -> Json:
    body: Json = {
        "id": item.id,
        "type": "custom_tool_call",
        "status": status,
        "input": input_of(item),
    }
    return _call(output, item, body)


def _call(output: Output, item: Item, body: Json) -> Json:
    part = item.part.part
    body["call_id"], body["name"] = part.tool_call.id, part.tool_call.name
    if item.original is not None:
        body["name"] = item.original.name
        if item.original.namespace is not None:
            body["namespace"] = item.original.namespace
    if part.thought_signature:
        body["extra_content"] = _google(part)
    return _with_extras(output, body, part)


def _image(output: Output, item: Item, status: str) -> Json:
    body: Json = {"id": item.id, "type": "image_generation_call", "status": "completed"}
    if status == "in_progress":
        return body | {"status": status, "result": None}
    media = item.part.part.image
    if media.url.startswith("data:"):
        body["result"] = media.url.partition(",")[2]
    else:
        body["result"] = base64.b64encode(media.data + b"".join(item.part.data)).decode()
    form = media.media_type.removeprefix("image/")
    if form:
        body["output_format"] = "svg" if form == "svg+xml" else form
    return _with_extras(output, body, item.part.part)


def _vendor(output: Output, item: Item, status: str) -> Json:
    return dict(object_of(item.part.part.vendor_part.json))


def _google(part: content_pb2.Part) -> Json:
    """Gemini's proof, as its own compatible API shows it."""
    return {"google": {"thought_signature": part.thought_signature}}


def _with_extras(output: Output, body: Json, part: content_pb2.Part) -> Json:
    if output.own and part.HasField("extra_json"):
        merge_into(body, part.extra_json)
    return body


_TELLERS: dict[str, Callable[[Output, Item, str], Json]] = {
    "message": _message,
    "reasoning": _reasoning,
    "proof": _proof,
    "function_call": _function_call,
    "custom_tool_call": _custom_call,
    "image_generation_call": _image,
    "vendor": _vendor,
}
