"""ChatResponse to Gemini's GenerateContentResponse. Pure.

Source: https://ai.google.dev/api/generate-content#generatecontentresponse. The stream, too, uses the
functions of this module.

Thoughts are shown only to callers who asked for them (`includeThoughts`), as Gemini does it. Their
proofs travel in any case, in `thoughtSignature`: Gemini's own where Gemini put them, those of other
vendors sealed on the thought's part, which is an empty one where the thought is hidden. A hidden
thought's text goes along inside the seal: some vendors take a proof back only together with its text.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headgate.reasoning import seal
from headgate.v1 import chat_pb2, content_pb2
from headgate.wire import MalformedJson, merge_into, raw_object
from headgate_facade.gemini.content_in import DIALECT
from headgate_facade.gemini.request_in import ENUM_MEMBER

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode

FINISH_REASONS = {
    chat_pb2.FINISH_REASON_STOP: "STOP",
    chat_pb2.FINISH_REASON_LENGTH: "MAX_TOKENS",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "STOP",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "SAFETY",
    chat_pb2.FINISH_REASON_REFUSAL: "SAFETY",
    chat_pb2.FINISH_REASON_PAUSE: "OTHER",
    chat_pb2.FINISH_REASON_OTHER: "OTHER",
}
MALFORMED_CALL = "MALFORMED_FUNCTION_CALL"


class View(msgspec.Struct, gc=False):
    """How one caller sees an answer.

    Attributes:
        include_thoughts: whether thoughts are shown.
        one_word: whether the answer's text is to be unpacked: see `request_in.ENUM`.
        dialect: of the provider that answered.
    """

    include_thoughts: bool
    one_word: bool
    dialect: str = ""

    @property
    def own(self) -> bool:
        """Whether the answer's `extra_json` texts are in this door's own dialect."""
        return self.dialect == DIALECT


def write_response(response: chat_pb2.ChatResponse, view: View) -> bytes:
    """The body of a unary answer."""
    view.dialect = response.served.dialect
    body: Json = {"candidates": [_candidate(choice, view) for choice in response.choices]}
    if response.HasField("usage"):
        body["usageMetadata"] = usage_json(response.usage, view)
    body |= identity(response)
    if view.own and response.HasField("extra_json"):
        merge_into(body, response.extra_json)
    return _encode(body)


def identity(source: chat_pb2.ChatResponse | chat_pb2.Started) -> Json:
    """What says whose answer it is."""
    body: Json = {"modelVersion": source.model}
    if source.HasField("create_time"):
        body["createTime"] = source.create_time.ToJsonString()
    body["responseId"] = source.id
    return body


def _candidate(choice: chat_pb2.Choice, view: View) -> Json:
    parts: list[Json] = []
    malformed = ""
    for part in choice.message.parts:
        written = write_part(part, view)
        if isinstance(written, str):
            malformed = malformed or written
        else:
            parts += written
    if len(parts) > 1:
        # An empty text may be there to hold sources, which are said elsewhere.
        parts = [part for part in parts if part != {"text": ""}] or parts[:1]
    content: Json = {"role": "model"}
    if parts:
        content = {"parts": parts, **content}
    if view.own and choice.message.HasField("extra_json"):
        merge_into(content, choice.message.extra_json)
    body: Json = {"content": content}
    body |= finish_json(choice, view, malformed)
    texts = [part for part in choice.message.parts if part.HasField("text")]
    grounding = grounding_json(
        "".join(part.text for part in texts), [a for part in texts for a in part.annotations]
    )
    if grounding is not None and "groundingMetadata" not in body:
        body["groundingMetadata"] = grounding
    if choice.HasField("logprobs"):
        tokens = [*choice.logprobs.content, *choice.logprobs.refusal]
        body["logprobsResult"] = {**logprobs_json(tokens), **body.get("logprobsResult", {})}
    return body


def finish_json(
    finished: chat_pb2.Choice | chat_pb2.ChoiceFinished, view: View, malformed: str
) -> Json:
    """Why a candidate ended, its index, and what else Gemini says of it.

    Args:
        finished: the end of a choice.
        view: of the caller.
        malformed: what is wrong with a call whose arguments are no JSON object; empty if nothing is.
    """
    reason, said = finished.finish_reason, finished.provider_finish_reason
    index = finished.index if isinstance(finished, chat_pb2.Choice) else finished.choice
    body: Json = {
        "finishReason": said if view.own and said else FINISH_REASONS.get(reason, "OTHER"),
        "index": index,
    }
    if malformed:
        body["finishReason"], body["finishMessage"] = MALFORMED_CALL, malformed
    elif body["finishReason"] == "OTHER" and said and not view.own:
        body["finishMessage"] = f"the provider said {said!r}"
    if view.own and finished.HasField("extra_json"):
        merge_into(body, finished.extra_json)
    return body


# Parts.


def write_part(part: content_pb2.Part, view: View) -> list[Json] | str:
    """A part, as none, one or two of Gemini's; a text says why it cannot be one."""
    kind = part.WhichOneof("kind")
    body: Json
    if kind == "text":
        body = {"text": one_word(part.text) if view.one_word else part.text}
    elif kind == "refusal":
        body = {"text": part.refusal}
    elif kind == "reasoning":
        return _thought(part, view)
    elif kind == "tool_call":
        arguments = _arguments(part.tool_call)
        if arguments is None:
            call = part.tool_call
            return f"the arguments of {call.name} are no JSON object: {call.arguments_json[:500]}"
        body = {"functionCall": _call(part.tool_call, arguments)}
    elif kind in ("image", "audio", "file"):
        found = _media(getattr(part, kind))
        if found is None:
            return []
        body = found
    elif kind == "vendor_part" and part.vendor_part.dialect == DIALECT:
        body = dict(raw_object(part.vendor_part.json))
    else:
        return []
    if part.HasField("thought_signature") and part.thought_signature:
        body.setdefault("thoughtSignature", part.thought_signature)
    if view.own and part.HasField("extra_json"):
        merge_into(body, part.extra_json)
    return [body]


