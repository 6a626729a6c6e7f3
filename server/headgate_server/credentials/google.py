"""Access tokens of Google Cloud: fetched with google-auth, kept, and renewed before they expire.

Owns where credentials come from (a file, or the machine's application default credentials) and when a
token is renewed. google-auth itself (the extra "vertex") is imported here only, and only for a provider
that needs it. Sources: https://cloud.google.com/docs/authentication/application-default-credentials and
https://googleapis.dev/python/google-auth/latest/.
"""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headgate.errors import (
    DeadlineExceeded,
    GatewayError,
    UpstreamRejectedUs,
    UpstreamUnavailable,
)
from headgate_server.config import ConfigError, Problem, Provider
from headgate_server.providers.base import HttpCall
from headgate_server.providers.runtime import Authorize

_log = logging.getLogger(__name__)

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

_EARLY = 240.0  # seconds before its end in which a token is renewed, while it goes on to be used
_MARGIN = 10.0  # seconds before its end in which a token is not used any more
_PAUSE = 5.0  # seconds after a failed renewal before the next, while the old token works
_FOREVER = 1e9  # for the rare token that does not say when it ends
_TIMEOUT = 10.0  # of one request to the token server
_MAX_BODY = 1 << 20

_OAUTH_CODE = re.compile(r"[a-z_]{1,40}")


def authorizer(settings: Provider) -> Authorize:
    """What puts a token into a provider's calls.

    Raises:
        ConfigError: google-auth is not installed, or the credentials file cannot be used.
    """
    try:
        import google.auth  # noqa: F401
    except ImportError:
        raise _config_error(
            settings, "", "needs google-auth: pip install 'headgate[vertex]', or give an api_key"
        ) from None
    if settings.credentials_file is not None:
        credentials = _from_file(settings, Path(settings.credentials_file).expanduser())
        return Tokens(lambda: credentials).authorize
    return Tokens(_application_default).authorize


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    ends: float  # by time.monotonic
    quota_project: str | None = None


class Tokens:
    """The token of one provider. Renewed once for all who ask at the same time.

    Args:
        load: makes google-auth's credentials; may block, and is called once.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._credentials: Any = None
        self._token: _Token | None = None
        self._renewal: asyncio.Task[_Token] | None = None
        self._failed_at = float("-inf")

    async def authorize(self, call: HttpCall, deadline: float | None) -> HttpCall:
        """The call with the token.

        Raises:
            UpstreamRejectedUs: there are no credentials, or Google does not accept them.
            UpstreamUnavailable: the token server cannot be reached.
            DeadlineExceeded: the token came too late.
        """
        token = await self._valid(deadline)
        headers = {**call.headers, "authorization": f"Bearer {token.value}"}
        if token.quota_project:
            headers.setdefault("x-goog-user-project", token.quota_project)
        return replace(call, headers=headers)

    async def _valid(self, deadline: float | None) -> _Token:
        token, now = self._token, time.monotonic()
        left = token.ends - now if token is not None else 0.0
        if token is not None and left > _MARGIN:
            if left < _EARLY and now - self._failed_at > _PAUSE:
                self._renew()
            return token
        # The renewal is everybody's: whoever stops waiting for it, does not stop it.
        waiting = asyncio.shield(self._renew())
        try:
            async with asyncio.timeout(None if deadline is None else max(deadline - now, 0.0)):
                return await waiting
        except TimeoutError as error:
            raise DeadlineExceeded(
                "the caller's deadline passed while Google's access token was fetched"
            ) from error

    def _renew(self) -> asyncio.Task[_Token]:
        """The renewal that is under way, or a new one."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._run())
            self._renewal.add_done_callback(self._ended)
        return self._renewal

    async def _run(self) -> _Token:
        self._token = token = await asyncio.to_thread(self._fetch)
        return token

    def _ended(self, renewal: asyncio.Task[_Token]) -> None:
        error = None if renewal.cancelled() else renewal.exception()
        if error is not None:
            self._failed_at = time.monotonic()
            _log.warning("Google's access token could not be renewed: %s", error)

    def _fetch(self) -> _Token:
        """Asks Google; runs in a thread."""
        from google.auth import exceptions

        try:
            if self._credentials is None:
                self._credentials = self._load()
            self._credentials.refresh(_request)
        except exceptions.GoogleAuthError as error:
            raise _judge(error) from None  # its text may quote what was sent
        expiry = self._credentials.expiry  # without a zone, in UTC
        left = _FOREVER
        if expiry is not None:
            left = (expiry.replace(tzinfo=datetime.UTC) - _now()).total_seconds()
        return _Token(
            str(self._credentials.token),
            time.monotonic() + left,
            getattr(self._credentials, "quota_project_id", None),
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _judge(error: Exception) -> GatewayError:
    """Our error for one of google-auth's, without its words."""
    from google.auth import exceptions

    if isinstance(error, exceptions.DefaultCredentialsError):
        return UpstreamRejectedUs(
            "there are no Google credentials: set credentials_file, or the machine's application "
            "default credentials"
        )
    if isinstance(error, exceptions.TransportError):
        return UpstreamUnavailable("Google's token server cannot be reached")
    if getattr(error, "retryable", False):
        return UpstreamUnavailable("Google's token server does not answer as it should")
    told = error.args[1] if len(error.args) > 1 else None
    code = told.get("error") if isinstance(told, dict) else None
    named = isinstance(code, str) and _OAUTH_CODE.fullmatch(code)
    return UpstreamRejectedUs(
        "Google does not accept the gateway's credentials" + (f" ({code})" if named else "")
    )


# Where credentials come from. google-auth's general loaders warn of themselves, and some of them use the
# network; so each type is loaded by its own.


def _application_default() -> Any:
    import google.auth

    transport: Any = _request
    return google.auth.default(scopes=SCOPES, request=transport)[0]


def _service_account(info: Mapping[str, Any]) -> Any:
    from google.oauth2 import service_account

    kind: Any = service_account.Credentials
    return kind.from_service_account_info(info, scopes=SCOPES)


def _authorized_user(info: Mapping[str, Any]) -> Any:
    from google.oauth2 import credentials

    kind: Any = credentials.Credentials
    return kind.from_authorized_user_info(info)


def _external_account(info: Mapping[str, Any]) -> Any:
    from google.auth import aws, identity_pool, pluggable

    kind: Any = identity_pool.Credentials
    if info.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
        kind = aws.Credentials
    elif "executable" in (info.get("credential_source") or {}):
        kind = pluggable.Credentials
    return kind.from_info(info, scopes=SCOPES)


def _external_user(info: Mapping[str, Any]) -> Any:
    from google.auth import external_account_authorized_user

    kind: Any = external_account_authorized_user.Credentials
    return kind.from_info(info)


def _impersonated(info: Mapping[str, Any]) -> Any:
    from google.auth import impersonated_credentials

    kind: Any = impersonated_credentials.Credentials
    return kind.from_impersonated_service_account_info(info, scopes=SCOPES)


_LOADERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "service_account": _service_account,
    "authorized_user": _authorized_user,
    "external_account": _external_account,
    "external_account_authorized_user": _external_user,
    "impersonated_service_account": _impersonated,
}


