"""ChatResponse to OpenAI's response object. Pure.

Source: https://platform.openai.com/docs/api-reference/responses/object: which members there are, their
order, and which are null rather than absent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.v1 import chat_pb2
from headgate.wire import merge_into
from headgate_facade.responses.items_out import items_json
from headgate_facade.responses.naming import response_id
from headgate_facade.responses.output import Growing, Output
from headgate_facade.responses.tools_in import Original

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode

# SDKs know no others; what a vendor calls its tiers besides is in the gateway's own log.
_TIERS = frozenset(("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"))
_INCOMPLETE = {
    chat_pb2.FINISH_REASON_LENGTH: "max_output_tokens",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def write_response(
    response: chat_pb2.ChatResponse, echo: Json, originals: dict[str, Original], now: float
) -> bytes:
    """The body of a unary answer."""
    head = Head(echo)
    head.start(response)
    output = Output(head.id, response.served.dialect, originals)
    if response.choices:
        choice = response.choices[0]
        output.tokens.extend(choice.logprobs.content)
        for part in choice.message.parts:
            output.add(Growing(part, finished=True))
        output.close()
        head.finish(choice.finish_reason, choice.provider_finish_reason, output)
    return _encode(
        head.body(
            items_json(output, head.status),
            now=now,
            usage=response.usage if response.HasField("usage") else None,
            extra_json=response.extra_json,
        )
    )


class Head:
    """What a response says beside its items, whole or under way.

    Args:
        echo: members that repeat the request.

    Attributes:
        id: the response's id.
        status: in the format's words.
    """

    def __init__(self, echo: Json) -> None:
        self.id = ""
        self.status = "in_progress"
        self._echo = echo
        self._created = 0
        self._model = ""
        self._tier: str | None = None
        self._incomplete: str | None = None

    def start(self, source: chat_pb2.ChatResponse | chat_pb2.Started) -> None:
        """Takes what is known from the beginning."""
        self.id = response_id(source.id)
        self._created = source.create_time.seconds
        self._model = source.model
        self.tier(source)

    def tier(self, source: chat_pb2.ChatResponse | chat_pb2.Started | chat_pb2.Completed) -> None:
        """Takes the processing tier, if it is told."""
        if source.HasField("service_tier"):
            self._tier = source.service_tier if source.service_tier in _TIERS else None

    def finish(self, reason: chat_pb2.FinishReason.ValueType, words: str, output: Output) -> None:
        """Takes why the answer ended, also in the provider's words."""
        self._incomplete = _INCOMPLETE.get(reason)
        if reason == chat_pb2.FINISH_REASON_REFUSAL and not output.refused():
            # Cut off, and the model did not say so itself.
            self._incomplete = "content_filter"
        elif reason == chat_pb2.FINISH_REASON_OTHER and output.own:
            # This API knows answers that are not whole for other reasons, but no other ends.
            self._incomplete = words
        self.status = "incomplete" if self._incomplete else "completed"

    def body(
        self,
        items: list[Json],
        *,
        now: float = 0,
        usage: chat_pb2.Usage | None = None,
        extra_json: str = "",
        error: Json | None = None,
    ) -> Json:
        """The response object.

        Args:
            items: the output so far.
            now: the time, for an answer that is complete.
            usage: tokens used, if the provider told.
            extra_json: members of the provider's own.
            error: of an answer that failed.
        """
        status = "failed" if error is not None else self.status
        echo = self._echo
        body: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": echo["background"],
            "completed_at": int(now) if status == "completed" else None,
            "error": error,
            "incomplete_details": {"reason": self._incomplete} if self._incomplete else None,
            "instructions": echo["instructions"],
            "max_output_tokens": echo["max_output_tokens"],
            "max_tool_calls": echo["max_tool_calls"],
            "model": self._model,
            "output": items,
            **echo,
            "service_tier": self._tier,
            "usage": usage_json(usage) if usage is not None else None,
        }
        if extra_json:
            merge_into(body, extra_json)
        return body


def usage_json(usage: chat_pb2.Usage) -> Json:
    """The usage object; SDKs insist on each of its details."""
    body: Json = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens},
        "total_tokens": usage.total_tokens,
    }
    if usage.HasField("extra_json"):
        merge_into(body, usage.extra_json)
    return body
