"""How each front door is asked, and in which form it says that something failed.

By hand, from the vendors' pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustness.shown import server_sent
from square.vendors import Json

ERROR_MEMBERS = {"message", "type", "param", "code"}


@dataclass(frozen=True)
class Told:
    """An error as the door tells it."""

    message: str
    kind: str  # the most exact word for it that the envelope has
    field: str = ""
    status: int | None = None  # if the envelope repeats it


class Front:
    """One front door."""

    name = ""
    text = "hi"

    def path(self, model: str, stream: bool) -> str:
        raise NotImplementedError

    def body(self, model: str, stream: bool) -> Json:
        raise NotImplementedError

    def told(self, body: Json) -> Told:
        """What an error's body says; fails if it is no error in this door's form."""
        raise NotImplementedError

    def told_by_stream(self, text: bytes) -> Told:
        """What the end of a stream says; fails if it is no error in this door's form."""
        events = server_sent(text)
        assert b"[DONE]" not in text
        return self.last_told(events)

    def last_told(self, events: list[Json]) -> Told:
        assert all("error" not in event for event in events[:-1])
        return self.told(events[-1])

    def said(self, events: list[Json]) -> str:
        """The text in the events of a stream."""
        raise NotImplementedError


class Chat(Front):
    name = "chat"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/chat/completions"

    def body(self, model: str, stream: bool) -> Json:
        messages = [{"role": "user", "content": self.text}]
        return {"model": model, "messages": messages, "stream": stream}

    def told(self, body: Json) -> Told:
        assert set(body) == {"error"}
        error = body["error"]
        assert set(error) == ERROR_MEMBERS
        return Told(error["message"], error["code"] or error["type"], error["param"] or "")

    def said(self, events: list[Json]) -> str:
        return "".join(
            choice["delta"].get("content") or ""
            for event in events
            for choice in event.get("choices", [])
        )


class Completions(Chat):
    name = "completions"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/completions"

    def body(self, model: str, stream: bool) -> Json:
        return {"model": model, "prompt": self.text, "stream": stream}

    def said(self, events: list[Json]) -> str:
        return "".join(choice["text"] for event in events for choice in event.get("choices", []))


class Messages(Front):
    name = "messages"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/messages"

    def body(self, model: str, stream: bool) -> Json:
        messages = [{"role": "user", "content": self.text}]
        return {"model": model, "max_tokens": 100, "messages": messages, "stream": stream}

    def told(self, body: Json) -> Told:
        assert set(body) == {"type", "error", "request_id"}, body
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        assert body["request_id"]
        message = body["error"]["message"]
        return Told(message, body["error"]["type"], message.partition(": ")[0])

    def told_by_stream(self, text: bytes) -> Told:
        assert text.rpartition(b"event: ")[2].startswith(b"error\n")
        assert b"message_stop" not in text
        return super().told_by_stream(text)

    def said(self, events: list[Json]) -> str:
        return "".join(event.get("delta", {}).get("text", "") for event in events)


class Gemini(Front):
    name = "gemini"

    def path(self, model: str, stream: bool) -> str:
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/{model}:{verb}"

    def body(self, model: str, stream: bool) -> Json:
        return {"contents": [{"role": "user", "parts": [{"text": self.text}]}]}

    def told(self, body: Json) -> Told:
        assert set(body) == {"error"}
        error = body["error"]
        assert set(error) <= {"code", "message", "status", "details"}
        field = ""
        kind = error["status"]
        for detail in error["details"]:
            if detail["@type"].endswith("BadRequest"):
                field = detail["fieldViolations"][0]["field"]
            elif detail["@type"].endswith("ErrorInfo"):
                kind = detail["reason"]
        return Told(error["message"], kind, field, error["code"])

    def said(self, events: list[Json]) -> str:
        return "".join(
            part.get("text", "")
            for event in events
            for candidate in event.get("candidates", [])
            for part in candidate["content"]["parts"]
        )


class Responses(Front):
    name = "responses"

    def path(self, model: str, stream: bool) -> str:
        return "/v1/responses"

    def body(self, model: str, stream: bool) -> Json:
        return {"model": model, "input": self.text, "stream": stream}

    def told(self, body: Json) -> Told:
        assert set(body) == {"error"}
        error = body["error"]
        assert set(error) == ERROR_MEMBERS
        return Told(error["message"], error["code"] or error["type"], error["param"] or "")

    def last_told(self, events: list[Json]) -> Told:
        numbers = [event["sequence_number"] for event in events]
        assert numbers == list(range(len(events)))
        told, failed = events[-2:]
        assert (told["type"], failed["type"]) == ("error", "response.failed")
        assert failed["response"]["status"] == "failed"
        assert failed["response"]["error"]["message"] == told["message"]
        assert all(event["type"] != "response.completed" for event in events)
        assert {**told["error"], **{k: told[k] for k in ERROR_MEMBERS - {"type"}}} == told["error"]
        return self.told({"error": told["error"]})

    def said(self, events: list[Json]) -> str:
        return "".join(
            event["delta"] for event in events if event["type"] == "response.output_text.delta"
        )


FRONTS: list[Front] = [Chat(), Completions(), Messages(), Gemini(), Responses()]


def counting(front: Front, model: str) -> tuple[str, Any]:
    """Path and body of the door's request to count tokens."""
    if isinstance(front, Messages):
        body = front.body(model, False)
        del body["max_tokens"], body["stream"]
        return "/v1/messages/count_tokens", body
    return f"/v1beta/models/{model}:countTokens", front.body(model, False)
