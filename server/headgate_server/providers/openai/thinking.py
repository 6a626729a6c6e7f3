"""How much to think, in each vendor's and model family's own words. Pure.

Sources: the pages named in vendors.toml and families.toml, which say which of these words hold.
"""

from __future__ import annotations

import msgspec

from headgate.v1 import chat_pb2
from headgate_server.providers.encoding import Encoding, Json


def reasoning(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    """Puts the options into the body."""
    body, vendor, family = encoding.body, encoding.target.vendor, encoding.target.family
    if options.HasField("native_json"):
        if vendor.native_thinking or encoding.target.policy == "pass":
            body["thinking"] = msgspec.Raw(options.native_json)
        else:
            kind = encoding.target.kind
            encoding.leave_out(
                "reasoning.native_json", f"provider kind {kind!r} knows no `thinking` object"
            )
    if vendor.reasoning_object:
        _unified(encoding, options)
        return
    if options.HasField("effort"):
        body["reasoning_effort"] = options.effort
    if options.summary not in ("", "none", "auto"):
        encoding.leave_out("reasoning.summary", "the API has no such choice")
    style = vendor.thinking or family.thinking
    if vendor.template_kwargs and family.template_switch:
        _template_switch(encoding, options)
    elif style == "thinking_object":
        _thinking_object(encoding, options)
    else:
        _budget(encoding, options, style)
        if options.HasField("enabled"):
            _switch(encoding, options, style)


def _unified(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    """OpenRouter's object for all models: https://openrouter.ai/docs/use-cases/reasoning-tokens."""
    unified: Json = {}
    if options.HasField("effort"):
        unified["effort"] = options.effort
    if options.HasField("budget_tokens"):
        unified["max_tokens"] = options.budget_tokens
    if options.HasField("enabled"):
        unified["enabled"] = options.enabled
    if options.summary == "none":
        unified["exclude"] = True
    elif options.HasField("summary"):
        unified["summary"] = options.summary
    if unified:
        encoding.body["reasoning"] = unified


def _template_switch(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    if options.HasField("enabled"):
        switch = encoding.target.family.template_switch
        encoding.body["chat_template_kwargs"] = {switch: options.enabled}
    if options.HasField("budget_tokens"):
        _no_budget(encoding)


def _thinking_object(encoding: Encoding, options: chat_pb2.ReasoningOptions) -> None:
    if options.HasField("native_json"):
        return
    thinking: Json = {}
    if options.HasField("enabled"):
        thinking["type"] = "enabled" if options.enabled else "disabled"
    if options.HasField("budget_tokens"):
        thinking.setdefault("type", "enabled")
        thinking["budget_tokens"] = options.budget_tokens
    if thinking:
        encoding.body["thinking"] = thinking


def _budget(encoding: Encoding, options: chat_pb2.ReasoningOptions, style: str) -> None:
    if not options.HasField("budget_tokens") or options.HasField("native_json"):
        return
    if style == "enable_thinking":
        # https://www.alibabacloud.com/help/en/model-studio/deep-thinking
        encoding.body["thinking_budget"] = options.budget_tokens
    else:
        _no_budget(encoding)


def _no_budget(encoding: Encoding) -> None:
    model = encoding.target.model
    encoding.leave_out("reasoning.budget_tokens", f"{model!r} takes no thinking budget")


def _switch(encoding: Encoding, options: chat_pb2.ReasoningOptions, style: str) -> None:
    body, target = encoding.body, encoding.target
    if style == "enable_thinking":
        body["enable_thinking"] = options.enabled
    elif style == "effort" and "none" in target.family.efforts:
        # Their default is not to think (gpt-5.1 and later); an effort of the caller's own decides.
        body.setdefault("reasoning_effort", "medium" if options.enabled else "none")
    elif style == "think_directive":
        _append_directive(encoding, " /think" if options.enabled else " /no_think")
    elif not options.HasField("native_json"):
        hint = (
            "; send the model's own `thinking` object instead" if style == "native"
            else "; use reasoning_effort" if style == "effort"
            else ""
        )  # fmt: skip
        encoding.leave_out(
            "reasoning.enabled", f"{target.model!r} has no switch for thinking{hint}"
        )


def _append_directive(encoding: Encoding, directive: str) -> None:
    """Adds a text directive to the last user message, where the model looks for it."""
    for message in reversed(encoding.body.get("messages", [])):
        if message["role"] != "user":
            continue
        content = message["content"]
        if isinstance(content, str):
            message["content"] = content + directive
        else:
            content.append({"type": "text", "text": directive.strip()})
        return
    encoding.leave_out("reasoning.enabled", "there is no user message to carry the directive")