def one_word(text: str) -> str:
    """The word inside the object that stands for it elsewhere; the text itself if it is none."""
    try:
        word = msgspec.json.decode(text, type=dict[str, Any]).get(ENUM_MEMBER)
    except (msgspec.DecodeError, RecursionError):
        return text
    return word if isinstance(word, str) else text


def _thought(part: content_pb2.Part, view: View) -> list[Json]:
    proof = proof_text(part.reasoning, view) or part.thought_signature
    if not view.include_thoughts and not proof:
        return []
    body: Json = {"text": part.reasoning.text if view.include_thoughts else "", "thought": True}
    if proof:
        body["thoughtSignature"] = proof
    if view.own and part.HasField("extra_json"):
        merge_into(body, part.extra_json)
    return [body]


def proof_text(reasoning: content_pb2.Reasoning, view: View) -> str:
    """The thought's proof for its `thoughtSignature`: Gemini's as it is, others sealed."""
    dialect = reasoning.dialect or view.dialect
    if dialect == DIALECT:
        return reasoning.signature
    sealed = seal(reasoning, dialect)
    if not sealed or view.include_thoughts or not reasoning.text:
        return sealed
    # A seal ends with a message, and of two messages one behind the other the parser makes one:
    # https://protobuf.dev/programming-guides/encoding/#last-one-wins
    hidden = content_pb2.Reasoning(text=reasoning.text).SerializeToString()
    return base64.b64encode(base64.b64decode(sealed) + hidden).decode()


def _arguments(call: content_pb2.ToolCall) -> object | None:
    """A call's arguments as a JSON object; None if they are none."""
    text = call.arguments_json
    if call.custom:
        return {"input": text}
    if not text.strip():
        return {}
    try:
        raw_object(text)
    except MalformedJson:
        return None
    return msgspec.Raw(text.encode())


