"""The configuration: what is accepted, what is refused and how it is said."""

# ruff: noqa: E501  (tables of texts and messages, one case a line)

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headgate_server.config import (
    OVERRIDES,
    Config,
    ConfigError,
    KindInfo,
    TcpAddress,
    UnixAddress,
    apply_overrides,
    load_config,
    parse_address,
    parse_config,
    zero_config,
)
from headgate_server.config.schema import config_schema

ROOT = pathlib.Path(__file__).parents[2]
CANARY = "sk-canary-7f3a"
KINDS = {
    "openai": KindInfo(),
    "deepseek": KindInfo(needs_api_key=True, api_key_env="DEEPSEEK_API_KEY"),
    "azure": KindInfo(needs_base_url=True, needs_api_key=True),
    "ollama": KindInfo(needs_base_url=True),
    "local": KindInfo(),
    "headgate": KindInfo(needs_base_url=True),
    "anthropic": KindInfo(needs_api_key=True, available=False),
}
STRATEGIES = ("weighted", "priority", "least_busy", "affinity")


def parse(text: str | bytes, env: Mapping[str, str] | None = None, **options: object) -> Config:
    return parse_config(
        text, "f.yaml", kinds=KINDS, strategies=STRATEGIES, env=env or {}, options=options
    )


def problems(text: str, env: Mapping[str, str] | None = None, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, env, **options)
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    lines = str(error).split("\n")
    assert lines == [str(problem) for problem in error.problems]
    for line in lines:
        assert "Input should" not in line
        assert "pydantic" not in line
    return lines


# --- what is accepted ---------------------------------------------------------------------------


def test_the_file_of_the_contract() -> None:
    config = parse(
        """
listen: {grpc: 127.0.0.1:50051, rest: 127.0.0.1:8080}
auth: {mode: keys, keys: [{name: ci, key: "${CI_KEY}", models: ["*"]}]}
providers:
  openai:    {kind: openai, api_key: "${OPENAI_API_KEY}"}
  deepseek:  {kind: deepseek, api_key: "${DEEPSEEK_API_KEY:-abc}"}
  lab:       {kind: openai, base_url: http://10.0.0.5:8000/v1/}
models:
  gpt-5.4:   {targets: [{provider: openai}]}
  fast:
    strategy: weighted
    targets:
      - {provider: openai, model: gpt-5.4-mini, weight: 3}
      - {provider: deepseek, model: deepseek-chat, weight: 1}
    fallbacks: [gpt-5.4]
""",
        {"CI_KEY": "12345678", "OPENAI_API_KEY": "sk-1"},
    )
    fast = config.models["fast"]
    assert [(t.provider, t.model, t.weight) for t in fast.targets] == [
        ("openai", "gpt-5.4-mini", 3.0),
        ("deepseek", "deepseek-chat", 1.0),
    ]
    assert (fast.strategy, fast.fallbacks, fast.unsupported) == ("weighted", ("gpt-5.4",), "drop")
    assert config.models["gpt-5.4"].strategy == "priority"
    assert config.models["gpt-5.4"].targets[0].model is None
    assert config.providers["lab"].base_url == "http://10.0.0.5:8000/v1"
    assert config.auth.keys[0].key.get_secret_value() == "12345678"
    api_key = config.providers["deepseek"].api_key
    assert api_key is not None
    assert api_key.get_secret_value() == "abc"


def test_defaults() -> None:
    config = parse("log:\nmodels:\nproviders:\nlisten: {tls: null}\n")
    assert config == Config()
    assert (config.listen.grpc, config.listen.rest) == ("127.0.0.1:50051", "127.0.0.1:8080")
    timeouts = config.timeouts
    assert (timeouts.connect, timeouts.first_byte, timeouts.idle, timeouts.total) == (
        10,
        600,
        300,
        3600,
    )
    assert config.limits.message_bytes == config.limits.upstream_response_bytes == 64 * 2**20
    assert (config.limits.sse_line_bytes, config.facade.body_limit) == (16 * 2**20, 64 * 2**20)
    assert (config.drain, config.facade.ping_interval, config.log.level) == (30, 15, "warning")
    assert config.facade.reasoning_in_unary
    assert config.facade.cors is None


def test_the_configuration_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.drain = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.listen.grpc = ""  # type: ignore[misc]


