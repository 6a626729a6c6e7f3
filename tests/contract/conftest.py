"""Which event loops the suite runs on: uvloop, as in production, and asyncio's own where ends matter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

Factories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    found: Factories = {"uvloop": uvloop.new_event_loop}
    if "gone_callers" in item.nodeid:
        found["asyncio"] = asyncio.new_event_loop
    return found
