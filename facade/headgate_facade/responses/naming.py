"""Names that this door makes up: ids of items, and envelopes of proofs that belong to calls. Pure."""

from __future__ import annotations

import re

from headgate import reasoning
from headgate.v1 import content_pb2

DIALECT = "openai_responses"
"""As in `ChatRequest.extra_dialect`, `Reasoning.dialect` and `Served.dialect`."""

# What tells our ids from those of a server that knows what it has under them.
_MARK = "_hg_"
_OF_CALL = "thought_signature of "
_PREFIXES = re.compile(r"^(resp|chatcmpl|msg)[-_]")
_NO_ID = re.compile(r"[^A-Za-z0-9_-]")


def response_id(upstream_id: str) -> str:
    """The response's id: the upstream's if it has the right form, else one made from it."""
    if upstream_id.startswith("resp_"):
        return upstream_id
    return f"resp{_MARK}{_NO_ID.sub('', _PREFIXES.sub('', upstream_id))[:40]}"


def item_id(prefix: str, response: str, index: int) -> str:
    """An item's id, unique for all responses as long as theirs are."""
    tail = response.removeprefix("resp_").removeprefix(_MARK[1:])
    return f"{prefix}{_MARK}{tail[:40]}_{index}"


def is_made_up(name: str) -> bool:
    """Whether an id is one of ours, which means nothing to any server."""
    return _MARK in name[:8]


def proof_of_call(call_id: str, signature: str) -> str:
    """Gemini's proof of the thoughts behind a call, for the opaque member of a reasoning item.

    Clients with typed items lose what else a call carries, but give reasoning items back whole.
    """
    proof = content_pb2.Reasoning(dialect="gemini", id=_OF_CALL + call_id, signature=signature)
    return reasoning.seal(proof, "")


def call_of_proof(proof: content_pb2.Reasoning) -> str | None:
    """The call whose proof it is; None if it is that of a thought."""
    return proof.id.removeprefix(_OF_CALL) if proof.id.startswith(_OF_CALL) else None
