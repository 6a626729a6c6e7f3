"""The commands that look at things: `models`, `check-config`, `doctor`; and what a terminal may see."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from fakes.gateway import KEY, Gateway, config_for
from fakes.upstream import Exchange, FakeUpstream, answer, error, hang, html, redirect
from headgate.cli.banner import print_banner
from headgate.cli.check_config import served_certificate
from headgate.cli.doctor import examine
from headgate.cli.doctor.check import Check
from headgate.cli.models import address, clean, explain
from headgate.errors import Overloaded, RateLimited
from headgate_server.config import parse_config
from headgate_server.providers import kinds
from headgate_server.routing import STRATEGIES

SECRET = "upstream-secret-key"


@dataclass
class Outcome:
    code: int
    out: str
    err: str


async def run(*arguments: str, env: dict[str, str] | None = None, within: float = 30) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headgate.cli",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


# -- what a terminal may see ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("red \x1b[31mtext\x1b[0m", "red [31mtext[0m"),
        ("title \x1b]0;owned\x07", "title ]0;owned"),
        ("C1 \x9b31m and \x9d0;x\x9c", "C1 31m and 0;x"),
        ("bell\x07 back\x08 null\x00 delete\x7f", "bell back null delete"),
        ("over\rwrite", "overwrite"),
        ("two\r\nlines\tand tab", "two\nlines\tand tab"),
        ("日本語 é 👩‍👩‍👧", "日本語 é 👩‍👩‍👧"),
    ],
)
def test_control_characters_never_pass(text: str, shown: str) -> None:
    assert clean(text, lines=True) == shown
    assert "\n" not in clean(text)


def test_messages_are_one_line() -> None:
    told = explain(RateLimited("slow\ndown\x1b[2J", retry_after=7.4), "127.0.0.1:1")
    assert told == "slow down[2J. Try again in 7 s."
    assert "Try again later" in explain(Overloaded("busy"), "127.0.0.1:1")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("gateway:9000", "gateway:9000"),
        ("gateway", "gateway:50051"),
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("[::]:7", "[::1]:7"),
        ("[::1]", "[::1]:50051"),
        (":7", "127.0.0.1:7"),
        ("unix:/run/headgate.sock", "unix:/run/headgate.sock"),
        ("dns:///gateway:9000", "dns:///gateway:9000"),
    ],
)
def test_addresses_are_completed(written: str, meant: str) -> None:
    assert address(written) == meant


def test_a_url_is_no_address() -> None:
    with pytest.raises(SystemExit, match="without a scheme"):
        address("http://127.0.0.1:8080")


async def test_chat_and_models_need_only_the_client() -> None:
    code = """
import sys
for name in ("headgate_server", "headgate_facade", "httpx", "pydantic", "yaml", "aiohttp", "msgspec"):
    sys.modules[name] = None
import headgate.cli.commands, headgate.cli.chat, headgate.cli.models
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await asyncio.wait_for(process.wait(), 30) == 0


# -- models ---------------------------------------------------------------------------------------


async def test_models_are_listed_whole_and_plain_for_programs() -> None:
    names = [f"model-{number:04}-with-a-long-name-{'x' * 120}" for number in range(1100)]
    models = "\n".join(f"  {name}: {{targets: [{{provider: up}}]}}" for name in names)
    config = (
        f'providers:\n  up: {{kind: openai, base_url: "http://127.0.0.1:1"}}\nmodels:\n{models}'
    )
    async with Gateway(config) as gateway:
        plain, as_json = await asyncio.gather(
            run("models", "--target", gateway.grpc_address),
            run("models", "--json", env={"HEADGATE_TARGET": gateway.grpc_address}),
        )
    assert (plain.code, plain.err) == (0, "")
    rows = [line.split("\t") for line in plain.out.splitlines()]
    assert [row[0] for row in rows] == names
    assert {len(row) for row in rows} == {5}
    assert {row[1] for row in rows} == {"up"}
    assert [model["id"] for model in json.loads(as_json.out)] == names


async def test_models_says_why_it_cannot() -> None:
    auth = f'auth: {{mode: keys, keys: [{{name: t, key: "{KEY}"}}]}}'
    async with Gateway(config_for("http://127.0.0.1:1", extra=auth)) as gateway:
        refused = await run("models", "--target", gateway.grpc_address)
        allowed = await run("models", "--target", gateway.grpc_address, "--key", KEY)
        rest = await run("models", "--target", gateway.rest_url.removeprefix("http://"))
    assert (refused.code, refused.out) == (1, "")
    assert "HEADGATE_API_KEY" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert (allowed.code, allowed.out.split("\t")[:2]) == (0, ["m", "up"])
    assert rest.code == 1
    assert "not the REST port" in rest.err


