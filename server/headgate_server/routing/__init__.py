"""Where a request goes: which public model serves it, and on which targets it is tried, in which order.

Pure over what it gets: the configuration, the state of the targets, the clock, the dice. `router` puts
it together; `names`, `rules`, `strategies` (with `affinity`), `plan` and `abilities` decide one thing
each; `explain` tells what they would decide.
"""

from headgate_server.routing.explain import explain
from headgate_server.routing.names import not_found
from headgate_server.routing.router import ChainKind, Router
from headgate_server.routing.routes import Candidate, LeftOut, Plan, Route
from headgate_server.routing.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "Candidate",
    "ChainKind",
    "LeftOut",
    "Plan",
    "Route",
    "Router",
    "explain",
    "not_found",
]
