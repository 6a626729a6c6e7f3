"""`doctor`: what is configured, what is reachable, and what to do about what is not.

Each check is a function that returns `Check`s and changes nothing: no download, no request that costs
money, no file written. Providers are asked for their list of models, as they would be by the data plane:
without a proxy, and never following a redirect. No check's text ever holds a key.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from headgate.cli.doctor.check import Check, State
from headgate.cli.doctor.configuration import certificates, described, local, proxies
from headgate.cli.doctor.installation import files_limit, versions
from headgate.cli.doctor.listeners import listener
from headgate.cli.doctor.providers import provider
from headgate.cli.models import clean

_MARKS: Mapping[State, tuple[str, str]] = {
    "ok": ("ok  ", "\x1b[32m"),
    "warn": ("warn", "\x1b[33m"),
    "fail": ("FAIL", "\x1b[31m"),
}


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
    checks = [*versions(), *files_limit()]
    if any(check.state == "fail" for check in checks):
        return checks
    from headgate.cli.loading import configuration
    from headgate_server.config import ConfigError

    try:
        config = configuration(path, options)
    except ConfigError as error:
        advice = "Correct it; `headgate check-config` checks the file alone."
        return [*checks, *(Check("configuration", "fail", str(p), advice) for p in error.problems)]
    checks.append(described(path, config))
    checks.extend(proxies(config))
    checks.extend(certificates(config.listen.tls))
    found = await asyncio.gather(
        *(
            provider(name, settings, config)
            for name, settings in config.providers.items()
            if settings.kind != "local"
        ),
        asyncio.to_thread(lambda: list(local(config))),
        listener("grpc", config),
        listener("rest", config),
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
