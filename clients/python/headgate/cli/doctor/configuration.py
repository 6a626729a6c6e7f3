"""`doctor`: what is configured, and the files that it names."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.cli.check_config import served_certificate

if TYPE_CHECKING:
    from headgate_server.config import Config, Tls

from headgate.cli.doctor.check import Check

_EXPIRY_WARNING_DAYS = 21
_ENGINE_BYTES = 300 * 2**20


def described(path: Path | None, config: Config) -> Check:
    """What is configured, in a line."""
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


def proxies(config: Config) -> Iterator[Check]:
    """Warns of proxy variables, which the data plane does not look at."""
    names = [name for name in ("https_proxy", "http_proxy", "all_proxy") if _environment(name)]
    if names and any(provider.kind != "local" for provider in config.providers.values()):
        finding = f"{', '.join(names)} is set, but the gateway calls its providers directly"
        yield Check("proxy", "warn", finding, "Providers must be reachable without the proxy.")


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def certificates(tls: Tls | None) -> Iterator[Check]:
    """Whether the TLS files can be read, belong together, and last."""
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


def local(config: Config) -> Iterator[Check]:
    """Whether the local model's engine, weights and memory are there."""
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