def _call(call: content_pb2.ToolCall, arguments: object) -> Json:
    body: Json = {"id": call.id} if call.id else {}
    return {**body, "name": call.name, "args": arguments}


def _media(media: content_pb2.Media) -> Json | None:
    source = media.WhichOneof("source")
    typed = {"mimeType": media.media_type} if media.media_type else {}
    body: Json | None = None
    if source == "data":
        body = {"inlineData": {**typed, "data": base64.b64encode(media.data).decode()}}
    elif source == "url":
        head, comma, data = media.url.partition(",")
        if comma and head.startswith("data:") and head.endswith(";base64"):
            kind = media.media_type or head[5:-7]
            body = {"inlineData": {"mimeType": kind, "data": data}}
        else:
            body = {"fileData": {**typed, "fileUri": media.url}}
    elif source == "file_id":
        body = {"fileData": {**typed, "fileUri": media.file_id}}
    if media.transcript:
        body = {**(body or {}), "audioTranscription": {"text": media.transcript}}
    return body


# What is said of a candidate.


def grounding_json(text: str, annotations: Sequence[content_pb2.Annotation]) -> Json | None:
    """`groundingMetadata` of the cited pages; None if there are none.

    Gemini counts in bytes of UTF-8, and so do the offsets here: through the text of all parts.
    """
    chunks: dict[tuple[str, str], int] = {}
    supports: list[Json] = []
    for annotation in annotations:
        if not annotation.HasField("url_citation"):
            continue
        cited = annotation.url_citation
        index = chunks.setdefault((cited.url, cited.title), len(chunks))
        start, end = cited.start_index, min(cited.end_index, len(text))
        if 0 <= start < end:
            stretch = text[start:end]
            first = len(text[:start].encode())
            segment = {
                "startIndex": first,
                "endIndex": first + len(stretch.encode()),
                "text": stretch,
            }
            supports.append({"segment": segment, "groundingChunkIndices": [index]})
    if not chunks:
        return None
    body: Json = {
        "groundingChunks": [{"web": {"uri": url, "title": title}} for url, title in chunks]
    }
    if supports:
        body["groundingSupports"] = supports
    return body


def logprobs_json(tokens: Iterable[chat_pb2.TokenLogprob]) -> Json:
    """`logprobsResult` of some tokens."""
    chosen, top = [], []
    for token in tokens:
        chosen.append({"token": token.token, "logProbability": token.logprob})
        others = [{"token": t.token, "logProbability": t.logprob} for t in token.top]
        top.append({"candidates": others})
    return {"topCandidates": top, "chosenCandidates": chosen}


def usage_json(usage: chat_pb2.Usage, view: View) -> Json:
    """`usageMetadata`."""
    thoughts = usage.reasoning_output_tokens
    body: Json = {
        "promptTokenCount": usage.input_tokens,
        # Thoughts are counted beside the candidates, not among them.
        "candidatesTokenCount": max(usage.output_tokens - thoughts, 0),
        "totalTokenCount": usage.total_tokens,
    }
    if usage.HasField("cached_input_tokens"):
        body["cachedContentTokenCount"] = usage.cached_input_tokens
    if thoughts:
        body["thoughtsTokenCount"] = thoughts
    if view.own and usage.HasField("extra_json"):
        merge_into(body, usage.extra_json)
        # Gemini counts what its own tools had put into the prompt apart.
        tool_use = body.get("toolUsePromptTokenCount")
        with contextlib.suppress(msgspec.ValidationError):  # it is whatever the upstream sent
            count = msgspec.json.decode(tool_use or b"0", type=int)
            body["promptTokenCount"] = max(body["promptTokenCount"] - count, 0)
    for name, count in (
        ("promptTokensDetails", usage.audio_input_tokens),
        ("candidatesTokensDetails", usage.audio_output_tokens),
    ):
        if count:
            body.setdefault(name, [{"modality": "AUDIO", "tokenCount": count}])
    return body
