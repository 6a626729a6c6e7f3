"""A model's proofs of its thinking, on their way through a dialect that is not their own.

A front door shows thinking in its own format, and gets it back with the next turn. What the door's format
has a place for, it shows as it is if it came from a provider of the same dialect. Everything else is
sealed: one opaque text that says where it came from. No secrets and no I/O here; a seal is no protection.
"""

from __future__ import annotations

import base64
import binascii

from google.protobuf.message import DecodeError

from headgate.v1 import content_pb2

_PREFIX = "aGVhZGdhdGUx"  # "headgate1" in base64, so that the whole is base64, too


def seal(reasoning: content_pb2.Reasoning, dialect: str) -> str:
    """The proof as one opaque text of base64 characters; empty if there is none.

    Args:
        reasoning: whose `signature`, `encrypted`, `id` and `dialect` are kept; the text is not.
        dialect: the dialect of the provider that answered, where `reasoning` does not say.
    """
    if not (reasoning.signature or reasoning.encrypted or reasoning.id):
        return ""
    kept = content_pb2.Reasoning(dialect=reasoning.dialect or dialect)
    for field in ("signature", "encrypted", "id"):
        if reasoning.HasField(field):
            setattr(kept, field, getattr(reasoning, field))
    return _PREFIX + base64.b64encode(kept.SerializeToString(deterministic=True)).decode()


def unseal(text: str) -> content_pb2.Reasoning | None:
    """What was sealed, without its text; None if this is no seal but a proof as it is."""
    if not text.startswith(_PREFIX):
        return None
    try:
        return content_pb2.Reasoning.FromString(
            base64.b64decode(text[len(_PREFIX) :].encode(), validate=True)
        )
    except (binascii.Error, ValueError, DecodeError):
        return None
