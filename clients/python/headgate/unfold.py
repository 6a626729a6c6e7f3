"""Unfolds an answer into the events of a stream that would have given it.

The inverse of `fold`: ``fold(unfold(response)) == response``. For answers that are whole already, and
whose reader asked for a stream. Pure; no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from headgate.v1 import chat_pb2, content_pb2

_TEXTS = ("text", "refusal")
_MEDIA = ("image", "audio", "file")


def unfold(response: chat_pb2.ChatResponse) -> list[chat_pb2.ChatEvent]:
    """The answer as events: choice after choice, each part's text or bytes in one delta.

    Events cannot say everything that a message can: that an assistant's message has a name, and log
    probabilities of a choice that has no part of their kind. No provider's answer holds either.
    """
    events = [_started(response)]
    for choice in response.choices:
        _choice(choice, events)
    completed = chat_pb2.Completed()
    if response.HasField("usage"):
        completed.usage.CopyFrom(response.usage)
    if response.HasField("extra_json"):
        completed.extra_json = response.extra_json
    events.append(chat_pb2.ChatEvent(completed=completed))
    return events


def _started(response: chat_pb2.ChatResponse) -> chat_pb2.ChatEvent:
    event = chat_pb2.ChatEvent()
    started = event.started
    started.SetInParent()
    started.id, started.model = response.id, response.model
    if response.HasField("create_time"):
        started.create_time.CopyFrom(response.create_time)
    if response.HasField("served"):
        started.served.CopyFrom(response.served)
    if response.HasField("system_fingerprint"):
        started.system_fingerprint = response.system_fingerprint
    if response.HasField("service_tier"):
        started.service_tier = response.service_tier
    started.warnings.extend(response.warnings)
    return event


def _choice(choice: chat_pb2.Choice, events: list[chat_pb2.ChatEvent]) -> None:
    tokens = _tokens_of_parts(choice)
    for place, part in enumerate(choice.message.parts):
        _part(part, choice.index, place, tokens.get(place, ()), events)
    event = chat_pb2.ChatEvent()
    finished = event.choice_finished
    finished.choice = choice.index
    finished.finish_reason = choice.finish_reason
    finished.provider_finish_reason = choice.provider_finish_reason
    if choice.HasField("stop_sequence"):
        finished.stop_sequence = choice.stop_sequence
    if choice.HasField("extra_json"):
        finished.extra_json = choice.extra_json
    if choice.message.HasField("extra_json"):
        finished.message_extra_json = choice.message.extra_json
    finished.SetInParent()
    events.append(event)


def _tokens_of_parts(choice: chat_pb2.Choice) -> dict[int, Sequence[chat_pb2.TokenLogprob]]:
    """Log probabilities by the place of the part that they travel with.

    In an answer they belong to the choice: those of its texts one after the other, or, where there is
    none, of the first thing that the model wrote instead, such as a call.
    """
    if not choice.HasField("logprobs"):
        return {}
    kinds = [part.WhichOneof("kind") for part in choice.message.parts]
    found: dict[int, Sequence[chat_pb2.TokenLogprob]] = {}
    if "refusal" in kinds:
        found[kinds.index("refusal")] = choice.logprobs.refusal
    places = [place for place, kind in enumerate(kinds) if kind == "text"]
    if not places:
        places = [place for place, kind in enumerate(kinds) if kind != "refusal"][:1]
    tokens, at = choice.logprobs.content, 0
    for place in places[:-1]:
        left = len(choice.message.parts[place].text.encode())
        begin = at
        while left > 0 and at < len(tokens):
            token = tokens[at]
            left -= len(token.bytes if token.HasField("bytes") else token.token.encode())
            at += 1
        found[place] = tokens[begin:at]
    if places:
        found[places[-1]] = tokens[at:]
    return found


def _part(
    part: content_pb2.Part,
    choice: int,
    place: int,
    tokens: Sequence[chat_pb2.TokenLogprob],
    events: list[chat_pb2.ChatEvent],
) -> None:
    begun, grown, ended = chat_pb2.ChatEvent(), chat_pb2.ChatEvent(), chat_pb2.ChatEvent()
    started, delta, finished = begun.part_started, grown.part_delta, ended.part_finished
    for each in (started, delta, finished):
        each.choice, each.part = choice, place
        each.SetInParent()
    initial = started.initial
    initial.CopyFrom(part)
    _take(initial, delta)
    delta.logprobs.extend(tokens)
    events.append(begun)
    if delta.text or delta.data or tokens:
        events.append(grown)
    if part.annotations and part.HasField("text"):
        # Behind the text that they point into.
        initial.ClearField("annotations")
        cited = chat_pb2.ChatEvent()
        cited.part_delta.choice, cited.part_delta.part = choice, place
        cited.part_delta.annotations.extend(part.annotations)
        events.append(cited)
    events.append(ended)


def _take(initial: content_pb2.Part, delta: chat_pb2.PartDelta) -> None:
    """Moves what grows out of the part as it begins."""
    kind = initial.WhichOneof("kind")
    if kind in _TEXTS:
        delta.text = getattr(initial, kind)
        setattr(initial, kind, "")
    elif kind == "tool_call":
        delta.text = initial.tool_call.arguments_json
        initial.tool_call.ClearField("arguments_json")
    elif kind == "reasoning":
        delta.text = initial.reasoning.text
        initial.reasoning.ClearField("text")
    elif kind in _MEDIA:
        media = getattr(initial, kind)
        if media.data:  # an empty one stays: it says that there are bytes, and none of them
            delta.data = media.data
            media.ClearField("data")
        if media.transcript:
            delta.text = media.transcript
            media.ClearField("transcript")