def at(config: object, path: str) -> object:
    for step in path.split("."):
        config = config[step] if isinstance(config, Mapping) else getattr(config, step)
    return config


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("listen: {grpc: localhost:1}", "listen.grpc", "localhost:1"),
        ('listen: {grpc: "[::1]:0", rest: "[0:0::1]:0"}', "listen.rest", "[::1]:0"),
        ("listen: {grpc: unix:/run/h.sock}", "listen.grpc", "unix:/run/h.sock"),
        ("listen: {grpc: unix:///run/h.sock}", "listen.grpc", "unix:/run/h.sock"),
        ("listen: {grpc: 127.0.0.1:0, rest: 127.0.0.1:0}", "listen.rest", "127.0.0.1:0"),
        ("listen: {grpc: 0.0.0.0:5}\nauth: {insecure: yes}", "auth.insecure", True),
        ("auth: {insecure: off}", "auth.insecure", False),
        ('auth: {insecure: "${FLAG}"}', "auth.insecure", True),
        ("providers: {l: {kind: local, options: {slots: 1_0}}}", "providers.l.options.slots", 10),
        ('providers: {l: {kind: local, options: {slots: "${N}"}}}', "providers.l.options.slots", 4),
        ("providers: {4: {kind: openai, api_version: 2024-02-01}}", "providers.4.api_version", "2024-02-01"),
        ("providers: {l: {kind: openai, timeouts: {idle: 2m}}}", "providers.l.timeouts.idle", 120.0),
        ('providers: {l: {kind: openai, api_key: "${EMPTY:-}"}}', "providers.l.api_key", None),
        ("timeouts: {connect: 500ms}", "timeouts.connect", 0.5),
        ("timeouts: {connect: 1.5}", "timeouts.connect", 1.5),
        ("timeouts: {connect: 30s}", "timeouts.connect", 30.0),
        ("timeouts: {connect: 1h}", "timeouts.connect", 3600.0),
        ('timeouts: {connect: "${N}"}', "timeouts.connect", 4.0),
        ('timeouts: {connect: "${N}m"}', "timeouts.connect", 240.0),
        ("drain: 0", "drain", 0.0),
        ("facade: {body_limit: 64MiB}", "facade.body_limit", 64 * 2**20),
        ("facade: {body_limit: 10MB}", "facade.body_limit", 10**7),
        ("facade: {body_limit: 1.5kib}", "facade.body_limit", 1536),
        ("facade: {body_limit: 1_000}", "facade.body_limit", 1000),
        ("facade: {cors: {origins: ['*']}}", "facade.cors.origins", ("*",)),
        ("facade: {cors: {origins: [https://App.example.com:8443]}}", "facade.cors.origins", ("https://app.example.com:8443",)),
        ("log: {level: INFO, format: json}", "log.level", "info"),
    ],
)  # fmt: skip
def test_accepted_notations(text: str, path: str, value: object) -> None:
    assert at(parse(text, {"FLAG": "true", "N": "4"}), path) == value


def test_names_that_look_like_other_types_stay_names() -> None:
    config = parse(
        "providers: {on: {kind: openai}}\n"
        "models: {o3: {targets: [{provider: on, model: 4.10}]}, 4: {targets: [{provider: on}]}, "
        "null: {targets: [{provider: on}], fallbacks: [4, o3]}}"
    )
    assert list(config.models) == ["o3", "4", "null"]
    assert config.models["o3"].targets[0].model == "4.10"
    assert config.models["null"].fallbacks == ("4", "o3")


def test_addresses() -> None:
    assert parse_address("[::1]:5") == TcpAddress("::1", 5)
    assert parse_address("unix:/a b") == UnixAddress("/a b")
    loopback = ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "LOCALHOST:1", "unix:/a"]
    reachable = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1", "localhost.example.com:1"]
    assert all(parse_address(text).is_loopback for text in loopback)
    assert not any(parse_address(text).is_loopback for text in reachable)


# --- what is refused, field by field --------------------------------------------------------------

OPENAI = "providers: {openai: {kind: openai}, deepseek: {kind: deepseek, api_key: k}}\n"

