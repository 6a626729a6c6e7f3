"""How the targets are: what their attempts have shown lately, and what follows from it.

``board`` holds them all, ``target`` is one. The rest are its parts: ``window`` counts, ``breaker``,
``average`` (of latencies), ``limit`` and ``waiting`` (concurrency); and beside it ``outliers`` and
``budget`` (retries of a provider). All of it is passive: it learns from attempts that others make, and
calls nobody. The one clock is the caller's, in seconds; only a queue waits for anything. For one event
loop: there are no locks.
"""

from headgate_server.health.board import Board
from headgate_server.health.breaker import Position
from headgate_server.health.budget import RetryBudget
from headgate_server.health.target import Standing, TargetHealth

__all__ = ["Board", "Position", "RetryBudget", "Standing", "TargetHealth"]
