"""The data files of vendors and model families, and their loader."""

import ipaddress
from urllib.parse import urlsplit

import pytest

from headgate_server.providers.vendors import (
    UNKNOWN_FAMILY,
    Family,
    families,
    family_of,
    parse_families,
    parse_vendors,
    vendors,
)

# One name per family that must land there, and nowhere before.
EXAMPLES = {
    "o1": "o1-2024-12-17",
    "o3-mini": "o3-mini",
    "o3": "o4-mini",
    "gpt-5-chat": "gpt-5-chat-latest",
    "gpt-5-codex": "gpt-5.2-codex",
    "gpt-5-pro": "gpt-5.4-pro",
    "gpt-5.4": "gpt-5.4",
    "gpt-5.1": "gpt-5.4-mini",
    "gpt-5.x": "gpt-5.5",
    "gpt-5": "gpt-5-nano",
    "gpt-audio": "gpt-4o-audio-preview",
    "gpt-4o": "gpt-4o-mini",
    "gpt-4.1": "gpt-4.1-nano",
    "gpt-4-turbo": "gpt-4-turbo",
    "gpt-3.5": "gpt-3.5-turbo",
    "gpt-oss": "openai/gpt-oss-120b",
    "qwen3-thinking": "Qwen/Qwen3-235B-A22B-Thinking-2507",
    "qwen3-vl-thinking": "Qwen/Qwen3-VL-235B-A22B-Thinking",
    "qwen3-omni": "qwen3-omni-flash",
    "qwen3-vl": "Qwen/Qwen3-VL-235B-A22B-Instruct",
    "qwen3-coder": "qwen3-coder-plus",
    "qwen3.x-max": "qwen3.6-max-preview",
    "qwen3.x-hosted": "qwen3.6-plus",
    "qwen3.x": "qwen3.6-27b",
    "qwen3": "qwen3:8b",
    "qwen-hybrid": "qwen-plus",
    "qwen-vl": "qwen-vl-max",
    "qwq-preview": "Qwen/QwQ-32B-Preview",
    "qwq": "qwq-plus",
    "deepseek-v4": "deepseek-v4-flash",
    "deepseek-r1-0528": "deepseek-ai/DeepSeek-R1-0528",
    "deepseek-reasoner": "deepseek-ai/DeepSeek-R1",
    "deepseek-v3.1": "deepseek-ai/DeepSeek-V3.1",
    "deepseek": "deepseek-chat",
    "glm-vision": "glm-4.5v",
    "glm-4.5": "glm-4.5-air",
    "glm-z1": "THUDM/GLM-Z1-32B-0414",
    "glm-4.6": "zai-org/GLM-4.6",
    "glm-5": "glm-5.1",
    "glm": "glm-4-plus",
    "kimi-k2.5": "kimi-k2.6",
    "kimi-k2-thinking": "moonshotai/Kimi-K2-Thinking",
    "kimi-k2": "moonshotai/Kimi-K2-Instruct",
    "kimi": "moonshot-v1-8k",
    "minimax-m2": "MiniMax-M2.5",
    "minimax-m1": "MiniMaxAI/MiniMax-M1-80k",
    "minimax": "MiniMax-M3",
    "grok-non-reasoning": "grok-4.20-0309-non-reasoning",
    "grok": "grok-4.3",
    "claude-always-thinking": "claude-fable-5-1",
    "claude-mythos-preview": "claude-mythos-preview",
    "claude-sonnet-5.5": "anthropic.claude-sonnet-5-5",
    "claude-5": "claude-haiku-5-5",
    "claude-adaptive": "claude-opus-4-7",
    "claude-opus-4.6": "us.anthropic.claude-opus-4-6-v1:0",
    "claude-sonnet-4.6": "claude-sonnet-4-6",
    "claude-opus-4.5": "claude-opus-4-5-20251101",
    "claude-4.5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4": "claude-sonnet-4-20250514",
    "claude-opus-4": "claude-opus-4-1-20250805",
    "claude-3.7": "claude-3-7-sonnet-latest",
    "claude-3": "claude-3-5-sonnet-20241022",
    "claude": "claude-opus-6",
    "gemini-3-image": "gemini-3-pro-image-preview",
    "gemini-tts": "gemini-2.5-flash-preview-tts",
    "gemini-image": "gemini-2.5-flash-image",
    "gemini-2.0": "gemini-2.0-flash",
    "gemini-2.5-pro": "gemini-2.5-pro",
    "gemini-2.5-flash": "gemini-2.5-flash-lite",
    "gemini-3-pro": "gemini-3-pro-preview",
    "gemini-3.x-pro": "gemini-3.7-flash",
    "gemini-3-flash-lite": "gemini-3.1-flash-lite",
    "gemini-3-flash": "gemini-3.5-flash",
    "gemini-3": "gemini-flash-latest",
    "gemma-4": "gemma-4-31b-it",
    "pixtral": "pixtral-large-latest",
    "magistral-2506": "mistralai/Magistral-Small-2506",
    "magistral": "magistral-medium-latest",
    "mistral-text": "mistral-nemo",
    "mistral": "mistral-large-latest",
    "llama-4": "meta-llama/llama-4-scout-17b-16e-instruct",
    "llama-3.2-vision": "llama-3.2-90b-vision-preview",
    "llama-3": "Meta-Llama-3.3-70B-Instruct",
    "smollm3": "HuggingFaceTB/SmolLM3-3B",
    "phi-4-reasoning": "microsoft/Phi-4-reasoning-plus",
    "seed-oss": "ByteDance-Seed/Seed-OSS-36B-Instruct",
    "command-a-vision": "command-a-vision-07-2025",
    "command-a-reasoning": "command-a-reasoning-08-2025",
    "command-a-plus": "command-a-plus-05-2026",
    "command-a": "command-a-03-2025",
    "command-r": "cohere.command-r-plus-v1:0",
    "nova-2": "us.amazon.nova-2-lite-v1:0",
    "nova-micro": "amazon.nova-micro-v1:0",
    "nova": "eu.amazon.nova-pro-v1:0",
    "titan-text": "amazon.titan-text-premier-v1:0",
    "jamba": "ai21.jamba-1-5-large-v1:0",
    "doubao-seed": "doubao-seed-1-6-251015",
    "smollm2": "SmolLM2-135M-Instruct",
    "sonar": "sonar-pro",
}