REFUSED = [
    # addresses
    ("listen: {grpc: 8080}", "f.yaml:1:16: listen.grpc: expected HOST:PORT; a port alone is not enough: write 127.0.0.1:PORT; found \"8080\""),
    ("listen: {grpc: ':8080'}", "write 127.0.0.1:PORT for this machine only, or 0.0.0.0:PORT"),
    ("listen: {grpc: '*:8080'}", "write 127.0.0.1:PORT for this machine only, or 0.0.0.0:PORT"),
    ("listen: {grpc: localhost}", "expected HOST:PORT (such as 127.0.0.1:8080) or unix:/path"),
    ("listen: {grpc: http://h:1}", "without a scheme"),
    ("listen: {grpc: h:70000}", "a port from 0 to 65535"),
    ("listen: {grpc: h:x}", "a port from 0 to 65535"),
    ("listen: {grpc: 'h:\u0661'}", "a port from 0 to 65535"),
    ("listen: {grpc: '::1:80'}", "in brackets"),
    ("listen: {grpc: '[nope]:80'}", "an IPv6 address between the brackets"),
    ("listen: {grpc: 999.0.0.1:80}", "a valid IPv4 address"),
    ("listen: {grpc: 'a b:80'}", "a host name or an IP address"),
    ("listen: {grpc: unix:relative}", "unix:/path with an absolute path"),
    ("listen: {grpc: 'unix:'}", "unix:/path with an absolute path"),
    (f"listen: {{grpc: unix:/{'x' * 107}}}", "at most 107 bytes"),
    ("listen: {grpc: localhost:1, rest: localhost:1}", "listen.rest: the same address as listen.grpc"),
    ("listen: {tls: {cert_file: c}}", "f.yaml:1:10: listen.tls.key_file: this key is required"),
    # authentication
    ("listen: {grpc: 0.0.0.0:1}", 'f.yaml:1:16: listen.grpc: other machines can reach "0.0.0.0:1", but auth.mode is none'),
    ("listen: {rest: example.com:1}", 'listen.rest: other machines can reach "example.com:1"'),
    ("listen: {rest: '[::]:1'}\nauth: {mode: none, insecure: false}", "listen.rest: other machines"),
    ("auth: {mode: keys}", "auth.keys: mode keys needs at least one key"),
    ("auth: {keys: [{name: a, key: 12345678}]}", "auth.keys: keys have no effect with mode none"),
    ("auth: {clients: [{name: a}]}", "auth.clients: clients have no effect with mode none"),
    ("auth: {mode: mtls}", "auth.mode: mtls needs listen.tls"),
    ("auth: {mode: mtls}\nlisten: {tls: {cert_file: a, key_file: b}}", "client_ca_file"),
    ("auth: {mode: keys, keys: [{name: a, key: 1234567}]}", "auth.keys[0].key: expected a key of at least 8 characters; found 7"),
    ("auth: {mode: keys, keys: [{name: a, key: 12345678}, {name: a, key: 12345679}]}", "auth.keys[1].name: the same name as auth.keys[0]"),
    ("auth: {mode: keys, keys: [{name: a, key: 12345678}, {name: b, key: 12345678}]}", "auth.keys[1].key: the same key as auth.keys[0]"),
    ("auth: {mode: keys, keys: [{name: a, key: '1234 5678'}]}", "visible ASCII characters"),
    ("auth: {mode: keys, keys: [{name: a, key: 12345678, models: []}]}", 'write ["*"] for all'),
    ("auth: {mode: keys, keys: [{name: '', key: 12345678}]}", "auth.keys[0].name: expected a text that is not empty"),
    ("auth: {mode: key}", 'auth.mode: expected one of none, keys, mtls; found "key"; did you mean "keys"?'),
    ("auth: {insecure: maybe}", 'auth.insecure: expected true or false; found "maybe"'),
    # providers
    ("providers: {a/b: {kind: openai}}", "f.yaml:1:13: providers.a/b: expected a provider name"),
    ("providers: {-a: {kind: openai}}", "expected a provider name"),
    ("providers: {a: }", "providers.a: expected a mapping with the keys kind, base_url"),
    ("providers: {a: {}}", "f.yaml:1:13: providers.a.kind: this key is required"),
    ("providers: [a]", "providers: expected a mapping of names; found a list"),
    ("providers: {a: {kind: opnai}}", 'f.yaml:1:23: providers.a.kind: unknown provider kind "opnai"; did you mean "openai"? expected one of azure, deepseek, headgate, local, ollama, openai'),
    ("providers: {a: {kind: anthropic}}", 'the provider kind "anthropic" is planned but not available in this version; available: azure, deepseek, headgate, local'),
    ("providers: {a: {kind: ollama}}", "providers.a.base_url: kind ollama needs a base_url"),
    ("providers: {a: {kind: deepseek}}", 'f.yaml:1:13: providers.a.api_key: kind deepseek needs an api_key; usually api_key: "${DEEPSEEK_API_KEY}"'),
    ("providers: {a: {kind: deepseek, api_key: '${E:-}'}}", "(it comes out empty: E is empty or not set)"),
    ("providers: {a: {kind: openai, base_url: api.openai.com}}", "starts with http:// or https://"),
    ("providers: {a: {kind: openai, base_url: ftp://x}}", "starts with http:// or https://"),
    ("providers: {a: {kind: openai, base_url: 'http://'}}", "a URL with a host"),
    ("providers: {a: {kind: openai, base_url: 'http://h:x'}}", "a valid http:// or https:// URL"),
    ("providers: {a: {kind: openai, base_url: 'http://h/?q=1'}}", "without a query"),
    ("providers: {a: {kind: openai, base_url: 'http://h/#f'}}", "without a query (?...) or fragment"),
    ("providers: {a: {kind: openai, base_url: 'http://u:p@h/'}}", "without a user name or password"),
    ('providers: {a: {kind: openai, base_url: "http://h/\\n"}}', "without spaces, line breaks"),
    ("providers: {a: {kind: openai, headers: {'a b': c}}}", 'providers.a.headers["a b"]: expected a header name'),
    ("providers: {a: {kind: openai, headers: {Content-Length: c}}}", "belongs to the HTTP connection"),
    ('providers: {a: {kind: openai, headers: {a: "b\\r\\nc: d"}}}', "without line breaks"),
    ("providers: {a: {kind: openai, options: {slots: 1}}}", "options belong to kind local only"),
    ("providers: {a: {kind: local, base_url: http://h}}", "so base_url has no effect"),
    ("providers: {a: {kind: local, options: {slots: 0}}}", "options.slots: expected a whole number of at least 1; found \"0\""),
    ("providers: {a: {kind: local, options: {slots: 1.5}}}", 'options.slots: expected a whole number; found "1.5"'),
    # models
    (OPENAI + "models: {'a b': {targets: [{provider: openai}]}}", 'models["a b"]: expected a name without spaces'),
    (OPENAI + f"models: {{? {'x' * 257}\n: {{targets: [{{provider: openai}}]}}}}", "expected a name of 1 to 256 characters"),
    ("models: {a: {}}", "models.a.targets: this key is required"),
    ("models: {a: {targets: []}}", "models.a.targets: expected at least one entry; found an empty list"),
    ("models: {a: {targets: x}}", "models.a.targets: expected a list; found text"),
    ("models: {a: {targets: [x]}}", "models.a.targets[0]: expected a mapping with the keys provider, model, weight, price, concurrency; found text"),
    (OPENAI + "models: {a: {targets: [{provider: opnai}]}}", 'f.yaml:2:35: models.a.targets[0].provider: no provider "opnai"; did you mean "openai"? (declared: deepseek, openai)'),
    ("models: {a: {targets: [{provider: x}]}}", 'no provider "x" (declared: none)'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], fallbacks: [b]}, bb: {targets: [{provider: openai}]}}", 'models.a.fallbacks[0]: no model "b"; did you mean "bb"? (declared: a, bb)'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], fallbacks: [a]}}", "models.a.fallbacks[0]: a model cannot fall back to itself"),
    (OPENAI + "models: {a: &t {targets: [{provider: openai}], fallbacks: [b, b]}, b: {targets: [{provider: openai}]}}", "models.a.fallbacks[1]: this fallback is listed twice"),
    (OPENAI + "models: {a: {strategy: cost, targets: [{provider: openai}]}}", 'models.a.strategy: the strategy "cost" is planned but not available in this version; available: weighted, priority, least_busy, affinity'),
    (OPENAI + "models: {a: {strategy: wieghted, targets: [{provider: openai}]}}", 'did you mean "weighted"?'),
    (OPENAI + "models: {a: {targets: [{provider: openai, weight: -1}]}}", 'weight: expected a number of at least 0; found "-1"'),
    (OPENAI + "models: {a: {targets: [{provider: openai, weight: .nan}]}}", 'weight: expected a number; found ".nan"'),
    (OPENAI + "models: {a: {targets: [{provider: openai, weight: nan}]}}", 'weight: expected a number; found "nan"'),
    (OPENAI + "models: {a: {targets: [{provider: openai, weight: 0}]}}", "models.a.targets: every weight is 0"),
    (OPENAI + "models: {a: {targets: [{provider: openai}], unsupported: ignore}}", "expected one of strict, drop, pass"),
    (OPENAI + "models: {a: {targets: [{provider: openai}], catalog: {input: [txt]}}}", 'catalog.input[0]: expected one of text, image, audio, video, file; found "txt"; did you mean "text"?'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], catalog: {context_window: 0}}}", "a whole number of at least 1"),
    # names
    (OPENAI + "models: {a: &t {targets: [{provider: openai}], aliases: [b]}, b: {targets: [{provider: openai}]}}", 'models.a.aliases[0]: "b" is the name of another model; remove it'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], aliases: [a]}}", "models.a.aliases[0]: \"a\" is the model's own name"),
    (OPENAI + "models: {a: {targets: [{provider: openai}], aliases: [c]}, b: {targets: [{provider: openai}], aliases: [c]}}", 'models.b.aliases[0]: "c" stands at models.a.aliases[0], too; remove one'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], aliases: ['c-*', 'c-*']}}", 'aliases[1]: "c-*" stands at models.a.aliases[0], too'),
    (OPENAI + "models: {'a-*': {targets: [{provider: openai}], aliases: [c]}}", "models.a-*.aliases: a name with wildcards stands for many models"),
    (OPENAI + "models: {a: {targets: [{provider: openai, model: 'x-*'}]}}", 'targets[0].model: "x-*" has more * than the public name'),
    (OPENAI + "models: {'a*': {targets: [{provider: openai, model: '*-*'}]}}", '"*-*" has more * than the public name'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], fallbacks: ['b*']}, 'b*': {targets: [{provider: openai}]}}", 'fallbacks[0]: "b*" stands for many models; name one of them'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], on_context_window: [opnai/x]}}", 'models.a.on_context_window[0]: no model "opnai/x"'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], on_context_window: [b]}}", 'on_context_window[0]: no model "b" (declared: a)'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], on_content_policy: [a]}}", "on_content_policy[0]: a model cannot fall back to itself"),
    (OPENAI + "models: {a: {targets: [{provider: openai}], aliases: [b], on_content_policy: [b]}}", "on_content_policy[0]: a model cannot fall back to itself"),
    (OPENAI + "models: {a: {targets: [{provider: openai}], on_context_window: [openai/x, openai/x]}}", "on_context_window[1]: this fallback is listed twice"),
    # rules
    (OPENAI + "models: {abc: {targets: [{provider: openai}]}}\nroutes: [{use: abd}]", 'f.yaml:3:16: routes[0].use: no model "abd"; did you mean "abc"? (declared: abc)'),
    (OPENAI + "routes: [{shadow: other/x}]", 'routes[0].shadow: no model "other/x" (declared: none)'),
    (OPENAI + "routes: [{shadow: openai/}]", 'routes[0].shadow: no model "openai/"'),
    ("routes: [{when: {model: x}}]", "f.yaml:1:10: routes[0]: a rule needs use or shadow"),
    (OPENAI + "routes: [{use: openai/x, name: a}, {use: openai/x, name: a}]", "routes[1].name: the same name as routes[0]"),
    (OPENAI + "routes: [{use: openai/x, name: rule-2}, {use: openai/x}]", "routes[1].name: the same name as routes[0]"),
    (OPENAI + "routes: [{use: openai/x, when: {tokens: {min: 5, max: 4}}}]", 'routes[0].when.tokens.min: must not be above max; found "5"'),
    (OPENAI + "routes: [{use: openai/x, when: {model: []}}]", "routes[0].when.model: an empty list matches nothing"),
    (OPENAI + "routes: [{use: openai/x, when: {modality: txt}}]", "routes[0].when.modality[0]: expected one of text, image, audio, video, file"),
    (OPENAI + "routes: [{use: openai/x, when: {headers: {team: x}}}]", "a header that begins with x-"),
    (OPENAI + "routes: [{use: openai/x, share: 0}]", "routes[0].share: expected a share above 0, at most 1"),
    # settings that belong together
    (OPENAI + "models: {a: {targets: [{provider: openai}], affinity: {by: user}}}", "models.a.affinity: affinity has no effect with the strategy priority; set strategy: affinity"),
    (OPENAI + "models: {a: {strategy: affinity, targets: [{provider: openai}], affinity: {by: user, header: x-chat}}}", "models.a.affinity.header: header has no effect with by: user; set by: session"),
    (OPENAI + "models: {a: {strategy: affinity, targets: [{provider: openai}], affinity: {by: session, prefix: 9}}}", "models.a.affinity.prefix: prefix has no effect with by: session"),
    (OPENAI + "models: {a: {targets: [{provider: openai}], hedge: {after: 20}, timeouts: {first_token: 20}}}", 'models.a.hedge.after: "20" is not shorter than the model\'s timeouts.first_token'),
    (OPENAI + "models: {a: {targets: [{provider: openai}], hedge: {after: 20}, timeouts: {total: 10}}}", "timeouts.total"),
    ("concurrency: {min: 5, max: 4}", 'concurrency.min: must not be above max; found "5"'),
    ("concurrency: {adaptive: true, limit: 5, max: 4}", 'concurrency.limit: expected a number from min to max, since adaptive begins with it; found "5"'),
    ("providers: {a: {kind: openai, concurrency: {adaptive: true, limit: 1, min: 4}}}", "providers.a.concurrency.limit: expected a number from min"),
    (OPENAI + "models: {a: {targets: [{provider: openai, concurrency: {min: 5, max: 4}}]}}", "targets[0].concurrency.min: must not be above max"),
    ("breaker: {open_for: 5m}", 'breaker.open_for: must not be longer than max_open; found "5m"'),
    ("cache: {max_bytes: 1KiB}", "cache.max_entry_bytes: must not be more than max_bytes"),
    # several keys
    ("providers: {a: {kind: deepseek, api_key: x, api_keys: [{key: y}]}}", "providers.a.api_keys: give either api_key or api_keys"),
    ("providers: {a: {kind: azure, base_url: http://h, bearer_token: x, api_keys: [{key: y}]}}", "api_keys have no effect beside a bearer_token"),
    ("providers: {a: {kind: deepseek, api_keys: [{key: x, weight: 0}, {key: y, weight: 0}]}}", "providers.a.api_keys: every weight is 0"),
    ("providers: {a: {kind: deepseek, api_keys: [{key: x}, {key: x}]}}", "providers.a.api_keys[1].key: the same key as api_keys[0]"),
    ("providers: {a: {kind: deepseek, api_keys: [{key: x, name: n}, {key: y, name: n}]}}", "providers.a.api_keys[1].name: the same name as api_keys[0]"),
    ("providers: {a: {kind: deepseek, api_keys: [{key: x, name: key-2}, {key: y}]}}", "providers.a.api_keys[1].name: the same name as api_keys[0]"),
    ("providers: {a: {kind: deepseek, api_keys: [{key: ''}]}}", "providers.a.api_keys[0].key: expected a secret"),
    ("providers: {a: {kind: deepseek, api_keys: []}}", "providers.a.api_key: kind deepseek needs an api_key"),
    ("providers: {a: {kind: headgate, base_url: http://h:1, api_keys: [{key: x}]}}", "so there can be only one; write it as api_key"),
    ("providers: {a: {kind: local, api_keys: [{key: x}]}}", "so api_keys has no effect"),
    # numbers
    ("timeouts: {idle: 5 minutes}", 'timeouts.idle: expected a duration: seconds as a number, or text such as 500ms, 30s, 5m or 1h; found "5 minutes"'),
    ("timeouts: {idle: 0}", "timeouts.idle: expected a duration longer than zero"),
    ("timeouts: {idle: -1}", "expected a duration"),
    ("timeouts: {idle: inf}", "expected a duration"),
    (f"timeouts: {{idle: {'9' * 400}}}", "at most 365 days"),
    ("drain: 366000h", "at most 365 days"),
    ("facade: {body_limit: 64M}", "facade.body_limit: expected a size"),
    ("facade: {body_limit: 0}", "at least 1 byte and less than 2 GiB"),
    ("facade: {body_limit: 2GiB}", "at least 1 byte and less than 2 GiB"),
    (f"facade: {{body_limit: {'9' * 400}}}", "at least 1 byte and less than 2 GiB"),
    ("facade: {body_limit: 1.5}", "expected a size"),
    ("facade: {cors: {origins: ['*'], allow_credentials: true}}", "facade.cors.origins: browsers refuse"),
    ("facade: {cors: {origins: [https://a.example/path]}}", 'facade.cors.origins[0]: expected "*" or an origin'),
    ("facade: {cors: {origins: [app.example]}}", 'expected "*" or an origin'),
    # shapes
    ("log: {level: loud}", "log.level: expected one of debug, info, warning, error"),
    ("log: [x]", "log: expected a mapping with the keys level, format; found a list"),
    ("log: {level: [x]}", "log.level: expected one of debug"),
    ("modles: {}", 'f.yaml:1:1: modles: unknown key; did you mean "models"? allowed: listen, auth, providers'),
    ("listen:\n  gprc: x", 'f.yaml:2:3: listen.gprc: unknown key; did you mean "grpc"? allowed: grpc, rest, tls'),
    ("listen: {zzz: }", "listen.zzz: unknown key; allowed: grpc, rest, tls"),
    ("timeouts: {idle: 1}\ntimeouts: {total: 1}", "f.yaml:2:1: timeouts: this key is written twice"),
    ('log: {level: "\\ud800"}', "log.level: expected"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[text[-60:] for text, _ in REFUSED])
