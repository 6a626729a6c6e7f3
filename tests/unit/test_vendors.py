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
    "qwen3-omni": "qwen3-omni-flash",
    "qwen3-vl": "Qwen/Qwen3-VL-235B-A22B-Instruct",
    "qwen3-coder": "qwen3-coder-plus",
    "qwen3.x-max": "qwen3.6-max-preview",
    "qwen3.x-hosted": "qwen3.6-plus",
    "qwen3.x": "qwen3.6-27b",
    "qwen3": "qwen3:8b",
    "qwen-hybrid": "qwen-plus",
    "qwen-vl": "qwen-vl-max",
    "qwq": "qwq-plus",
    "deepseek-v4": "deepseek-v4-flash",
    "deepseek-reasoner": "deepseek-ai/DeepSeek-R1",
    "deepseek": "deepseek-chat",
    "glm-vision": "glm-4.5v",
    "glm-4.5": "glm-4.5-air",
    "glm-4.6": "glm-5.1",
    "glm": "glm-4-plus",
    "kimi-k2.5": "kimi-k2.6",
    "kimi-k2": "moonshotai/Kimi-K2-Instruct",
    "kimi": "moonshot-v1-8k",
    "minimax-m2": "MiniMax-M2.5",
    "minimax": "MiniMax-M3",
    "grok-non-reasoning": "grok-4.20-0309-non-reasoning",
    "grok": "grok-4.3",
    "claude-adaptive": "claude-opus-4-7",
    "claude-opus-4.6": "us.anthropic.claude-opus-4-6-v1:0",
    "claude-sonnet-4.6": "claude-sonnet-4-6",
    "claude-4.5": "claude-haiku-4-5-20251001",
    "claude-opus-4": "claude-opus-4-1-20250805",
    "claude": "claude-3-5-sonnet-20241022",
    "gemini-image": "gemini-2.5-flash-image",
    "gemini-2.0": "gemini-2.0-flash",
    "gemini": "gemini-2.5-pro",
    "pixtral": "pixtral-large-latest",
    "magistral": "magistral-medium-latest",
    "mistral-text": "mistral-nemo",
    "mistral": "mistral-large-latest",
    "llama-4": "meta-llama/llama-4-scout-17b-16e-instruct",
    "llama-3.2-vision": "llama-3.2-90b-vision-preview",
    "llama-3": "Meta-Llama-3.3-70B-Instruct",
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
    assert family.thinking != "effort" or family.efforts
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
