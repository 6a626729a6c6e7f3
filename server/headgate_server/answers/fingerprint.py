"""What makes two requests the same, as digests. Pure.

Everything in a request counts: a field that was overlooked would give somebody a wrong answer. The one
exception are the values of labels, for the exact cache, since providers do not look at them to answer.
That a label is there counts: a target may lack it, and then refuses the request or warns about it.
`store` is no label, although the answer is the same: it asks for what a kept answer does not do.
Where a gateway behind this one routes by metadata or user, the cache belongs there.
"""

from __future__ import annotations

import hashlib

from headgate.v1 import chat_pb2

SIZE = 32  # bytes of a digest: nobody finds two requests with the same one
LABELS = ("user", "safety_identifier", "prompt_cache_key")  # and metadata


def question(tenant: str, route: str, request: chat_pb2.ChatRequest) -> bytes:
    """The key of the exact cache: whose, which public model, and all of the request but its labels."""
    return _digest(_bytes(tenant), _bytes(route), _serialized(_without_labels(request)))


def holder(tenant: str, key: str) -> bytes:
    """The place of an idempotency key: whose, and which."""
    return _digest(_bytes(tenant), _bytes(key))


def exact(request: chat_pb2.ChatRequest) -> bytes:
    """The whole request, labels included."""
    return _digest(_serialized(request))


def _without_labels(request: chat_pb2.ChatRequest) -> chat_pb2.ChatRequest:
    """The same, with empty labels where there are any."""
    labels = [name for name in LABELS if request.HasField(name)]  # type: ignore[arg-type]
    if not labels and not request.metadata:
        return request
    bare = chat_pb2.ChatRequest()
    bare.CopyFrom(request)
    for name in labels:
        setattr(bare, name, "")
    if bare.metadata:
        bare.metadata.clear()
        bare.metadata[""] = ""
    return bare


def _serialized(request: chat_pb2.ChatRequest) -> bytes:
    # Maps have no order of their own; this sorts them.
    return request.SerializeToString(deterministic=True)


def _digest(*texts: bytes) -> bytes:
    """Each with its length before it, so that nothing moves from one to the next."""
    digest = hashlib.blake2b(digest_size=SIZE)
    for text in texts:
        digest.update(len(text).to_bytes(8, "big"))
        digest.update(text)
    return digest.digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