# -- check-config ---------------------------------------------------------------------------------


async def test_check_config_good(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(config_for("http://127.0.0.1:1/v1"))
    found = await run("check-config", "--config", str(file))
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith(f"{file} is valid: 1 provider, 1 model, gRPC 127.0.0.1:50051")
    assert SECRET not in found.out


async def test_check_config_counts_routing_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    rules = "routes: [{use: m, share: 0.5}, {when: {tools: true}, shadow: m}]"
    file.write_text(config_for("http://127.0.0.1:1/v1", extra=rules))
    found = await run("check-config", "--config", str(file))
    assert (found.code, found.err) == (0, "")
    assert "1 model, 2 routing rules, gRPC" in found.out


async def test_check_config_bad(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("listen: {grpc: nonsense}\nmodles: {}\nproviders: {a: {kind: opnai}}\n")
    found = await run("check-config", "-c", str(file))
    assert (found.code, found.out) == (1, "")
    lines = found.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{file}:") for line in lines)
    assert any("models" in line for line in lines)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
async def test_check_config_of_what_is_no_file(tmp_path: Path, name: str) -> None:
    found = await run("check-config", "--config", str(tmp_path / name))
    assert (found.code, found.out) == (1, "")
    assert len(found.err.splitlines()) == 1
    assert "cannot read the configuration file" in found.err


async def test_check_config_wants_a_file_and_prints_the_schema() -> None:
    without, schema = await asyncio.gather(run("check-config"), run("check-config", "--schema"))
    assert (without.code, without.out) == (1, "")
    assert "--config" in without.err
    assert schema.code == 0
    assert "providers" in json.loads(schema.out)["properties"]


def test_the_first_command_asks_for_a_model_that_has_a_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = config_for("http://127.0.0.1:1/v1") + '  "any-*": {targets: [{provider: up}]}\n'
    config = parse_config(text, "f", kinds=kinds(), strategies=STRATEGIES, env={})
    print_banner(config, {"grpc": "127.0.0.1:1", "rest": "127.0.0.1:2"})
    shown = capsys.readouterr().out
    assert "Models: m, any-*" in shown
    assert '"model": "m"' in shown


# -- doctor ---------------------------------------------------------------------------------------

LISTEN = "listen: {grpc: '127.0.0.1:0', rest: '127.0.0.1:0'}\n"


async def checks_of(tmp_path: Path, text: str) -> dict[str, Check]:
    file = tmp_path / "headgate.yaml"
    file.write_text(text)
    async with asyncio.timeout(20):
        checks = await examine(file, {})
    assert SECRET not in repr(checks)
    return {check.name: check for check in checks}


async def test_doctor_of_a_healthy_provider(tmp_path: Path) -> None:
    async with FakeUpstream() as up:
        up.script(answer({"data": [{"id": "a"}, {"id": "b"}]}), error(401))
        found = await checks_of(tmp_path, config_for(up.base_url, extra=LISTEN))
        first, second = up.requests
    assert {check.state for check in found.values()} <= {"ok", "warn"}
    assert found["provider up"].state == "ok"
    assert "key accepted, 2 models" in found["provider up"].finding
    assert first.path == second.path == "/v1/models"
    assert first.headers["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in second.headers


@pytest.mark.parametrize(
    ("step", "state", "finding"),
    [
        (answer({"data": []}), "ok", "key not tested (the list is public)"),
        (error(401, f"bad key {SECRET}"), "fail", "the key is refused (401)"),
        (error(403), "fail", "the key is refused (403)"),
        (error(404), "warn", "cannot list models (404)"),
        (error(429), "warn", "limits us"),
        (error(503), "warn", "failing (503)"),
        (html(200, "Welcome"), "warn", "not with a list of models"),
    ],
)
async def test_doctor_of_answers(tmp_path: Path, step: object, state: str, finding: str) -> None:
    async with FakeUpstream() as up:
        up.default(step)  # type: ignore[arg-type]
        found = await checks_of(tmp_path, config_for(up.base_url, extra=LISTEN))
    assert found["provider up"].state == state
    assert finding in found["provider up"].finding


async def test_doctor_looks_at_each_key(tmp_path: Path) -> None:
    async def listed(exchange: Exchange) -> None:
        key = exchange.record.headers.get("authorization", "").removeprefix("Bearer ")
        await (answer({"data": [{"id": "a"}]}) if key == SECRET else error(401))(exchange)

    config = config_for("BASE", extra=LISTEN).replace(
        f'api_key: "{SECRET}"', f'api_keys: [{{key: "{SECRET}"}}, {{key: "{SECRET}-2", name: old}}]'
    )
    async with FakeUpstream() as up:
        up.default(listed)
        found = await checks_of(tmp_path, config.replace("BASE", up.base_url))
    assert "key accepted, 1 models" in found["provider up, key key-1"].finding
    assert found["provider up, key key-1"].state == "ok"
    assert "the key is refused" in found["provider up, key old"].finding
    assert found["provider up, key old"].state == "fail"
    assert "provider up" not in found


@pytest.mark.parametrize(
    ("kind", "path", "header"),
    [
        ("anthropic", "/v1/models", ("x-api-key", SECRET)),
        ("gemini", "/v1beta/models", ("x-goog-api-key", SECRET)),
        ("cohere", "/v1/models", ("authorization", f"Bearer {SECRET}")),
        ("ollama", "/api/tags", ("authorization", f"Bearer {SECRET}")),
    ],
)
async def test_doctor_knows_where_each_vendor_lists_its_models(
    tmp_path: Path, kind: str, path: str, header: tuple[str, str]
) -> None:
    async with FakeUpstream() as up:
        up.script(answer({"models": [{"name": "a"}]}), error(401))
        config = config_for(up.origin, extra=LISTEN).replace("kind: openai", f"kind: {kind}")
        found = await checks_of(tmp_path, config)
    assert "key accepted, 1 models" in found["provider up"].finding
    assert up.requests[0].path == path
    assert up.requests[0].headers[header[0]] == header[1]
    assert ("anthropic-version" in up.requests[0].headers) is (kind == "anthropic")


async def test_doctor_of_another_gateway(tmp_path: Path) -> None:
    async with FakeUpstream() as up, Gateway(config_for(up.base_url)) as behind:
        config = config_for(f"http://{behind.grpc_address}", extra=LISTEN)
        found = await checks_of(tmp_path, config.replace("kind: openai", "kind: headgate"))
    assert "reachable, 1 models" in found["provider up"].finding
    config = config_for("http://127.0.0.1:1", extra=LISTEN)
    found = await checks_of(tmp_path, config.replace("kind: openai", "kind: headgate"))
    assert found["provider up"].state == "fail"


async def test_doctor_never_follows_a_redirect(tmp_path: Path) -> None:
    async with FakeUpstream() as up, FakeUpstream() as trap:
        up.default(redirect(f"{trap.base_url}/models?token={SECRET}"))
        found = await checks_of(tmp_path, config_for(up.base_url, extra=LISTEN))
        assert not trap.connections
        assert len(up.requests) == 1
    assert found["provider up"].state == "fail"
    assert "redirects (307)" in found["provider up"].finding


async def test_doctor_tells_kinds_of_unreachable_apart_and_looks_at_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.cli.doctor.providers._ANSWER_SECONDS", 1.0)
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    async with FakeUpstream() as silent, FakeUpstream(tls=server) as strange:
        silent.default(hang())
        began = asyncio.get_running_loop().time()
        found = await checks_of(
            tmp_path,
            f"""{LISTEN}
providers:
  refused: {{kind: openai, base_url: "http://127.0.0.1:{closed}/v1"}}
  silent: {{kind: openai, base_url: "{silent.base_url}"}}
  silent2: {{kind: openai, base_url: "{silent.base_url}"}}
  strange: {{kind: openai, base_url: "{strange.base_url}"}}
  plain: {{kind: openai, base_url: "https://127.0.0.1:{silent.port}/v1"}}
  nowhere: {{kind: openai, base_url: "http://nowhere.invalid/v1"}}
""",
        )
        assert asyncio.get_running_loop().time() - began < 10
    providers = {name.split()[-1]: c for name, c in found.items() if name.startswith("provider")}
    assert {check.state for check in providers.values()} == {"fail"}
    assert "the connection is refused" in providers["refused"].finding
    assert "no answer in time" in providers["silent"].finding
    assert "self-signed" in providers["strange"].finding or "issuer" in providers["strange"].finding
    assert "TLS failed" in providers["plain"].finding or "in time" in providers["plain"].finding
    assert all(check.advice for check in providers.values())


async def test_doctor_of_a_broken_configuration(tmp_path: Path) -> None:
    found = await checks_of(tmp_path, "modles: {}\n")
    assert found["configuration"].state == "fail"
    assert 'did you mean "models"' in found["configuration"].finding


async def test_doctor_of_addresses(tmp_path: Path) -> None:
    stranger = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    taken = stranger.sockets[0].getsockname()[1]
    async with stranger, Gateway(config_for("http://127.0.0.1:1")) as gateway:
        rest = gateway.rest_url.removeprefix("http://")
        running = f"listen: {{grpc: '{gateway.grpc_address}', rest: '{rest}'}}"
        healthy = await checks_of(tmp_path, running)
        foreign = await checks_of(
            tmp_path, f"listen: {{grpc: '127.0.0.1:{taken}', rest: 'unix:{tmp_path}/no/where'}}"
        )
        swapped = await checks_of(
            tmp_path, f"listen: {{grpc: '{rest}', rest: '{gateway.grpc_address}'}}"
        )
        mtls = f"{running[:-1]}, tls: {{cert_file: c, key_file: k, client_ca_file: a}}}}"
        guarded = await checks_of(tmp_path, mtls)
        gateway.app.core.drain()
        draining = await checks_of(tmp_path, running)
    for name in ("listen.grpc", "listen.rest"):
        assert healthy[name].state == "ok"
        assert "running and ready" in healthy[name].finding
        assert swapped[name].state == "fail"
    assert foreign["listen.grpc"].state == "fail"
    assert "no Headgate answers there" in foreign["listen.grpc"].finding
    assert foreign["listen.rest"].state == "fail"
    assert guarded["listen.grpc"].state == "warn"
    assert draining["listen.rest"].state == "warn"
    assert "not ready" in draining["listen.rest"].finding


async def test_doctor_of_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    now = datetime.now(UTC)
    for name, after in (("good", 90), ("soon", 5), ("late", -1)):
        issued = authority.issue_cert(
            "localhost", not_before=now - timedelta(200), not_after=now + timedelta(after)
        )
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")

    async def check(cert: str, key: str) -> Check:
        tls = f"{{cert_file: '{tmp_path / cert}', key_file: '{tmp_path / key}'}}"
        text = f"listen: {{grpc: '127.0.0.1:0', rest: '127.0.0.1:0', tls: {tls}}}"
        return (await checks_of(tmp_path, text))["certificate"]

    good, soon = await check("good.pem", "good.key"), await check("soon.pem", "soon.key")
    assert (good.state, soon.state) == ("ok", "warn")
    assert "days" in good.finding
    late, other = await check("late.pem", "late.key"), await check("good.pem", "soon.key")
    assert (late.state, other.state) == ("fail", "fail")
    assert "expired" in late.finding
    assert "another certificate" in other.advice
    assert (await check("missing.pem", "good.key")).state == "fail"
    assert (await check("good.key", "good.key")).state == "fail"
    assert served_certificate(str(tmp_path / "good.pem"), str(tmp_path / "good.key"))["notAfter"]


async def test_doctor_of_a_local_model_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("headgate.cli.doctor.configuration._free_memory", lambda: 1 << 20)
    text = LISTEN + "providers: {local: {kind: local}, own: {kind: local, options: {weights: /no}}}"
    file = tmp_path / "headgate.yaml"
    file.write_text(text)
    checks = await examine(file, {})
    found = [(c.name, c.state, c.finding) for c in checks if c.name.startswith("provider")]
    assert ("provider own", "fail") in [(name, state) for name, state, _ in found]
    assert any("MiB of memory" in finding for _, _, finding in found)
    assert not (tmp_path / "cache").exists()


async def test_doctor_without_keys_as_json_and_its_exit_codes(tmp_path: Path) -> None:
    listen = ("--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0")
    async with FakeUpstream() as up:
        up.default(error(401))
        file = tmp_path / "headgate.yaml"
        file.write_text(config_for(up.base_url))
        bare, refused = await asyncio.gather(
            run("doctor", "--json", *listen),
            run("doctor", *listen, env={"HEADGATE_CONFIG": str(file)}),
        )
    report = json.loads(bare.out)
    assert bare.code == (0 if report["ok"] else 1) == 0
    assert {"name", "state", "finding", "advice"} == set(report["checks"][0])
    assert refused.code == 1
    assert "FAIL  provider up" in refused.out
    assert "-> Renew" in refused.out
    assert "\x1b" not in refused.out
    assert SECRET not in refused.out + refused.err