def _from_file(settings: Provider, path: Path) -> Any:
    from google.auth import exceptions

    try:
        info = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _config_error(
            settings, "credentials_file", f"cannot be read: {error.strerror}"
        ) from None
    except ValueError:
        raise _config_error(settings, "credentials_file", "expected a JSON file") from None
    kind = info.get("type") if isinstance(info, dict) else None
    load = _LOADERS.get(kind) if isinstance(kind, str) else None
    if load is None:
        raise _config_error(
            settings,
            "credentials_file",
            f"expected Google credentials: a JSON object whose type is one of {', '.join(_LOADERS)}",
        )
    try:
        return load(info)
    except (exceptions.GoogleAuthError, ValueError, TypeError, KeyError, AttributeError):
        # What they say may quote the key.
        raise _config_error(
            settings, "credentials_file", f"holds no usable credentials of type {kind}"
        ) from None


def _config_error(settings: Provider, path: str, message: str) -> ConfigError:
    return ConfigError([Problem(f"provider kind {settings.kind}", None, None, path, message)])


# google-auth's transport: what it needs of an HTTP client, without another library.


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    data: bytes = field(repr=False)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects would take the credentials elsewhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)
# Plain HTTP is what the machine's own metadata server speaks, and that is behind no proxy.
_direct = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def _request(
    url: str,
    method: str = "GET",
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **_: Any,
) -> _Response:
    """One request, as google.auth.transport.Request describes it."""
    from google.auth import exceptions

    data = body.encode() if isinstance(body, str) else body
    try:
        if not url.startswith(("https://", "http://")):
            raise ValueError("not an address of HTTP")
        asked = urllib.request.Request(url, data, dict(headers or {}), method=method)  # noqa: S310
        opener = _direct if url.startswith("http:") else _opener
        with opener.open(asked, timeout=min(timeout or _TIMEOUT, _TIMEOUT)) as answer:
            return _Response(answer.status, dict(answer.headers), answer.read(_MAX_BODY))
    except urllib.error.HTTPError as error:
        with error:
            return _Response(error.code, dict(error.headers), error.read(_MAX_BODY))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise exceptions.TransportError(type(error).__name__) from error  # type: ignore[no-untyped-call]
