"""The shapes of OpenAI's answer objects, as lenient as vendors are loose.

Every member is optional, because each is missing at some vendor. Members that no field names end up in
the `extra` slots and travel on to the caller. Source: the "chat completion object" and "chat completion
chunk object" of https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot

Number = int | float
_ABSENT = msgspec.Raw()


class Wire(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The base of the shapes; strictness is what finds the unknown members."""


class TopLogprobWire(Wire):
    """An alternative for a token."""

    token: str = ""
    logprob: Number | None = None
    bytes: list[int] | None = None
    extra: Extra = extra_slot()


class TokenLogprobWire(Wire):
    """A token and how likely it was."""

    token: str = ""
    logprob: Number | None = None
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprobWire] | None = None
    extra: Extra = extra_slot()


class LogprobsWire(Wire):
    """Log probabilities of a choice, or of a chunk of it."""

    content: list[TokenLogprobWire] | None = None
    refusal: list[TokenLogprobWire] | None = None
    extra: Extra = extra_slot()


class FunctionWire(Wire):
    """The function of a tool call; in chunks, a piece of it."""

    name: str | None = None
    arguments: msgspec.Raw = _ABSENT  # a string; some vendors send an object instead
    extra: Extra = extra_slot()


class CustomWire(Wire):
    """A call of a custom tool."""

    name: str | None = None
    input: str | None = None
    extra: Extra = extra_slot()


class ToolCallWire(Wire):
    """A tool call; in chunks, a piece of one."""

    index: Number | None = None
    id: str | int | None = None
    type: str | None = None
    function: FunctionWire | None = None
    custom: CustomWire | None = None
    extra: Extra = extra_slot()


class AudioWire(Wire):
    """Generated audio; in chunks, a piece of it."""

    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: Number | None = None
    extra: Extra = extra_slot()


class MessageWire(Wire):
    """An assistant message, or a delta of one."""

    role: str | None = None
    content: str | list[msgspec.Raw] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallWire] | None = None
    function_call: FunctionWire | None = None
    annotations: list[msgspec.Raw] | None = None
    audio: AudioWire | None = None
    images: list[msgspec.Raw] | None = None  # OpenRouter's place for generated ones
    extra: Extra = extra_slot()


class PromptDetailsWire(Wire):
    """Details of the prompt's tokens."""

    cached_tokens: Number | None = None
    audio_tokens: Number | None = None
    cache_write_tokens: Number | None = None
    extra: Extra = extra_slot()


class CompletionDetailsWire(Wire):
    """Details of the generated tokens."""

    reasoning_tokens: Number | None = None
    audio_tokens: Number | None = None
    accepted_prediction_tokens: Number | None = None
    rejected_prediction_tokens: Number | None = None
    extra: Extra = extra_slot()


class UsageWire(Wire):
    """Tokens used."""

    prompt_tokens: Number | None = None
    completion_tokens: Number | None = None
    total_tokens: Number | None = None
    prompt_tokens_details: PromptDetailsWire | None = None
    completion_tokens_details: CompletionDetailsWire | None = None
    # DeepSeek's and Moonshot's own spellings of cached tokens.
    prompt_cache_hit_tokens: Number | None = None
    cached_tokens: Number | None = None
    extra: Extra = extra_slot()


class ChoiceWire(Wire):
    """A choice; in chunks with a delta, else with a message."""

    index: Number | None = None
    message: MessageWire | None = None
    delta: MessageWire | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _ABSENT
    usage: UsageWire | None = None  # Moonshot's place for it in chunks
    extra: Extra = extra_slot()


class AnswerWire(Wire):
    """A chat completion object, or a chunk of one."""

    id: str | Number | None = None
    object: str | None = None
    created: Number | None = None
    model: str | None = None
    choices: list[ChoiceWire] | None = None
    usage: UsageWire | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: msgspec.Raw = _ABSENT
    # OpenAI pads chunks with noise against traffic analysis; it means nothing to anybody.
    obfuscation: str | None = None
    extra: Extra = extra_slot()


class TextChoiceWire(ChoiceWire):
    """A choice of the legacy text completions."""

    text: str | None = None


class TextAnswerWire(AnswerWire):
    """A text completion object; chunks have the same form."""

    choices: list[TextChoiceWire] | None = None  # type: ignore[assignment]


class ImageUrlWire(Wire):
    """Where an image is: mostly a data: URL."""

    url: str


class ImageWire(Wire):
    """A generated image, as OpenRouter shows it."""

    image_url: ImageUrlWire
    type: str = "image_url"
    index: Number | None = None
    extra: Extra = extra_slot()


class UrlCitationWire(Wire):
    """What a url_citation annotation holds; with members beside these it stays JSON."""

    url: str
    title: str = ""
    start_index: int = 0
    end_index: int = 0


class AnnotationWire(Wire):
    """An annotation of the one kind that we know."""

    type: str
    url_citation: UrlCitationWire


ANSWER = ShapeDecoder(AnswerWire)
TEXT_ANSWER = ShapeDecoder(TextAnswerWire)
IMAGE = ShapeDecoder(ImageWire)
LOGPROBS = ShapeDecoder(LogprobsWire)
ANNOTATION = msgspec.json.Decoder(AnnotationWire)
