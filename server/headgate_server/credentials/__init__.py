"""Credentials that change: signatures for each request, tokens that expire.

Owns which clouds need them. Each cloud's module is imported when a provider asks for it, because its
library comes with an extra of its own.
"""

from __future__ import annotations

from headgate_server.config import Provider
from headgate_server.providers.runtime import Authorize
from headgate_server.providers.vendors import Vendor


def authorizer(settings: Provider, vendor: Vendor) -> Authorize | None:
    """What completes a provider's calls; None where the endpoint's headers say it all.

    Raises:
        ConfigError: the cloud's library is not installed, or the credentials cannot be read.
    """
    if settings.api_key or settings.api_keys or settings.bearer_token:
        return None
    if vendor.auth == "aws" and "authorization" not in map(str.lower, settings.headers):
        from headgate_server.credentials import aws

        return aws.authorizer(settings)
    given = {name.lower() for name in settings.headers}
    if vendor.auth == "google" and not given & {"authorization", "x-goog-api-key"}:
        from headgate_server.credentials import google

        return google.authorizer(settings)
    return None
