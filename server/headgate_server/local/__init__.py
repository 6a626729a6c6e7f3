"""The embedded model: its weights on disk and its supervised process on loopback.

Owns everything about running a model inside the gateway's machine, up to an address that speaks
OpenAI's dialect. Must not know requests: the ``local`` provider treats that address like any
other upstream.
"""

from headgate_server.local.fetch import FetchProgress, Phase, fetch_weights
from headgate_server.local.options import DEFAULT_SLOTS, Endpoint, LocalModelOptions, State
from headgate_server.local.supervisor import LocalModel
from headgate_server.local.weights import (
    SMOLLM2,
    LocalModelError,
    WeightsSource,
    find_weights,
)

__all__ = [
    "DEFAULT_SLOTS",
    "SMOLLM2",
    "Endpoint",
    "FetchProgress",
    "LocalModel",
    "LocalModelError",
    "LocalModelOptions",
    "Phase",
    "State",
    "WeightsSource",
    "fetch_weights",
    "find_weights",
]