VENDOR = """
[acme]
name = "Acme"
api_key_env = ["ACME_API_KEY"]
docs = "https://acme.example/docs"
"""
FAMILY = """
[[family]]
name = "anvil"
match = ["anvil-*"]
"""

# What a caller may tune by an OpenAI name: a misspelt one in the data would never be dropped.
TUNING = {
    "temperature",
    "top_p",
    "top_k",
    "n",
    "stop",
    "seed",
    "user",
    "store",
    "metadata",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "parallel_tool_calls",
    "service_tier",
    "prediction",
    "suffix",
    "echo",
    "best_of",
}


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def test_there_are_enough_vendors_in_alphabetical_order() -> None:
    assert len(vendors()) >= 28
    assert list(vendors()) == sorted(vendors())


@pytest.mark.parametrize("kind", vendors())
def test_a_vendor_is_complete(kind: str) -> None:
    vendor = vendors()[kind]
    assert vendor.name
    assert urlsplit(vendor.docs).scheme == "https" or kind == "headgate"
    assert set(vendor.unsupported) <= TUNING
    assert all(glob == glob.lower() for glob in vendor.models)
    if vendor.base_url is None:
        assert kind in ("azure", "headgate")
        return
    url = urlsplit(vendor.base_url)
    assert url.hostname
    assert not url.query
    assert not vendor.base_url.endswith("/")
    if is_loopback(url.hostname):
        assert vendor.auth == "none"
        assert vendor.api_key_env == ()
    else:
        assert url.scheme == "https"
        assert vendor.auth != "none"
        assert vendor.api_key_env or vendor.auth in ("aws", "google")


def test_no_two_vendors_share_a_key_variable() -> None:
    names = [
        name
        for kind, vendor in vendors().items()
        for name in vendor.api_key_env
        if kind != "openai_responses"  # OpenAI's other API
    ]
    assert len(names) == len(set(names))


def test_a_model_has_one_home() -> None:
    homes: dict[str, list[str]] = {}
    for kind, vendor in vendors().items():
        for glob in vendor.models:
            homes.setdefault(glob, []).append(kind)
    # Z.AI and Zhipu are one company with two sets of keys.
    assert {g: k for g, k in homes.items() if len(k) > 1} == {"glm-*": ["zai", "zhipu"]}


def test_known_quirks() -> None:
    assert vendors()["azure"].auth == "api-key"
    assert vendors()["openai"].auth == "bearer"
    assert vendors()["mistral"].max_tokens_field == "max_tokens"
    assert vendors()["mistral"].stream_usage is False
    assert vendors()["deepseek"].developer_role is False
    assert vendors()["deepseek"].base_url == "https://api.deepseek.com"
    assert vendors()["groq"].reasoning_field == "none"
    assert vendors()["cerebras"].reasoning_field == "reasoning"
    assert vendors()["minimax"].reasoning_field == "think_tags"
    assert vendors()["openrouter"].reasoning_details
    assert vendors()["vllm"].template_kwargs
    assert not vendors()["openai"].native_thinking