def test_refused(text: str, expected: str) -> None:
    (line,) = problems(text)
    assert expected in line


def test_every_problem_is_reported_in_the_order_of_the_file() -> None:
    lines = problems(
        """
listen: {grpc: 0.0.0.0:1, rest: "${NOWHERE}"}
auth: {mode: none}
providers:
  openai: {kind: openai, base_ulr: x}
  claude: {kind: anthropic}
models:
  fast:
    strategy: cheap
    targets: [{provider: opnai}, {provider: openai, weight: heavy}]
    fallbacks: [slow]
  slwo: {targets: [{provider: openai}, {provider: gone}]}
limits: {message_bytes: many}
drain: soon
extra: 1
"""
    )
    assert [line.split(": ")[1] for line in lines] == [
        "listen.rest",
        "providers.openai.base_ulr",
        "providers.claude.kind",
        "models.fast.strategy",
        "models.fast.targets[0].provider",
        "models.fast.targets[1].weight",
        "models.fast.fallbacks[0]",
        "models.slwo.targets[1].provider",
        "limits.message_bytes",
        "drain",
        "extra",
    ]


def test_models_may_fall_back_to_each_other() -> None:
    config = parse(
        OPENAI + "models: {a: {targets: [{provider: openai}], fallbacks: [b]}, "
        "b: {targets: [{provider: openai}], fallbacks: [a]}}"
    )
    assert config.models["b"].fallbacks == ("a",)


