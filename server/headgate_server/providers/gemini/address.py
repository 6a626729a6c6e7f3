"""Where a model of the Gemini API or of Vertex AI is called. Pure.

Sources: https://ai.google.dev/api/generate-content and
https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations (hosts),
https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode (API keys: no project).
"""

from __future__ import annotations

from urllib.parse import quote

from headgate.errors import ModelNotFound
from headgate_server.providers.base import Endpoint, Target

_VERSIONS = ("/v1beta1", "/v1beta", "/v1alpha", "/v1")
_GLOBAL_HOST = "https://aiplatform.googleapis.com"
_MULTI_REGIONS = ("us", "eu")


def is_vertex(target: Target) -> bool:
    """Whether this is Google Cloud's edition of the API."""
    return target.kind == "vertex"


def _versioned_base(target: Target, endpoint: Endpoint) -> str:
    """The host and the API's version, such as `https://generativelanguage.googleapis.com/v1beta`."""
    base = endpoint.base_url.rstrip("/")
    for version in _VERSIONS:
        base = base.removesuffix(version)
    if is_vertex(target):
        base = _vertex_host(base, endpoint)
    return f"{base}/{target.api_version or ('v1' if is_vertex(target) else 'v1beta')}"


def model_path(target: Target, endpoint: Endpoint) -> str:
    """The resource name of the model, quoted for a URL.

    Raises:
        ModelNotFound: the name cannot be that of a model.
    """
    name = target.model
    if not name or any(step in ("", ".", "..") for step in name.split("/")):
        raise ModelNotFound(f"{name!r} cannot be the name of a model")
    return _vertex_model(name, endpoint) if is_vertex(target) else _gemini_model(name)


def method_url(target: Target, endpoint: Endpoint, method: str) -> str:
    """The address of a method of the model, such as `generateContent`."""
    return f"{_versioned_base(target, endpoint)}/{model_path(target, endpoint)}:{method}"


def _gemini_model(name: str) -> str:
    for collection in ("models", "tunedModels"):
        if name.startswith(f"{collection}/"):
            return f"{collection}/{quote(name[len(collection) + 1 :], safe='')}"
    return f"models/{quote(name, safe='')}"


def _vertex_model(name: str, endpoint: Endpoint) -> str:
    quoted = quote(name, safe="/@")
    if name.startswith("projects/"):
        return quoted
    if not name.startswith(("publishers/", "endpoints/")):
        publisher, _, model = name.rpartition("/")
        publisher = "google" if publisher in ("", "models") else quote(publisher, safe="")
        quoted = f"publishers/{publisher}/models/{quote(model, safe='@')}"
    if _express(endpoint) or not (endpoint.project and endpoint.region):
        return quoted
    project, region = quote(endpoint.project, safe=""), quote(endpoint.region, safe="")
    return f"projects/{project}/locations/{region}/{quoted}"


def _vertex_host(base: str, endpoint: Endpoint) -> str:
    """Three places have no host of the form that the data file gives."""
    if base != f"https://{endpoint.region or ''}-aiplatform.googleapis.com":
        return base
    if endpoint.region == "global" or _express(endpoint):
        return _GLOBAL_HOST
    if endpoint.region in _MULTI_REGIONS:
        return f"https://aiplatform.{endpoint.region}.rep.googleapis.com"
    return base


def _express(endpoint: Endpoint) -> bool:
    return "x-goog-api-key" in endpoint.headers
