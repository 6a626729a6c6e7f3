"""ChatResponse to Anthropic's message object. Pure.

Source: https://platform.claude.com/docs/en/api/messages. Only the first choice is shown: this API cannot
ask for more.
"""

from __future__ import annotations

import random

import msgspec

from headgate.v1 import chat_pb2
from headgate.wire import merge_into
from headgate_facade.anthropic.blocks_out import Json, Origin, block_of, usage_json

_encode = msgspec.json.Encoder().encode

STOP_REASONS = {
    chat_pb2.FINISH_REASON_STOP: "end_turn",
    chat_pb2.FINISH_REASON_LENGTH: "max_tokens",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_use",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "refusal",
    chat_pb2.FINISH_REASON_REFUSAL: "refusal",
    chat_pb2.FINISH_REASON_PAUSE: "pause_turn",
    chat_pb2.FINISH_REASON_OTHER: "end_turn",
}


def write_message(response: chat_pb2.ChatResponse) -> bytes:
    """The body of a unary answer."""
    origin = Origin(response.served)
    choice = response.choices[0] if response.choices else chat_pb2.Choice()
    body = message_json(response.id, response.model)
    blocks = (block_of(part, origin) for part in choice.message.parts)
    body["content"] = [block for block in blocks if block is not None]
    body.update(ending_json(choice, origin))
    usage = response.usage if response.HasField("usage") else None
    body["usage"] = usage_json(usage, response.service_tier, origin)
    if origin.own:
        for source in (choice.message, choice, response):
            if source.HasField("extra_json"):
                merge_into(body, source.extra_json)
    return _encode(body)


def message_json(given_id: str, model: str) -> Json:
    """What a message object begins with."""
    return {
        "id": given_id or f"msg_{random.getrandbits(96):024x}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
    }


def ending_json(ending: chat_pb2.Choice | chat_pb2.ChoiceFinished, origin: Origin) -> Json:
    """Why the answer ended."""
    sequence = ending.stop_sequence if ending.HasField("stop_sequence") else None
    if origin.own and ending.provider_finish_reason:
        reason = ending.provider_finish_reason
    elif sequence is not None and ending.finish_reason == chat_pb2.FINISH_REASON_STOP:
        reason = "stop_sequence"
    else:
        reason = STOP_REASONS.get(ending.finish_reason, "end_turn")
    return {"stop_reason": reason, "stop_sequence": sequence}