def test_what_a_fallback_and_a_rule_may_name() -> None:
    config = parse(
        OPENAI
        + """
models:
  a: {targets: [{provider: openai}], aliases: [nick, "old-*"]}
  g-*: {targets: [{provider: openai, model: "x-*"}]}
  b:
    targets: [{provider: openai}]
    fallbacks: [a, openai/x/y]
    on_context_window: [nick, g-1]
    on_content_policy: [old-1]
routes:
  - {when: {model: a, tenant: t, headers: {X-Team: [x, y]}}, use: nick, shadow: g-2}
  - {when: {modality: image, tokens: {min: 5, max: 5}}, shadow: deepseek/x}
concurrency: {adaptive: false, limit: 5000}
"""
    )
    when = config.routes[0].when
    assert (when.model, when.tenant, when.headers) == (("a",), ("t",), {"x-team": ("x", "y")})
    assert config.routes[1].when.modality == ("image",)


def test_rules_and_broken_models_are_checked_in_one_run() -> None:
    lines = problems(
        """
providers: {p: {kind: openai}}
models:
  a: {targets: [{provider: p, weight: heavy}], aliases: [nick], fallbacks: [gone]}
  b: {targets: [{provider: p}], aliases: [a]}
routes:
  - {use: nick, share: 2}
  - {use: nobody}
  - {when: {model: [x]}}
"""
    )
    assert [line.split(": ")[1] for line in lines] == [
        "models.a.targets[0].weight",
        "models.a.fallbacks[0]",
        "models.b.aliases[0]",
        "routes[0].share",
        "routes[1].use",
        "routes[2]",
    ]


