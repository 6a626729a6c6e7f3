"""The event loop of these tests: uvloop, as in production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

Factories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    return {"uvloop": uvloop.new_event_loop}
