"""The values around an embedded model: what to run, its state, its address. No behaviour."""

import enum
import os
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_SLOTS = 2


class State(enum.Enum):
    """Where a local model is in its life."""

    STOPPED = "stopped"
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    """The first load failed; a later ``start`` may try again."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that answers now, and the key it wants."""

    base_url: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModelOptions:
    """What to run, and how much of the machine it may take."""

    weights: Path
    alias: str = "smollm2-135m-instruct"
    context_tokens: int = 4096
    """Per slot."""
    slots: int = DEFAULT_SLOTS
    """Answers that are generated at the same time; further requests queue in the child."""
    threads: int = field(default_factory=lambda: default_threads())
    max_connections: int = 64
    """Requests that the child holds, running or queued (one thread of it each)."""
    cache_mib: int = 64
    """Memory for the prompts of earlier requests."""
    load_timeout_s: float = 60.0
    verbosity: int = 1
    """llama.cpp's log level. Above 1 its lines go to the gateway's log; never to the terminal."""


def default_threads() -> int:
    """The CPUs that this process may use, capped: this small model gains nothing beyond four."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        usable = os.cpu_count() or 1
    return max(1, min(usable, 4))
