"""Members of the body that the proto has no names for, and those that are the gateway's alone. Pure."""

from __future__ import annotations

import msgspec

from headgate_server.providers.encoding import Encoding

# Whoever may use one model could name another here.
FIXED_MEMBERS = frozenset({"model", "stream", "stream_options"})
_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def add_extra_body(encoding: Encoding, text: str) -> None:
    """Adds `extra_body_json` to what stands in the body; that wins, member by member."""
    body = encoding.body
    passed = encoding.speaks_extras or encoding.target.policy == "pass"
    for name, value in _RAW_OBJECT.decode(text).items():
        if name in FIXED_MEMBERS:
            continue
        if not passed:
            encoding.unsupported_extra(name)
            continue
        present = body.setdefault(name, value)
        if present is not value and isinstance(present, dict) and bytes(value)[:1] == b"{":
            body[name] = {**_RAW_OBJECT.decode(value), **present}


def merge_provider_options(encoding: Encoding) -> None:
    """Puts the options for this provider into the body; they win."""
    given = encoding.request.provider_options_json
    if not given:
        return
    for key in (encoding.target.kind, encoding.target.provider):
        options = given.get(key)
        if options:
            merged = _RAW_OBJECT.decode(options)
            encoding.body.update((k, v) for k, v in merged.items() if k not in FIXED_MEMBERS)
