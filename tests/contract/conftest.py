"""The event loops of the suite: uvloop, as in production, and asyncio's own where they may differ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

_ON_BOTH = ("storm", "dropped", "slow_reader", "deadline_does")

Factories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    found: Factories = {"uvloop": uvloop.new_event_loop}
    if any(word in item.nodeid for word in _ON_BOTH):
        found["asyncio"] = asyncio.new_event_loop
    return found