def test_text_completions() -> None:
    for kind in ("openai", "azure", "vllm", "sglang", "llamacpp", "together", "openrouter"):
        assert vendors()[kind].completions is True
    assert vendors()["deepseek"].completions == "/beta/completions"
    for kind in ("groq", "mistral", "moonshot", "perplexity"):
        assert not vendors()[kind].completions


@pytest.mark.parametrize(
    ("model", "tags", "prefilled"),
    [
        ("deepseek-ai/DeepSeek-R1", "<think>", "always"),
        ("DeepSeek-R1-Distill-Llama-70B", "<think>", "always"),
        ("DeepSeek-R1-0528", "<think>", "never"),
        ("deepseek-v4-flash", "<think>", "never"),
        ("QwQ-32B", "<think>", "always"),
        ("QwQ-32B-Preview", None, "never"),
        ("qwen3:8b", "<think>", "never"),
        ("Qwen3-4B-Thinking-2507", "<think>", "always"),
        ("Qwen3.5-27B", "<think>", "if_asked"),
        ("MiniMax-M2.1", "<think>", "always"),
        ("GLM-4.5-Air", "<think>", "never"),
        ("GLM-4.7", "<think>", "if_asked"),
        ("magistral-small-2509", "[THINK]", "never"),
        ("gpt-4o", None, "never"),
        ("llama-3.3-70b-instruct", None, "never"),
    ],
)
def test_thinking_in_the_text(model: str, tags: str | None, prefilled: str) -> None:
    family = family_of(model)
    assert (family.think_tags[0] if family.think_tags else None) == tags
    assert family.think_prefilled == prefilled


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("qwen3.6-plus", "enable_thinking"),
        ("qwen3.5-27b", "enable_thinking"),
        ("qwen3-235b-a22b", "enable_thinking"),
        ("deepseek-v4-flash", "think_directive"),
        ("deepseek-v4-pro", "think_directive"),
        ("glm-4.5", "thinking_object"),
        ("glm-4.6", "thinking_object"),
        ("glm-5.2", "thinking_object"),
        ("kimi-k2", "native"),
        ("kimi-k2.5", "native"),
        ("minimax-m2", "native"),
        ("MiniMax-M3", "native"),
        ("llama-3.3-70b-versatile", "native"),
        ("o3", "effort"),
        ("o4-mini", "effort"),
        ("gpt-5", "effort"),
        ("gpt-5.4", "effort"),
        ("gpt-4o", "native"),
        ("something-else", "native"),
    ],
)
def test_thinking(model: str, thinking: str) -> None:
    assert family_of(model).thinking == thinking


def test_only_the_last_part_of_the_name_counts_in_any_case() -> None:
    assert family_of("qwen/DeepSeek-V4-Flash:free").name == "deepseek-v4"
    assert family_of("accounts/fireworks/models/GLM-4.6").name == "glm-4.6"
    assert family_of("qwen3/unheard-of") is UNKNOWN_FAMILY
    assert family_of("") is UNKNOWN_FAMILY


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-4.5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-4.5"),
        ("us-gov.anthropic.claude-3-7-sonnet-20250219-v1:0", "claude-3.7"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/"
            "eu.anthropic.claude-opus-4-6-v1",
            "claude-opus-4.6",
        ),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-20250514-v1:0",
            "claude-opus-4",
        ),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123", ""),
        ("meta.llama3-3-70b-instruct-v1:0", "llama-3"),
        ("us.meta.llama4-scout-17b-instruct-v1:0", "llama-4"),
        ("openai.gpt-oss-120b-1:0", "gpt-oss"),
        ("qwen.qwen3-coder-30b-a3b-v1:0", "qwen3-coder"),
        ("us.deepseek.v3-v1:0", "deepseek"),
        ("moonshotai.kimi-k2.5", "kimi-k2.5"),
        ("mistral.mistral-large-2402-v1:0", "mistral"),
        # No maker: what stands before the dot belongs to the name.
        ("llama3.2-vision:11b", "llama-3.2-vision"),
        ("qwen3.6-plus", "qwen3.x-hosted"),
    ],
)
def test_bedrock_s_names_with_maker_and_geography(model: str, family: str) -> None:
    assert family_of(model).name == family


def test_nothing_is_claimed_of_an_unknown_model() -> None:
    assert UNKNOWN_FAMILY.name == ""
    assert UNKNOWN_FAMILY.refuses == ()
    assert UNKNOWN_FAMILY.input == ()
    assert UNKNOWN_FAMILY.tools is None