@pytest.mark.parametrize(
    ("provider", "accepted"),
    [
        ("kind: deepseek", False),
        ("kind: deepseek, base_url: http://10.0.0.5/v1", True),
        ("kind: deepseek, headers: {Authorization: Bearer x}", True),
        ("kind: deepseek, headers: {x-team: y}", False),
        ("kind: azure, base_url: http://10.0.0.5/v1", False),
        ("kind: azure, base_url: http://10.0.0.5/v1, headers: {api-key: x}", True),
        ("kind: deepseek, api_keys: [{key: x}]", True),
    ],
)
def test_when_a_key_is_needed(provider: str, *, accepted: bool) -> None:
    text = f"providers: {{a: {{{provider}}}}}"
    if accepted:
        assert parse(text).providers["a"].api_key is None
    else:
        (line,) = problems(text)
        assert "needs an api_key; usually" in line


# --- secrets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"auth: {{mode: keys, keys: [{{name: ci, {CANARY}}}]}}",
        f"auth: {{mode: keys, keys: [{CANARY}]}}",
        f"auth: {{mode: keys, keys: {CANARY}}}",
        f"auth: {{mode: keys, keys: [{{name: ci, key: ['{CANARY}']}}]}}",
        f"auth: {{mode: keys, keys: [{{name: ci, key: {{'{CANARY}': x}}}}]}}",
        f"auth: {{mode: keys, keys: [{{name: ci, key: '{CANARY} x'}}]}}",
        f"auth: {{mode: keys, keys: [{{name: a, key: {CANARY}}}, {{name: b, key: {CANARY}}}]}}",
        f"providers: {{a: {{kind: openai, api_key: ['{CANARY}']}}}}",
        f"providers: {{a: {{kind: openai, api_key: '{CANARY}ü'}}}}",
        f"providers: {{a: {{kind: nothing, api_key: '{CANARY}'}}}}",
        f"providers: {{a: {{kind: openai, base_url: 'http://u:{CANARY}@h'}}}}",
        f"providers: {{a: {{kind: openai, base_url: '{CANARY}'}}}}",
        f"providers: {{a: {{kind: openai, headers: {{x: '{CANARY} '}}}}}}",
        f"providers: {{a: {{kind: openai, headers: {{x: [{CANARY}]}}}}}}",
        f"providers: {{a: {{kind: openai, headers: {CANARY}}}}}",
        f"providers: {{a: {CANARY}}}",
        f"providers: {{a: {{kind: openai, api_keys: [{{key: {CANARY}}}, {{key: {CANARY}}}]}}}}",
        f"providers: {{a: {{kind: openai, api_keys: [{CANARY}]}}}}",
        f"providers: {{a: {{kind: openai, api_keys: {CANARY}}}}}",
        "models: {a: {targets: [{provider: x}], aliases: ['${S}', '${S}'], on_context_window: ['${S}']}}",
        "routes: [{use: '${S}', shadow: '${S}', name: '${S}'}, {use: '${S}', name: '${S}'}]",
        "providers: {a: {kind: '${S}'}}",
        "listen: {grpc: '${S}', rest: '${S}:${S}'}",
        "auth: {mode: '${S}', insecure: '${S}'}",
        "timeouts: {idle: '${S}'}\nfacade: {body_limit: '${S}', cors: {origins: ['${S}']}}",
        "models: {a: {targets: [{provider: '${S}', weight: '${S}', model: '${S} x'}]}}",
        "models: {a: {targets: [{provider: '${S}'}], fallbacks: ['${S}'], strategy: '${S}'}}",
        "log: {level: '${S}', format: '${S}'}\ndrain: '${S}'",
        "log: '${S}'",
    ],
)
def test_no_secret_is_ever_printed(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, {"S": CANARY})
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)
    assert CANARY not in repr(caught.value.problems)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_configuration_does_not_show_its_secrets() -> None:
    config = parse(
        f"auth: {{mode: keys, keys: [{{name: ci, key: {CANARY}}}]}}\n"
        f"providers: {{a: {{kind: openai, api_key: {CANARY}, headers: {{x: {CANARY}}}}}}}"
    )
    for text in (repr(config), str(config), config.model_dump_json(), repr(config.model_dump())):
        assert CANARY not in text
    assert config.providers["a"].headers["x"].get_secret_value() == CANARY


