"""What models cost, from the genai-prices package. No network: its data comes with the package.

The data is large (half a second to load), so it is loaded when somebody first asks for the catalogue, in
a thread, and not with the server.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.v1 import model_service_pb2
from headgate_server.providers.base import Target

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

_log = logging.getLogger(__name__)

# Kinds that the package knows under another name.
_PROVIDERS = {
    "bedrock": "aws",
    "gemini": "google",
    "moonshot": "moonshotai",
    "openai_responses": "openai",
    "vertex": "google",
    "xai": "x-ai",
    "zhipu": "zhipuai",
}
_FIELDS = {
    "input_per_million_usd": "input_mtok",
    "output_per_million_usd": "output_mtok",
    "cached_input_per_million_usd": "cache_read_mtok",
    "cache_write_per_million_usd": "cache_write_mtok",
}


# What was looked up is kept so long (some prices depend on the time of day), for so many models.
_KEPT_SECONDS, _MOST_KEPT = 60.0, 1024


class Rates(NamedTuple):
    """US dollars for one million tokens, of the prompt and of the answer."""

    input: float
    output: float


class Prices:
    """The price list."""

    def __init__(self) -> None:
        self._snapshot: DataSnapshot | None = None
        self._loading: asyncio.Lock | None = None
        self._rates: dict[tuple[str, str], tuple[float, Rates | None]] = {}

    async def load(self) -> None:
        """Reads the data, once. Never raises: without it there are no prices."""
        if self._snapshot is not None:
            return
        if self._loading is None:
            self._loading = asyncio.Lock()
        async with self._loading:
            if self._snapshot is None:
                try:
                    self._snapshot = await asyncio.to_thread(_read)
                except Exception:
                    # A catalogue without prices is better than none.
                    _log.exception("the price list cannot be read")

    def of(self, target: Target) -> model_service_pb2.Price | None:
        """The standard price of a target today; None if it is not known, or `load` was not called.

        Prices that depend on the length of the prompt are those of short ones.
        """
        found = self._find(target)
        if found is None:
            return None
        prices = found.get_prices(datetime.datetime.now(datetime.UTC))
        price = model_service_pb2.Price()
        for field, theirs in _FIELDS.items():
            amount = getattr(prices, theirs, None)
            if amount is not None:
                setattr(price, field, float(getattr(amount, "base", amount)))
        return price if price.ByteSize() else None

    def rates(self, target: Target, now: float) -> Rates | None:
        """What `of` says, in short and at once, for comparing targets; None if it is not known.

        Args:
            target: whose price.
            now: seconds, on any clock, always the same one.
        """
        if self._snapshot is None:
            return None
        what = (target.kind, target.model)
        kept = self._rates.get(what)
        if kept is not None and kept[0] > now:
            return kept[1]
        price = self.of(target)
        found = None
        # Half a price would make a target look cheap.
        if price is not None and price.output_per_million_usd and price.input_per_million_usd:
            found = Rates(price.input_per_million_usd, price.output_per_million_usd)
        if len(self._rates) >= _MOST_KEPT:
            self._rates.clear()
        self._rates[what] = (now + _KEPT_SECONDS, found)
        return found

    def context_window(self, target: Target) -> int | None:
        """The target's context window in tokens, where the package knows it."""
        found = self._find(target)
        return found.context_window if found is not None else None

    def _find(self, target: Target) -> Any:
        if self._snapshot is None:
            return None
        known = {provider.id for provider in self._snapshot.providers}
        name = _PROVIDERS.get(target.kind, target.kind)
        if name not in known:
            return None  # by the model's name alone, somebody's own server would have a price
        try:
            return self._snapshot.find_provider_model(target.model, None, name, None)[1]
        except LookupError:
            return None


def _read() -> DataSnapshot:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()
