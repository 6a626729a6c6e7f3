"""Puts the chunks of a Gemini stream together to one GenerateContentResponse.

By the rules of https://ai.google.dev/gemini-api/docs/thought-signatures: texts go on until something
else comes, and a signature that comes alone belongs to the text before it. A stream is server-sent
events, or a JSON array.
"""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def chunks_of(stream: str) -> list[Json]:
    """The chunks; each of them has candidates, and each candidate a role or a reason for its end."""
    if stream.startswith("["):
        assert stream.endswith("\n]\n")
        found: list[Json] = json.loads(stream)
    else:
        assert stream.endswith("\r\n\r\n")
        found = [
            json.loads(event.removeprefix("data: "))
            for event in stream.removesuffix("\r\n\r\n").split("\r\n\r\n")
        ]
    for chunk in found[:-1]:
        assert all(candidate["content"]["parts"] for candidate in chunk["candidates"])
        assert "finishReason" not in chunk["candidates"][0] and "usageMetadata" not in chunk
    return found


def assemble(stream: str) -> Json:
    """The whole answer."""
    candidates: dict[int, Json] = {}
    whole: Json = {}
    for chunk in chunks_of(stream):
        for piece in chunk.pop("candidates"):
            add(candidates.setdefault(piece["index"], {"content": {}}), piece)
        whole |= chunk
    return {"candidates": [candidates[index] for index in sorted(candidates)], **whole}


def add(candidate: Json, piece: Json) -> None:
    """Adds what a chunk says of a candidate."""
    content = piece.pop("content", {})
    candidate["content"] |= {key: content[key] for key in content if key != "parts"}
    for part in content.get("parts", []):
        add_part(candidate["content"].setdefault("parts", []), part)
    tokens = piece.pop("logprobsResult", None)
    if tokens is not None:
        before = candidate.setdefault("logprobsResult", {})
        for name, items in tokens.items():
            before[name] = before.get(name, []) + items
    candidate |= piece


def add_part(parts: list[Json], part: Json) -> None:
    """Adds a part, or makes the last one longer."""
    last = parts[-1] if parts else {}
    same = "text" in part and "text" in last and part.get("thought") == last.get("thought")
    if same and "thoughtSignature" not in last and (part["text"] == "" or len(part) == len(last)):
        parts[-1] = {**last, **part, "text": last["text"] + part["text"]}
    else:
        parts.append(part)


def comparable(body: Json) -> Json:
    """Without what a stream cannot say: where one text ends and the next begins, and empty texts.

    The last chunk of a stream has an empty text, and a blocked answer has none.
    """
    for candidate in body["candidates"]:
        content = candidate["content"]
        parts: list[Json] = []
        for part in content.get("parts", []):
            if part != {"text": ""}:
                add_part(parts, part)
        candidate["content"] = {"role": "model", "parts": parts}
    return body
