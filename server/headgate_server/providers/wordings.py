"""What upstreams say in words alone: the phrases that tell their errors apart. Data, and pure.

Servers of many makers stand behind each dialect (vLLM speaks three of them, proxies all), so that their
phrases are in one place. A phrase is only looked for in an error's own message, and only where the status
leaves room for it: what a vendor says by a code is in its dialect's error module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from headgate.errors import (
    ContentFiltered,
    ContextTooLong,
    FieldViolation,
    GatewayError,
    QuotaExhausted,
    UpstreamRejectedUs,
)

# 500 is what a dialect takes for an error inside of a stream that names no status.
_CONTEXT_STATUSES = frozenset((400, 413, 422, 500))
_FILTER_STATUSES = frozenset((400, 403, 422, 451, 500))
_QUOTA_STATUSES = frozenset((400, 402, 403, 422, 429))


def _any(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases), re.IGNORECASE | re.DOTALL)


_TOO_LONG = _any(
    # OpenAI, Azure, DeepSeek, Fireworks, llama.cpp, LM Studio, MiniMax, Mistral, OpenRouter, SGLang and
    # vLLM; Anthropic: "input length and `max_tokens` exceed context limit".
    r"context (length|window|size|limit)",
    r"context_length_exceeded",
    # Anthropic, Bedrock ("Input is too long for requested model."), Ollama, Qianfan, xAI's proxies.
    r"\b(prompt|input)( tokens)?( is| are)? too (long|large)",
    r"maximum prompt length",  # xAI
    r"reduce the length of (the|your) (messages|prompt|input)",  # Cerebras, Groq
    r"exceeded model token limit",  # Moonshot
    r"range of input length should be",  # DashScope
    r"prompt( exceeds max length|\s*超长)",  # Zhipu, 1261
    # Bedrock and Cohere; but "too many tokens: max tokens must be ..." is about the answer's bound, and
    # "Too many tokens, please wait" a rate.
    r"too many (input )?tokens(?!: max tokens|, please| per )",
    r"input token count\b.*(exceeds|only supports)",  # Gemini
    r"exceeds? the maximum number of (input )?tokens",  # Gemini, Nova
    r"input tokens? exceeds?",  # Nova
    r"maximum (model|allowed|allowed input|input) length",  # SGLang, vLLM
    r"must have less than \d+ tokens|max_new_tokens. must be <=",  # TGI, and Together behind it
    r"prompt token count of \d+ exceeds",  # GitHub
)
_REFUSED = _any(
    r"content[ _](filter|management policy|policy violation)",  # Anthropic, Azure, Bedrock
    r"content exists risk",  # DeepSeek
    r"violat\w+ (our |the )?usage (guidelines|polic)",  # OpenAI, xAI (with status 403)
    r"safety_check_type",  # xAI
    r"our safety system",  # OpenAI
    r"不安全或敏感内容|unsafe or sensitive content",  # Zhipu, 1301
    r"inappropriate content",  # DashScope
    r"responsible ai practices|prohibited use policy",  # Vertex AI
    r"\bblocked (input|output)\b|\b(input|output|prompt) (was |is |has been )?(blocked|flagged)\b",
)
_USED_UP = _any(
    r"credit balance is too low",  # Anthropic
    r"specified (\w+ )?api usage limits",  # Anthropic, with status 400
    r"(usage credits are|extra usage is) required",  # Anthropic, long contexts
    r"insufficient (account )?(balance|credits?|quota|funds)",  # DeepSeek, OpenRouter
    r"used all available credits|run out of credits",  # xAI, with status 403 or 429
    r"credits are depleted|spend(ing)? (limit|cap)",  # Anthropic, Google, xAI
    r"\b(session|daily|weekly|monthly) usage limit",  # Ollama
    r"out of call volume quota",  # Azure API Management, with status 403
    r"free tier of the model has been exhausted",  # DashScope
)
# Refused credentials that come with the status of a bad request.
_BAD_KEY = _any(
    r"(incorrect|invalid) api[ _-]?key",  # xAI
    r"api key (not valid|not found|expired)",  # Google's OpenAI-compatible endpoint
    r"organization has been disabled",  # Anthropic
)
_LONG_PERIOD = _any(r"(per|/) ?[-_]?(day|week|month)", r"\b(daily|weekly|monthly)\b")
_WAIT = _any(
    # "try again in 6m0s", "in 382ms", "retry after 26 seconds", "retry in 35.98s"
    r"(try again|retry)\s+(in|after)\s+(?P<time>(\d+(\.\d+)?\s*[a-z]+\s*)+)"
)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(milli|ms|h|m|s)", re.IGNORECASE)
_SECONDS = {"milli": 0.001, "ms": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0}
_LONGEST_WAIT_SECONDS = 24 * 3600.0


def of_words(
    status: int, message: str, violations: Sequence[FieldViolation] = ()
) -> GatewayError | None:
    """The error that an upstream's words mean; None if they leave it to status and codes.

    Args:
        status: of HTTP, or what the error would have had.
        message: the upstream's words.
        violations: the fields that they are about.
    """
    if status in _QUOTA_STATUSES and _USED_UP.search(message):
        return QuotaExhausted(message)
    if status in _CONTEXT_STATUSES and _TOO_LONG.search(message):
        return ContextTooLong(message, violations=violations)
    if status in _FILTER_STATUSES and _REFUSED.search(message):
        return ContentFiltered(message)
    if status == 400 and _BAD_KEY.search(message):
        # The upstream's words may quote the key, so they stay here.
        return UpstreamRejectedUs("the upstream does not accept the gateway's credentials")
    return None


def wait_in(message: str) -> float | None:
    """The seconds that a message asks to wait; None if it names none."""
    found = _WAIT.search(message)
    if found is None:
        return None
    parts = _TIME.findall(found["time"])
    if not parts:
        return None
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    return min(seconds, _LONGEST_WAIT_SECONDS)


def is_of_long_period(message: str) -> bool:
    """Whether a limit that a message tells is that of a day or more, which no pause of seconds mends."""
    return _LONG_PERIOD.search(message) is not None
