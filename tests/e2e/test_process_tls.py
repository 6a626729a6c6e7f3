"""TLS and client certificates, over both ports of a real process."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from e2e.process import Process
from e2e.test_process_serving import ANYWHERE, ASK, REQUEST, write
from fakes.upstream import FakeUpstream
from headgate import Client
from headgate.client import Tls
from headgate.errors import (
    GatewayError,
    ModelNotFound,
    PermissionDenied,
    Unauthenticated,
    UpstreamUnavailable,
)


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeUpstream, None]:
    async with FakeUpstream() as up:
        yield up


@dataclass
class Identity:
    """A caller's certificate, in the forms that the two clients take."""

    ca: trustme.CA
    certificate: tuple[bytes, bytes] | None = None  # the key and the chain

    @property
    def tls(self) -> Tls:
        return Tls(self.ca.cert_pem.bytes(), *(self.certificate or ()))

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if self.certificate is not None:
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"".join(self.certificate))
                file.flush()
                context.load_cert_chain(file.name)
        return context


def issue(ca: trustme.CA, *names: x509.GeneralName, common_name: str = "") -> tuple[bytes, bytes]:
    """A client's certificate; trustme issues none with URIs."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=not subject)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    signer = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    certificate = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, certificate.public_bytes(serialization.Encoding.PEM)


def chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(pem.bytes() for pem in certificate.cert_chain_pems)


def tls_files(folder: Path, ca: trustme.CA, *, clients: bool) -> str:
    server = ca.issue_cert("127.0.0.1", "localhost")
    (folder / "ca.pem").write_bytes(ca.cert_pem.bytes())
    (folder / "cert.pem").write_bytes(chain(server))
    (folder / "key.pem").write_bytes(server.private_key_pem.bytes())
    more = f", client_ca_file: {folder}/ca.pem" if clients else ""
    return f"listen: {{tls: {{cert_file: {folder}/cert.pem, key_file: {folder}/key.pem{more}}}}}\n"


async def over_grpc(process: Process, identity: Identity) -> type[GatewayError] | None:
    async with Client(process.grpc, tls=identity.tls, timeout=10) as client:
        try:
            await client.chat_complete(REQUEST)
        except GatewayError as error:
            return type(error)
    return None


async def over_rest(process: Process, identity: Identity) -> int:
    """The HTTP status; 0 if the connection was refused."""
    url = f"https://{process.rest}/v1/chat/completions"
    async with httpx.AsyncClient(verify=identity.context, timeout=10) as client:
        try:
            return (await client.post(url, json=ASK)).status_code
        except httpx.TransportError:
            return 0


async def test_tls(upstream: FakeUpstream, tmp_path: Path) -> None:
    ca = trustme.CA()
    config = write(tmp_path, upstream, tls_files(tmp_path, ca, clients=False))
    async with Process("serve", "--config", config, *ANYWHERE) as process:
        assert any(f"https://{process.rest}" in line for line in process.banner)
        assert await over_grpc(process, Identity(ca)) is None
        assert await over_rest(process, Identity(ca)) == 200
        stranger = Identity(trustme.CA())
        assert await over_grpc(process, stranger) is UpstreamUnavailable
        assert await over_rest(process, stranger) == 0
        async with Client(process.grpc, timeout=5) as plain:
            with pytest.raises(GatewayError):
                await plain.chat_complete(REQUEST)
        facade = Process(
            *("facade", "--core", process.grpc, "--core-ca", str(tmp_path / "ca.pem")),
            *("--rest", "127.0.0.1:0"),
            listens=["REST"],
        )
        async with facade, httpx.AsyncClient(base_url=f"http://{facade.rest}") as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200


RULES = """
auth:
  mode: mtls
  clients:
  - {name: "spiffe://test/allowed", models: ["m"]}
  - {name: "ze-*", models: ["m"]}
  - {name: "*.example", models: ["other"]}
"""


async def test_client_certificates(upstream: FakeUpstream, tmp_path: Path) -> None:
    ca = trustme.CA()
    text = tls_files(tmp_path, ca, clients=True) + RULES
    config = write(tmp_path, upstream, text)
    options = ("--config", config, *ANYWHERE, "--log-level", "info")
    async with Process("serve", *options) as process:
        uri = x509.UniformResourceIdentifier("spiffe://test/allowed")
        mail = x509.RFC822Name("ze-mail@y.example")
        address = x509.IPAddress(ipaddress.ip_address("10.0.0.9"))
        name = x509.NameAttribute(NameOID.COMMON_NAME, "ze-directory")
        directory = x509.DirectoryName(x509.Name([name]))
        cases: list[tuple[Identity, type[GatewayError] | None, int]] = [
            (Identity(ca, issue(ca, uri)), None, 200),
            (Identity(ca, issue(ca, dns("x.test"), common_name="ze-client")), None, 200),
            (Identity(ca, issue(ca, address, dns("a.example"))), ModelNotFound, 404),
            (Identity(ca, issue(ca, dns("nobody.test"))), PermissionDenied, 403),
            # Only common name, DNS and URI names count, and other kinds do no harm.
            (Identity(ca, issue(ca, mail, directory, address)), Unauthenticated, 401),
            (Identity(ca, issue(ca, mail, directory, uri)), None, 200),
            (Identity(ca), UpstreamUnavailable, 0),
            (Identity(ca, issue(trustme.CA(), uri)), UpstreamUnavailable, 0),
        ]
        for identity, failed, status in cases:
            assert await over_grpc(process, identity) is failed
            assert await over_rest(process, identity) == status
        # A facade apart is a caller with a certificate of its own.
        allowed = cases[0][0].certificate
        assert allowed is not None
        (tmp_path / "us.key").write_bytes(allowed[0])
        (tmp_path / "us.pem").write_bytes(allowed[1])
        facade = Process(
            *("facade", "--core", process.grpc, "--core-ca", str(tmp_path / "ca.pem")),
            *("--core-cert", str(tmp_path / "us.pem"), "--core-key", str(tmp_path / "us.key")),
            *("--rest", "127.0.0.1:0"),
            listens=["REST"],
        )
        async with facade, httpx.AsyncClient(base_url=f"http://{facade.rest}") as client:
            assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
    lines = [line for line in (await process.stderr()).splitlines() if " OK " in line]
    names = [line.rpartition("caller=")[2] for line in lines]
    spiffe = "spiffe://test/allowed"
    assert names == [spiffe, spiffe, "ze-client", "ze-client", spiffe, spiffe, spiffe]


def dns(name: str) -> x509.DNSName:
    return x509.DNSName(name)