def test_reasoning_models_of_openai() -> None:
    for model in ("o1", "o3-mini", "o4-mini", "gpt-5", "gpt-5-mini", "gpt-5.4", "gpt-5.5"):
        assert family_of(model).max_tokens_field == "max_completion_tokens"
    assert "temperature" in family_of("gpt-5-mini").refuses
    assert "temperature" not in family_of("gpt-5.4").refuses
    assert "temperature" not in family_of("gpt-5-chat-latest").refuses
    assert family_of("gpt-5").efforts[0] == "minimal"
    assert family_of("gpt-5.4").efforts[0] == "none"


@pytest.mark.parametrize(
    ("model", "sees"),
    [
        ("gpt-4o", True),
        ("gpt-4.1-mini", True),
        ("gpt-5.4", True),
        ("claude-sonnet-4-6", True),
        ("gemini-2.5-flash", True),
        ("glm-4.5v", True),
        ("qwen3.6-plus", True),
        ("llama-4-maverick-17b-128e-instruct", True),
        ("glm-4.5", False),
        ("kimi-k2-thinking", False),
        ("deepseek-v4-pro", False),
        ("llama-3.1-8b-instant", False),
        ("smollm2:135m", False),
    ],
)
def test_which_models_see(model: str, sees: bool) -> None:
    assert "text" in family_of(model).input
    assert ("image" in family_of(model).input) is sees


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_every_family_is_reachable(family: Family) -> None:
    assert family_of(EXAMPLES[family.name]) is family


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_a_family_is_consistent(family: Family) -> None:
    assert family.match
    assert all(glob == glob.lower() and "/" not in glob for glob in family.match)
    assert set(family.refuses) <= TUNING
    assert set(family.refuses_while_thinking) <= TUNING - set(family.refuses)
    assert family.thinking != "effort" or family.efforts
    assert family.think_tags or family.think_prefilled == "never"
    for limit in (family.context_window, family.max_output_tokens):
        assert limit is None or limit > 0


def test_the_examples_have_no_leftovers() -> None:
    assert set(EXAMPLES) == {family.name for family in families()}


def test_results_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        vendors()["acme"] = vendors()["openai"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        vendors()["openai"].name = "Acme"  # type: ignore[misc]
    assert vendors() is vendors()


def test_defaults() -> None:
    acme = parse_vendors(VENDOR)["acme"]
    assert acme.base_url is None
    assert acme.auth == "bearer"
    assert acme.max_tokens_field == "as_sent"
    assert acme.reasoning_field == "reasoning_content"
    assert acme.developer_role
    assert acme.stream_usage
    assert acme.thinking is None
    assert acme.query == {}
    (anvil,) = parse_families(FAMILY)
    assert anvil.thinking == "native"
    assert anvil.max_tokens_field == "as_sent"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bse_url = 'https://acme.example'", "bse_url"),
        ("auth = 'basic'", "auth"),
        ("stream_usage = 'no'", "stream_usage"),
        ("models = 'acme-*'", "models"),
        ("unsupported = [1]", "unsupported"),
        ("thinking = 'deep'", "thinking"),
    ],
)
def test_a_bad_vendor_is_refused_by_name(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^vendors\.toml: \[acme\]: ") as caught:
        parse_vendors(VENDOR + line)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mtach = ['x']", "mtach"),
        ("thinking = 'deep'", "thinking"),
        ("input = ['smell']", "input"),
        ("context_window = '128k'", "context_window"),
    ],
)
def test_a_bad_family_is_refused_by_name(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^families\.toml: \[\[family\]\] anvil: ") as caught:
        parse_families(FAMILY + line)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FAMILY + FAMILY, "anvil: name is used twice"),
        ("[[familly]]\nname = 'x'", "familly"),
        ("[family]\nname = 'x'", "[family]"),
        ("family = [1]", "number 1"),
        ("[[family]]\nmatch = ['x']", "name"),
        ("[[family]", "line 1"),
    ],
)
def test_a_malformed_families_file_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^families\.toml: ") as caught:
        parse_families(text)
    assert said in str(caught.value)


def test_a_malformed_vendors_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^vendors\.toml: .*line 1"):
        parse_vendors("[acme\nname = 1")
    with pytest.raises(ValueError, match=r"^vendors\.toml: \[acme\]: "):
        parse_vendors("acme = 1")
    with pytest.raises(ValueError, match=r"^vendors\.toml: \[acme\]: .*name"):
        parse_vendors(VENDOR.replace("name", "# name"))