# --- files, options and variables -------------------------------------------------------------------


def test_a_file_is_loaded_and_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "headgate.yaml"
    path.write_text("listen:\n  gprc: x\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, kinds=KINDS, strategies=STRATEGIES, env={})
    assert str(caught.value).startswith(f"{path}:2:3: listen.gprc: unknown key")
    path.write_text("drain: 5")
    assert load_config(path, kinds=KINDS, strategies=STRATEGIES, env={}).drain == 5


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0.yaml"])
def test_a_file_that_cannot_be_read(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(f"{tmp_path}/{name}", kinds=KINDS, strategies=STRATEGIES, env={})
    (problem,) = caught.value.problems
    assert problem.line is None
    assert "cannot read the configuration file: " in str(problem)


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_TEST_DRAIN", "7")
    text = "drain: ${HEADGATE_TEST_DRAIN}"
    assert parse_config(text, "f", kinds=KINDS, strategies=STRATEGIES).drain == 7


def test_options_win_over_variables_which_win_over_the_file() -> None:
    text = "listen: {grpc: localhost:1, rest: localhost:2}\nlog: {level: error}"
    env = {"HEADGATE_GRPC": "localhost:3", "HEADGATE_REST": "localhost:4", "HEADGATE_LOG_LEVEL": ""}
    config = parse(text, env, grpc="localhost:5", rest=None)
    assert (config.listen.grpc, config.listen.rest) == ("localhost:5", "localhost:4")
    assert config.log.level == "error"


def test_an_override_can_mend_the_file() -> None:
    assert parse("listen: {grpc: 0.0.0.0:1}", insecure=True).auth.insecure
    assert parse("listen: {grpc: 0.0.0.0:1}", {"HEADGATE_INSECURE": "1"}).auth.insecure
    assert parse("listen: {grpc: '${NO}'}", grpc="localhost:1").listen.grpc == "localhost:1"
    assert parse("listen:\nlog: null", grpc="localhost:1").listen.grpc == "localhost:1"


@pytest.mark.parametrize(
    ("env", "options", "expected"),
    [
        ({"HEADGATE_GRPC": "0.0.0.0:1"}, {}, "HEADGATE_GRPC: listen.grpc: other machines"),
        ({}, {"rest": "0.0.0.0:1"}, '--rest: listen.rest: other machines can reach "0.0.0.0:1"'),
        ({}, {"rest": ":1"}, "--rest: listen.rest: expected HOST:PORT"),
        ({"HEADGATE_INSECURE": "si"}, {}, "HEADGATE_INSECURE: auth.insecure: expected true or false"),
        ({"HEADGATE_LOG_LEVEL": "x"}, {}, "HEADGATE_LOG_LEVEL: log.level: expected one of debug"),
        ({}, {"log_level": "loud"}, '--log-level: log.level: expected one of debug'),
    ],
)  # fmt: skip
def test_a_problem_of_an_override_names_it(
    env: dict[str, str], options: dict[str, object], expected: str
) -> None:
    (line,) = problems("log: {format: json}", env, **options)
    assert line.startswith(expected)
    with pytest.raises(ConfigError) as caught:
        apply_overrides(Config(), options, env=env)
    assert str(caught.value).startswith(expected)


def test_overrides_keep_everything_else() -> None:
    config = parse(OPENAI + "models: {a: {targets: [{provider: openai}]}}\ndrain: 3")
    assert apply_overrides(config, {}, env={}) == config
    changed = apply_overrides(config, {"log_level": "DEBUG"}, env={"HEADGATE_REST": "unix:/r"})
    assert (changed.log.level, changed.listen.rest, changed.drain) == ("debug", "unix:/r", 3)
    assert changed.providers == config.providers
    assert changed.models == config.models


def test_an_unknown_option_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="gprc"):
        apply_overrides(Config(), {"gprc": "x"}, env={})
    assert [setting.flag for setting in OVERRIDES] == [
        "--grpc",
        "--rest",
        "--log-level",
        "--insecure",
    ]


# --- zero configuration -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Vendor:
    api_key_env: tuple[str, ...]
    base_url: str | None = "https://api.example.com"


VENDORS = {
    "openai": Vendor(("OPENAI_API_KEY",)),
    "gemini": Vendor(("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "groq": Vendor(("GROQ_API_KEY",)),
    "azure": Vendor(("AZURE_OPENAI_API_KEY",), base_url=None),
    "vllm": Vendor(()),
}


def test_zero_configuration_takes_the_vendors_whose_variable_is_set() -> None:
    env = {"GOOGLE_API_KEY": CANARY, "GROQ_API_KEY": "g", "OPENAI_API_KEY": ""}
    env["AZURE_OPENAI_API_KEY"] = "no address, no provider"
    config = zero_config(env, VENDORS, local_available=False)
    assert {name: p.kind for name, p in config.providers.items()} == {
        "gemini": "gemini",
        "groq": "groq",
    }
    key = config.providers["gemini"].api_key
    assert key is not None
    assert key.get_secret_value() == CANARY
    assert config.models == {}
    assert CANARY not in repr(config)


def test_zero_configuration_has_the_local_model() -> None:
    config = zero_config({}, VENDORS, local_available=True)
    assert config.providers["local"].kind == "local"
    assert [t.provider for t in config.models["smollm2-135m-instruct"].targets] == ["local"]
    assert zero_config({}, VENDORS, local_available=False) == Config()


def test_zero_configuration_names_a_variable_that_holds_no_key() -> None:
    with pytest.raises(ConfigError) as caught:
        zero_config({"OPENAI_API_KEY": f"{CANARY}\n"}, VENDORS, local_available=True)
    assert str(caught.value).startswith(
        "OPENAI_API_KEY: providers.openai.api_key: expected a secret"
    )
    assert CANARY not in str(caught.value)


# --- schema and example -----------------------------------------------------------------------------


def test_the_published_schema_is_fresh() -> None:
    published = json.loads((ROOT / "docs/headgate.schema.json").read_text(encoding="utf-8"))
    assert published == config_schema(), (
        "run: python -m headgate_server.config.schema > docs/headgate.schema.json"
    )


def test_every_setting_is_described() -> None:
    schema = config_schema()
    for name, definition in {"Config": schema, **schema["$defs"]}.items():
        assert definition.get("description"), name
        for key, setting in definition["properties"].items():
            # A description that equals its section's own stands there only.
            sections = [choice["$ref"] for choice in setting.get("anyOf", ()) if "$ref" in choice]
            assert setting.get("description") or sections, f"{name}.{key}"


def test_the_schema_agrees_with_the_loader() -> None:
    validator = jsonschema_rs.validator_for(config_schema())
    example = yaml.safe_load((ROOT / "examples/headgate.yaml").read_text(encoding="utf-8"))
    assert list(validator.iter_errors(example)) == []
    good: list[Any] = [
        {"drain": "${D}", "limits": {"message_bytes": "${N:-5}MiB"}},
        {"auth": {"insecure": "${I}", "mode": "${M}"}, "log": None},
        {"timeouts": {"idle": "5m", "connect": 3}},
        {"models": {"a": {"targets": [{"provider": "p", "weight": "${W}"}], "catalog": None}}},
        {"routes": [{"when": {"model": "a", "modality": "image", "tools": True}, "use": "b"}]},
        {"routes": [{"when": {"model": ["a"], "headers": {"x-a": "b", "x-c": ["d"]}}, "use": "b"}]},
    ]
    bad: list[Any] = [
        {"modles": {}},
        {"drain": "soon"},
        {"models": {"a": {}}},
        {"models": {"a": {"targets": []}}},
        {"auth": {"mode": "key"}},
        {"limits": {"message_bytes": "lots"}},
        {"routes": [{"when": {"model": 5}}]},
        {"routes": [{"when": {"modality": "txt"}}]},
        [],
    ]
    assert all(validator.is_valid(value) for value in good)
    assert not any(validator.is_valid(value) for value in bad)


def test_the_schema_can_list_the_kinds() -> None:
    validator = jsonschema_rs.validator_for(config_schema(KINDS))
    assert validator.is_valid({"providers": {"a": {"kind": "openai"}}})
    assert validator.is_valid({"providers": {"a": {"kind": "${KIND}"}}})
    assert not validator.is_valid({"providers": {"a": {"kind": "opnai"}}})


def test_the_example_loads_without_any_variable() -> None:
    config = load_config(
        ROOT / "examples/headgate.yaml", kinds=KINDS, strategies=STRATEGIES, env={}
    )
    assert set(config.models) == {"gpt-5.4", "fast", "sessions", "smollm2-135m-instruct"}
    assert config.timeouts.total == 3600


# --- anything at all --------------------------------------------------------------------------------

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["none", "keys", "openai", "local", "0.0.0.0:1", "${X}", "${S}", "1h", "64MiB"]
    )
)
_KNOWN_KEYS = (
    "listen grpc rest tls cert_file auth mode insecure keys name key models clients providers kind "
    "base_url api_key headers timeouts idle options slots openai fast targets provider weight "
    "fallbacks strategy catalog input routes when use shadow share aliases api_keys affinity hedge after "
    "on_context_window concurrency min max limit adaptive tokens headers metadata tools facade cors origins limits drain log level"
)
_KEYS = st.sampled_from(_KNOWN_KEYS.split()) | st.text(max_size=6)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=25,
)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _TREES, max_size=8))
def test_any_tree_is_accepted_or_refused(tree: dict[str, Any]) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    try:
        config = parse(text, {"S": CANARY})
    except ConfigError as error:
        assert error.problems
        assert CANARY not in str(error)
        assert all("\n" not in str(problem) for problem in error.problems)
    else:
        assert isinstance(config, Config)
        assert apply_overrides(config, {}, env={}) == config


@given(st.text())
def test_any_text_is_accepted_or_refused(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert error.problems


@given(st.text(max_size=30))
def test_any_address_is_read_back_as_itself(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
