"""Where requests go. Pure."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from headgate_server.providers.base import Endpoint, Target

# What api-version says where the v1 surface is meant; a date means the older one.
_V1_VERSIONS = (None, "", "v1", "preview", "latest")


def url_of(target: Target, endpoint: Endpoint, path: str) -> str:
    """The address of a path of the API, such as "/chat/completions"."""
    base, query = endpoint.base_url, target.vendor.query
    if target.kind == "azure":
        # https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference: with a dated api-version
        # the deployment is part of the path.
        if target.api_version:
            query = {**query, "api-version": target.api_version}
        if not base.endswith("/openai/v1"):
            base = base.removesuffix("/openai") + "/openai"
            dated = target.api_version not in _V1_VERSIONS
            base += f"/deployments/{quote(target.model, safe='')}" if dated else "/v1"
    return f"{base}{path}?{urlencode(query)}" if query else base + path
