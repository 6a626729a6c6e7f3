"""AWS's signatures, checked without a line of AWS's own code."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote, urlsplit


def signature_of(
    headers: Mapping[str, str], url: str, body: bytes, secret: str, service: str = "bedrock"
) -> str:
    """The signature by AWS's description of it, with nothing of botocore's.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    algorithm, *fields = headers["authorization"].replace(",", "").split()
    assert algorithm == "AWS4-HMAC-SHA256"
    facts = dict(field.split("=", 1) for field in fields)
    _, date, region, _, _ = facts["Credential"].split("/")
    where = urlsplit(url)
    named = {**headers, "host": where.netloc}
    signed = facts["SignedHeaders"]
    canonical = "\n".join(
        [
            "POST",
            quote(where.path, safe="/-_.~"),  # the path is encoded once more, all but in S3
            "",
            *(f"{name}:{' '.join(named[name].split())}" for name in signed.split(";")),
            "",
            signed,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{date}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join([algorithm, headers["x-amz-date"], scope, digest])
    key = f"AWS4{secret}".encode()
    for piece in (date, region, service, "aws4_request"):
        key = hmac.new(key, piece.encode(), hashlib.sha256).digest()
    made = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    assert facts["Credential"].endswith(scope)
    return made


def given_signature(headers: Mapping[str, str]) -> str:
    return headers["authorization"].partition("Signature=")[2]
