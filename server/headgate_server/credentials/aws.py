"""Signatures for AWS: each call gets one, made with keys from the configuration or from the machine.

Owns where keys come from and when they are renewed. Signing and finding keys is botocore's; finding them
may read files and ask servers, so it happens in a thread, once for all calls that wait, and ahead of time
where there are still keys that hold. Nothing here blocks the event loop.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv4.html
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from headgate.errors import DeadlineExceeded, UpstreamRejectedUs
from headgate_server.config import ConfigError, Problem, Provider
from headgate_server.providers.base import HttpCall
from headgate_server.providers.runtime import Authorize

_log = logging.getLogger(__name__)

SERVICE = "bedrock"
# bedrock-runtime.us-east-1.amazonaws.com, and the same with -fips, of a VPC endpoint or of China.
_REGION_IN_URL = re.compile(r"\bbedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
# Keys are renewed so long before they expire; botocore agrees from 15 minutes on.
_RENEW_SECONDS = 300
# Below this rest of life they are not used any more.
_LAST_SECONDS = 30
# After a try, whatever came of it, the next one waits so long.
_PAUSE_SECONDS = 5.0

# botocore.credentials.ReadOnlyCredentials; untyped, and imported late.
Keys = Any
Source = Callable[[float | None], Awaitable[Keys]]


def authorizer(settings: Provider) -> Authorize:
    """What signs a provider's calls.

    Raises:
        ConfigError: botocore is not installed, keys are given in part, or the region is not known.
    """
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
    except ImportError as error:
        raise _wrong(
            settings, "needs the package botocore: pip install headgate[bedrock]"
        ) from error
    # Its debug messages hold requests as they are signed, tokens included.
    logging.getLogger("botocore").setLevel(logging.INFO)
    region = _region(settings)
    source = _source(settings)

    async def authorize(call: HttpCall, deadline: float | None) -> HttpCall:
        keys = await source(deadline)
        request = AWSRequest("POST", call.url, headers=dict(call.headers), data=call.body)
        SigV4Auth(keys, SERVICE, region).add_auth(request)
        headers = {name.lower(): str(value) for name, value in request.headers.items()}
        return replace(call, headers=headers)

    return authorize


def _source(settings: Provider) -> Source:
    """Where the keys come from."""
    given = {
        name: getattr(settings, name) is not None
        for name in ("access_key_id", "secret_access_key", "session_token")
    }
    if not any(given.values()):
        return MachineKeys(settings.profile).current
    for name in ("access_key_id", "secret_access_key"):
        if not given[name]:
            others = " and ".join(other for other, found in given.items() if found)
            raise _wrong(settings, f"has {others} without {name}; give both or neither")
    from botocore.credentials import ReadOnlyCredentials

    secret, token = settings.secret_access_key, settings.session_token
    fixed = ReadOnlyCredentials(
        settings.access_key_id,
        secret.get_secret_value() if secret is not None else None,
        token.get_secret_value() if token is not None else None,
        None,
    )

    async def current(deadline: float | None) -> Keys:
        return fixed

    return current


def _region(settings: Provider) -> str:
    """The region that signatures are for."""
    if settings.region is not None:
        return settings.region
    found = _REGION_IN_URL.search(settings.base_url or "")
    if found is not None:
        return found[1]
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        region = Session(profile=settings.profile).get_config_variable("region")
    except BotoCoreError as error:
        raise _wrong(settings, f"cannot use the machine's AWS configuration: {error}") from error
    if not region:
        raise _wrong(settings, "needs a region, such as us-east-1")
    return str(region)


def _wrong(settings: Provider, problem: str) -> ConfigError:
    return ConfigError([Problem("providers", None, None, "", f"kind {settings.kind} {problem}")])


class MachineKeys:
    """The keys that AWS's own tools would use on this machine.

    Args:
        profile: of the machine's AWS configuration; None for the usual one.
    """

    def __init__(self, profile: str | None) -> None:
        self._profile = profile
        self._credentials: Any = None  # botocore's, which may renew themselves
        self._keys: Keys | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._next_try = 0.0

    async def current(self, deadline: float | None) -> Keys:
        """The keys; waits for new ones only if there are none that hold.

        Args:
            deadline: the caller's, on the clock of `time.monotonic`.

        Raises:
            UpstreamRejectedUs: there are none.
            DeadlineExceeded: getting them took longer than the caller allows.
        """
        if self._hold(_RENEW_SECONDS):
            return self._keys
        if self._renewal is None and time.monotonic() >= self._next_try:
            self._renewal = asyncio.create_task(self._renew())
        if not self._hold(_LAST_SECONDS) and self._renewal is not None:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                async with asyncio.timeout(left):
                    # Others wait for it, too, so a caller who goes must not take it along.
                    await asyncio.shield(self._renewal)
            except TimeoutError as error:
                raise DeadlineExceeded(
                    "the caller's deadline passed while the AWS credentials were renewed"
                ) from error
        if not self._hold(_LAST_SECONDS):
            raise UpstreamRejectedUs(
                "the gateway has no AWS credentials: set access_key_id and secret_access_key of the "
                "provider, or profile, or what AWS's own tools look for on the machine"
            )
        return self._keys

    def _hold(self, seconds: int) -> bool:
        """Whether there are keys that live so long."""
        if self._keys is None:
            return False
        expires = getattr(self._credentials, "refresh_needed", None)
        return expires is None or not expires(refresh_in=seconds)

    async def _renew(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._load)
        except Exception as error:
            # Providers of keys are many, some of them programs of the machine; whatever goes wrong there,
            # the calls that wait say that there are no keys.
            _log.error("no AWS credentials: %s: %s", type(error).__name__, error)
        finally:
            self._next_try = time.monotonic() + _PAUSE_SECONDS
            self._renewal = None

    def _load(self) -> Keys:
        """Finds the keys, or renews them. Runs in a thread."""
        from botocore.exceptions import NoCredentialsError
        from botocore.session import Session

        if self._credentials is None:
            self._credentials = Session(profile=self._profile).get_credentials()
        if self._credentials is None:
            raise NoCredentialsError
        return self._credentials.get_frozen_credentials()
