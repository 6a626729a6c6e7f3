"""Who calls: credentials to a `Caller`, from memory alone.

Owns the comparison of keys and the reading of certificate names. Keys are kept as SHA-256 digests, so
that looking one up takes the same time whatever its characters, and no dump of memory shows one.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headgate.core import CallContext
from headgate.errors import PermissionDenied, Unauthenticated
from headgate_server.config import Auth


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call, and what.

    Attributes:
        name: for logs and usage; empty for everybody.
        models: globs of the model names that the caller may use.
        tenant: whom the caller belongs to; tenants share no answers.
        admin: whether the caller may use the administration API.
    """

    name: str = ""
    models: Sequence[str] = ("*",)
    tenant: str = ""
    admin: bool = False

    def may_use(self, model: str) -> bool:
        """Whether the caller may use the model of this public name."""
        models = self.models
        return "*" in models or any(fnmatch.fnmatchcase(model, glob) for glob in models)


class Authenticator(Protocol):
    """Turns the credentials of a call into a caller."""

    def authenticate(self, context: CallContext) -> Caller:
        """Raises `Unauthenticated` or `PermissionDenied`."""
        ...


ANYBODY = Caller(admin=True)


class Open:
    """Mode none: whoever reaches the address may call. Credentials are not looked at."""

    def authenticate(self, context: CallContext) -> Caller:
        """Always the same caller."""
        return ANYBODY


class StaticKeys:
    """Mode keys: the keys of the configuration."""

    def __init__(self, auth: Auth) -> None:
        self._callers = {
            _digest(key.key.get_secret_value()): Caller(
                key.name, key.models, key.tenant or key.name, key.admin
            )
            for key in auth.keys
        }

    def authenticate(self, context: CallContext) -> Caller:
        """The holder of the call's key."""
        if not context.bearer:
            raise Unauthenticated("no API key was given; send one as `Authorization: Bearer KEY`")
        caller = self._callers.get(_digest(context.bearer))
        if caller is None:
            raise Unauthenticated("the API key is not known to this gateway")
        return caller


class ClientCertificates:
    """Mode mtls: the names in the client's certificate, which the listener has verified."""

    def __init__(self, auth: Auth) -> None:
        self._rules = auth.clients

    def authenticate(self, context: CallContext) -> Caller:
        """The holder of the certificate, by the first rule that matches one of its names."""
        if not context.peer:
            raise Unauthenticated("no client certificate with a name was shown")
        if not self._rules:
            return Caller(context.peer[0], tenant=context.peer[0])
        for rule in self._rules:
            for name in context.peer:
                if fnmatch.fnmatchcase(name, rule.name):
                    return Caller(name, rule.models, rule.tenant or name, rule.admin)
        raise PermissionDenied(f"no rule lets the client {context.peer[0]!r} in")


def authenticator(auth: Auth) -> Authenticator:
    """The authenticator for the configured mode."""
    if auth.mode == "keys":
        return StaticKeys(auth)
    if auth.mode == "mtls":
        return ClientCertificates(auth)
    return Open()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
