"""`doctor`: what is configured, what is reachable, and what to do about what is not.

Each check is a function that returns `Check`s and changes nothing: no download, no request that costs
money, no file written. Providers are asked for their list of models, as they would be by the data plane:
without a proxy, and never following a redirect. No check's text ever holds a key.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import socket
import ssl
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from headgate.cli.check_config import served_certificate
from headgate.cli.models import all_models, clean, connect, from_transport
from headgate.client import Tls as ClientTls
from headgate.errors import GatewayError

if TYPE_CHECKING:
    import httpx

    from headgate_server.config import Address, Config, Provider, Tls
    from headgate_server.providers.vendors import Vendor

State = Literal["ok", "warn", "fail"]

# Import name -> package, of what `headgate serve` needs.
_NEEDED = {
    "fastapi": "fastapi",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "httpx": "httpx",
    "msgspec": "msgspec",
    "google.protobuf": "protobuf",
    "pydantic": "pydantic",
    "uvicorn": "uvicorn",
    "yaml": "pyyaml",
}
_FAST = {"uvloop": "uvloop", "httptools": "httptools"}
_CONNECT_SECONDS, _ANSWER_SECONDS, _PROVIDER_SECONDS = 4.0, 6.0, 12.0
_PROBE_SECONDS = 3.0
_MAX_LIST_BYTES = 8 * 2**20
_EXPIRY_WARNING_DAYS = 21
_ENOUGH_FILES = 4096
# Measured: the engine and its buffers, beside the weights.
_ENGINE_BYTES = 300 * 2**20
_MARKS: Mapping[State, tuple[str, str]] = {
    "ok": ("ok  ", "\x1b[32m"),
    "warn": ("warn", "\x1b[33m"),
    "fail": ("FAIL", "\x1b[31m"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found, and what to do about it (empty if nothing)."""

    name: str
    state: State
    finding: str
    advice: str = ""


def run(path: Path | None, options: Mapping[str, object], *, as_json: bool) -> None:
    """Runs all checks and prints them; exits 1 if one failed."""
    try:
        checks = asyncio.run(examine(path, options))
    except KeyboardInterrupt:
        sys.exit(130)
    failed = sum(check.state == "fail" for check in checks)
    if as_json:
        report = {"ok": not failed, "checks": [asdict(check) for check in checks]}
        print(json.dumps(report, indent=2))  # noqa: T201
    else:
        _print(checks)
    sys.exit(1 if failed else 0)


async def examine(path: Path | None, options: Mapping[str, object]) -> list[Check]:
    """All checks, in the order in which people read them."""
    checks = [*_versions(), *_files_limit()]
    if any(check.state == "fail" for check in checks):
        return checks
    from headgate.cli.loading import configuration
    from headgate_server.config import ConfigError

    try:
        config = configuration(path, options)
    except ConfigError as error:
        advice = "Correct it; `headgate check-config` checks the file alone."
        return [*checks, *(Check("configuration", "fail", str(p), advice) for p in error.problems)]
    checks.append(_described(path, config))
    checks.extend(_proxies(config))
    checks.extend(_certificates(config.listen.tls))
    found = await asyncio.gather(
        *(
            _provider(name, provider, config)
            for name, provider in config.providers.items()
            if provider.kind != "local"
        ),
        asyncio.to_thread(lambda: list(_local(config))),
        _listener("grpc", config),
        _listener("rest", config),
    )
    return [*checks, *(check for group in found for check in group)]


