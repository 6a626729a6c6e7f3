"""Where a request would go and why, in words. Calls nobody.

Owns the words. What happens is asked of the router itself, so that an explanation cannot differ from it.
"""

from __future__ import annotations

from typing import get_args

from headgate.admin.v1 import route_service_pb2 as pb
from headgate.core import CallContext
from headgate.v1 import chat_pb2
from headgate_server.auth import Caller
from headgate_server.health import Standing
from headgate_server.routing.plan import why_not
from headgate_server.routing.router import ChainKind, Router
from headgate_server.routing.routes import Candidate, Plan, Route
from headgate_server.routing.strategies import Look, Priority

_AS_WRITTEN = Priority()


def explain(
    router: Router,
    request: chat_pb2.ChatRequest,
    context: CallContext,
    caller: Caller,
    now: float,
) -> pb.ExplainResponse:
    """What would become of a request. Raises `ModelNotFound`.

    Args:
        router: that would decide.
        request: what would be asked.
        context: what would belong to it besides.
        caller: who would ask.
        now: seconds, on the clock of the board.
    """
    notes: list[str] = []
    route, shadow = router.resolve(request, context, caller, notes)
    plan = router.plan(route, request, context, caller, now)
    look = router.look(request, context, now)
    return pb.ExplainResponse(
        model=request.model,
        route=route.name,
        steps=notes,
        strategy=route.strategy,
        candidates=[
            pb.Candidate(
                provider=each.target.provider,
                model=each.target.model,
                reason=_why(each, place, plan, route, look),
            )
            for place, each in enumerate(plan.candidates)
        ],
        left_out=[
            pb.LeftOut(
                provider=each.candidate.target.provider,
                model=each.candidate.target.model,
                reason=each.reason,
            )
            for each in plan.left_out
        ],
        fallbacks=[
            pb.Fallback(model=each.name, kind=kind, left_out=router.lacks(each, request))
            for kind in get_args(ChainKind)
            for each in router.chain(route, kind)
        ],
        shadow=shadow.name if shadow is not None else "",
        estimated_input_tokens=router.tokens(request),
    )


def _why(candidate: Candidate, place: int, plan: Plan, route: Route, look: Look) -> str:
    if plan.last_resort:
        return f"last resort, though {why_not(candidate, look.now)}"
    if len(route.candidates) == 1:
        return "the only target"
    chooser = route.chooser or _AS_WRITTEN
    reason = chooser.why(candidate, place, route.candidates, look)
    if candidate.health.standing(look.now) is Standing.FULL:
        reason += f"; behind the others, at its limit of {candidate.health.limit}"
    return reason