def _print(checks: list[Check]) -> None:
    watched = sys.stdout.isatty()
    colours = watched and "NO_COLOR" not in os.environ
    indent = " " * (max(len(check.name) for check in checks) + 8)
    columns = shutil.get_terminal_size().columns if watched else sys.maxsize

    def folded(text: str) -> str:
        return textwrap.fill(
            clean(text),
            columns,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    lines: list[str] = []
    for check in checks:
        mark, colour = _MARKS[check.state]
        shown = f"{colour}{mark}\x1b[0m" if colours else mark
        head = f"{mark}  {check.name}".ljust(len(indent))
        lines.append(shown + head[len(mark) :] + folded(check.finding).lstrip())
        if check.advice:
            lines.append(folded(f"-> {check.advice}"))
    counts = {state: sum(c.state == state for c in checks) for state in _MARKS}
    lines.append(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed.")
    print("\n".join(lines))  # noqa: T201


# -- the installation ---------------------------------------------------------------------------


def _versions() -> Iterator[Check]:
    version = platform.python_version()
    yield Check("python", "ok", f"{version} on {platform.system()} {platform.machine()}")
    missing = [package for module, package in _NEEDED.items() if not _installed(module)]
    if missing:
        finding = f"not installed: {', '.join(missing)}"
        yield Check("packages", "fail", finding, "pip install 'headgate[all]'")
    else:
        names = ("headgate", "grpcio", "protobuf", "fastapi", "uvicorn", "pydantic")
        yield Check("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in names))
    slow = [package for module, package in _FAST.items() if not _installed(module)]
    if slow:
        finding = f"not installed: {', '.join(slow)}; everything works, but slower"
        yield Check("speed", "warn", finding, f"pip install {' '.join(slow)}")
    else:
        yield Check("speed", "ok", ", ".join(f"{name} {_version(name)}" for name in _FAST))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"


def _files_limit() -> Iterator[Check]:
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _ENOUGH_FILES:
        yield Check("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"{soft}")
        return
    # A call holds two sockets: the caller's and the upstream's.
    finding = f"limited to {soft}: about {max(soft - 50, 0) // 2} calls at the same time"
    most = "" if hard == resource.RLIM_INFINITY else f" (at most {hard} here)"
    advice = f"Fine for development; otherwise raise it{most} with `ulimit -n 65536`."
    yield Check("open files", "warn", finding, advice)


# -- the configuration --------------------------------------------------------------------------


def _described(path: Path | None, config: Config) -> Check:
    source = str(path) if path else "no file; from the environment"
    providers = ", ".join(f"{name} ({p.kind})" for name, p in config.providers.items())
    models = list(config.models)
    shown = ", ".join(models[:10]) + (", ..." if len(models) > 10 else "")
    finding = f"{source}: providers {providers or 'none'}; models {shown or 'none'}"
    if not config.providers:
        advice = (
            "Set a provider's key, such as OPENAI_API_KEY, or pip install 'headgate[local]' "
            "for the embedded model."
        )
        return Check("configuration", "warn", finding, advice)
    return Check("configuration", "ok", finding)


def _proxies(config: Config) -> Iterator[Check]:
    names = [name for name in ("https_proxy", "http_proxy", "all_proxy") if _environment(name)]
    if names and any(provider.kind != "local" for provider in config.providers.values()):
        finding = f"{', '.join(names)} is set, but the gateway calls its providers directly"
        yield Check("proxy", "warn", finding, "Providers must be reachable without the proxy.")


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def _certificates(tls: Tls | None) -> Iterator[Check]:
    if tls is None:
        return
    name = "certificate"
    try:
        facts = served_certificate(tls.cert_file, tls.key_file)
        if tls.client_ca_file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(tls.client_ca_file)
    except ssl.SSLCertVerificationError as error:
        finding = f"{tls.cert_file}: {error.verify_message}"
        yield Check(name, "fail", finding, "Clients will refuse it: renew it.")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        files = ", ".join(filter(None, (tls.cert_file, tls.key_file, tls.client_ca_file)))
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        advice = "All must be readable PEM files, and the key that of the certificate."
        if reason == "KEY_VALUES_MISMATCH":
            advice = "The key belongs to another certificate."
        yield Check(name, "fail", f"{files}: {reason}", advice)
    else:
        expires = str(facts.get("notAfter", ""))
        days = (ssl.cert_time_to_seconds(expires) - time.time()) / 86_400
        finding = f"{tls.cert_file}: valid until {expires}, {days:.0f} days"
        late = days < _EXPIRY_WARNING_DAYS
        yield Check(name, "warn" if late else "ok", finding, "Renew it soon." if late else "")


# -- the providers ------------------------------------------------------------------------------


async def _provider(name: str, settings: Provider, config: Config) -> list[Check]:
    import httpx

    from headgate_server.providers import vendor_of

    label = f"provider {name}"
    try:
        vendor = vendor_of(settings.kind, settings.base_url)
    except KeyError:
        return [Check(label, "warn", f"how to examine kind {settings.kind} is not known")]
    base = settings.base_url or vendor.base_url or ""
    headers = _headers(settings, vendor)
    url = base
    if settings.kind == "azure":
        # https://learn.microsoft.com/azure/ai-foundry/openai/reference-preview-latest
        url = base if base.endswith("/openai/v1") else f"{base}/openai/v1"
    try:
        async with (
            asyncio.timeout(_PROVIDER_SECONDS),
            httpx.AsyncClient(
                timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                follow_redirects=False,
                trust_env=False,
                verify=ssl.create_default_context(),
            ) as client,
        ):
            status, listed, location = await _listing(client, f"{url}/models", headers, vendor)
            public: int | None = None
            if status == 200 and settings.api_key:
                # A list that everybody gets says nothing about the key.
                with contextlib.suppress(httpx.HTTPError):
                    public, _, _ = await _listing(client, f"{url}/models", {}, vendor)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return [Check(label, "fail", f"{base}: {_reason(error)}", _reach_advice(error))]
    return [_judged(label, base, status, listed, location, public, settings)]


def _headers(settings: Provider, vendor: Vendor) -> dict[str, str]:
    """The headers that authenticate the gateway there."""
    headers: dict[str, str] = {}
    if settings.api_key:
        key = settings.api_key.get_secret_value()
        if vendor.auth == "api-key":
            headers["api-key"] = key
        else:
            headers["authorization"] = f"Bearer {key}"
    for name, value in (
        ("openai-organization", settings.organization),
        ("openai-project", settings.project),
    ):
        if value:
            headers[name] = value
    headers |= {name.lower(): value.get_secret_value() for name, value in settings.headers.items()}
    return headers


async def _listing(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], vendor: Vendor
) -> tuple[int, int | None, str]:
    """Status of GET /models, how many models it lists (None: no such list), where it redirects."""
    body = bytearray()
    async with client.stream("GET", url, headers=headers, params=vendor.query or None) as answer:
        if answer.status_code == 200:
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MAX_LIST_BYTES:
                    break
    target = urlsplit(answer.headers.get("location", ""))
    location = f"{target.scheme}://{target.hostname}{target.path}" if target.hostname else ""
    try:
        found = json.loads(body)
    except ValueError:
        return answer.status_code, None, location
    models = found.get("data", found.get("models")) if isinstance(found, dict) else found
    return answer.status_code, len(models) if isinstance(models, list) else None, location


def _judged(
    label: str,
    base: str,
    status: int,
    listed: int | None,
    location: str,
    public: int | None,
    settings: Provider,
) -> Check:
    def check(state: State, finding: str, advice: str = "") -> Check:
        return Check(label, state, f"{base}: {finding}", advice)

    if status == 200:
        if listed is None:
            return check("warn", "answers, but not with a list of models", "Is base_url right?")
        key = ""
        if public is not None:
            key = "key not tested (the list is public), " if public == 200 else "key accepted, "
        return check("ok", f"reachable, {key}{listed} models")
    if status in (401, 403):
        advice = "Renew or correct its api_key."
        if not settings.api_key and not settings.headers:
            return check("fail", f"reachable, but wants a key ({status})", "Give it an api_key.")
        return check("fail", f"reachable, but the key is refused ({status})", advice)
    if 300 <= status < 400:
        advice = "Redirects are never followed: make base_url the final address."
        return check("fail", f"redirects ({status}) to {location or 'elsewhere'}", advice)
    if status == 429:
        return check("warn", "reachable, but limits us now (429)", "Check its quota and billing.")
    if status >= 500:
        return check("warn", f"reachable, but failing ({status})", "Look at its status page.")
    finding = f"reachable, cannot list models ({status}), so the key was not tested"
    if settings.base_url is not None:
        return check("warn", finding, "Does base_url lack its last part, such as /v1?")
    return check("ok", finding)


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        if isinstance(current, BaseExceptionGroup):
            current = current.exceptions[0]
        else:
            current = current.__cause__ or current.__context__


def _reason(error: BaseException) -> str:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "its name cannot be resolved (DNS)"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS failed: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause}"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection is refused"
    if any(isinstance(c, TimeoutError) or "Timeout" in type(c).__name__ for c in causes):
        return "no answer in time"
    return str(error) or type(error).__name__


def _reach_advice(error: BaseException) -> str:
    reason = _reason(error)
    if "DNS" in reason:
        return "Check base_url, the network and DNS."
    if "TLS" in reason:
        return "Check that base_url says http or https as the server does, and whom we trust."
    return "Check that the server runs and that base_url and the firewall are right."


# -- the local model ----------------------------------------------------------------------------


def _local(config: Config) -> Iterator[Check]:
    from headgate.cli.loading import local_available
    from headgate_server.local import SMOLLM2, LocalModelError, find_weights

    for name, provider in config.providers.items():
        if provider.kind != "local":
            continue
        label = f"provider {name}"
        if not local_available():
            advice = "pip install 'headgate[local]'"
            yield Check(label, "fail", "the engine (xllamacpp) is not installed", advice)
            continue
        given = provider.options.weights if provider.options else None
        try:
            weights = find_weights(Path(given) if given else None)
        except LocalModelError as error:
            yield Check(label, "fail", str(error), "Correct options.weights.")
            continue
        size = weights.stat().st_size if weights else SMOLLM2.gguf_bytes
        free = _free_memory()
        if free is not None and free < size + _ENGINE_BYTES:
            needed = (size + _ENGINE_BYTES) / 2**20
            finding = f"needs about {needed:.0f} MiB of memory, {free / 2**20:.0f} MiB are free"
            yield Check(label, "warn", finding, "Free some, or remove this provider.")
        if weights is None:
            advice = "Nothing: `headgate serve` downloads them once, unless --offline."
            finding = f"engine installed; weights not here yet ({SMOLLM2.describe()})"
            yield Check(label, "warn", finding, advice)
        else:
            yield Check(label, "ok", f"engine installed, weights at {weights}")


def _free_memory() -> int | None:
    """Bytes that a new process may use; None where the system does not tell."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found, default=None)


# -- the listeners ------------------------------------------------------------------------------


async def _listener(name: Literal["grpc", "rest"], config: Config) -> list[Check]:
    from headgate_server.config import parse_address

    text = getattr(config.listen, name)
    label = f"listen.{name}"
    error = await asyncio.to_thread(_bind_error, parse_address(text))
    if error is None:
        return [Check(label, "ok", f"{text} is free; no gateway runs there")]
    if error.errno != errno.EADDRINUSE:
        advice = "Choose another address, or allow this one."
        return [Check(label, "fail", f"{text}: {error.strerror or error}", advice)]
    if config.listen.tls and config.listen.tls.client_ca_file:
        finding = f"{text} is taken by what may be a Headgate: it asks for a client certificate"
        advice = f"`headgate models --target {text} --ca ... --cert ...` asks with yours."
        return [Check(label, "warn", finding, advice if name == "grpc" else "")]
    probe = _grpc_state if name == "grpc" else _rest_state
    ready = await probe(config)
    if ready is None:
        advice = f"Stop it, or choose another address with --{name}."
        return [Check(label, "fail", f"{text} is taken, and no Headgate answers there", advice)]
    if not ready:
        advice = "It may be starting or stopping: its log tells."
        return [Check(label, "warn", f"a Headgate at {text} answers, but is not ready", advice)]
    return [Check(label, "ok", f"a Headgate is running and ready at {text}")]


def _bind_error(address: Address) -> OSError | None:
    """Why a gateway could not listen there now; None if it could."""
    from headgate_server.config import TcpAddress

    try:
        if isinstance(address, TcpAddress):
            family, kind, protocol, _, where = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(where)
            return None
        path = Path(address.path)
        if path.exists() or path.is_symlink():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_PROBE_SECONDS)
                probe.connect(str(path))
            return OSError(errno.EADDRINUSE, "in use")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            return OSError(errno.EACCES, f"cannot create a socket in {path.parent}")
    except ConnectionRefusedError:
        # The socket of a gateway that is gone: the next one removes it.
        return (
            None
            if Path(str(address).removeprefix("unix:")).is_socket()
            else OSError(errno.EEXIST, "a file that is no socket is in the way")
        )
    except OSError as error:
        return error
    return None


def _reachable(text: str) -> str:
    """An address under which a listener answers on this machine."""
    host, colon, port = text.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host) + colon + port  # noqa: S104


async def _rest_state(config: Config) -> bool | None:
    """Whether the gateway behind listen.rest is ready; None if there is none."""
    import httpx

    address = config.listen.rest
    socket_path = address.removeprefix("unix:") if address.startswith("unix:") else None
    host = "localhost" if socket_path else _reachable(address)
    scheme = "https" if config.listen.tls else "http"
    # Our own listener, asked about its health: nothing secret goes there, so its name may differ.
    transport = httpx.AsyncHTTPTransport(uds=socket_path, verify=False)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=_PROBE_SECONDS) as client:
            health = await client.get(f"{scheme}://{host}/healthz")
            ready = await client.get(f"{scheme}://{host}/readyz")
            if health.json() != {"status": "ok"} or "status" not in ready.json():
                return None
            return ready.status_code == 200
    except (httpx.HTTPError, ValueError):
        return None


async def _grpc_state(config: Config) -> bool | None:
    """Whether the gateway behind listen.grpc is ready; None if there is none."""
    tls = _trusting(config.listen.tls) if config.listen.tls else None
    async with connect(_reachable(config.listen.grpc), None, tls) as client:
        if await client.ready():
            return True
        try:
            await all_models(client)
        except GatewayError as error:
            return None if from_transport(error) else False
        return False


def _trusting(files: Tls) -> ClientTls | None:
    """TLS that trusts the listener's own certificate, whatever name it bears."""
    try:
        names: Any = served_certificate(files.cert_file, files.key_file).get("subjectAltName")
        certificate = Path(files.cert_file).read_bytes()
    except (OSError, ValueError):
        return None
    return ClientTls(certificate, server_name=names[0][1] if names else None)
