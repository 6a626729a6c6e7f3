"""The scalar notations of the configuration file: addresses, durations, sizes, URLs, names.

Each parser turns one written value into a plain Python value or raises ``ValueError`` with what was
expected. Its message must never quote the value: the value may have come out of the environment.
"""

import ipaddress
import math
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

MAX_SECONDS: Final = 365 * 24 * 3600.0
MAX_BYTES: Final = 2**31 - 1
"""gRPC holds its message limits in a signed 32-bit integer."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?")
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(b|kb|mb|gb|kib|mib|gib)?", re.IGNORECASE)
_SIZE_UNITS: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_UNIX_PATH_BYTES: Final = 107
_CONNECTION_HEADERS: Final = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Return the address as it is written in the file."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix domain socket; the file system says who may connect."""

    path: str

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can reach it."""
        return True

    def __str__(self) -> str:
        """Return the address as it is written in the file."""
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/path``."""
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    if "://" in text:
        msg = "expected HOST:PORT without a scheme such as http://"
        raise ValueError(msg)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(
            "expected HOST:PORT; a port alone is not enough: write 127.0.0.1:PORT"
            if text.isdigit()
            else "expected HOST:PORT (such as 127.0.0.1:8080) or unix:/path"
        )
    if not host or host == "*":
        msg = (
            "expected HOST:PORT; write 127.0.0.1:PORT for this machine only, "
            "or 0.0.0.0:PORT or [::]:PORT for every interface"
        )
        raise ValueError(msg)
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        msg = "expected HOST:PORT with a port from 0 to 65535"
        raise ValueError(msg)
    return TcpAddress(_parse_host(host), int(port))


def _parse_unix(path: str) -> UnixAddress:
    if path.startswith("///"):  # gRPC's other spelling, unix:///path
        path = path.removeprefix("//")
    if not path.startswith("/") or path.startswith("//") or path == "/":
        msg = "expected unix:/path with an absolute path"
        raise ValueError(msg)
    if len(path.encode("utf-8", "surrogatepass")) > _UNIX_PATH_BYTES:
        msg = f"expected a socket path of at most {_UNIX_PATH_BYTES} bytes"
        raise ValueError(msg)
    if has_control_characters(path):
        msg = "expected a socket path without control characters"
        raise ValueError(msg)
    return UnixAddress(path)


def _parse_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            msg = "expected an IPv6 address between the brackets"
            raise ValueError(msg) from None
    if ":" in host:
        msg = "expected an IPv6 address in brackets, as in [::1]:PORT"
        raise ValueError(msg)
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            msg = "expected a valid IPv4 address before the port"
            raise ValueError(msg) from None
    if not _HOST_NAME.fullmatch(host):
        msg = "expected a host name or an IP address before the port"
        raise ValueError(msg)
    return host


def listen_address(text: str) -> str:
    """Check an address and return it in its one usual spelling."""
    return str(parse_address(text))


def parse_seconds(value: object) -> float:
    """Read a duration: a number of seconds, or text such as ``500ms``, ``30s``, ``5m``, ``1h``."""
    expected = "expected a duration: seconds as a number, or text such as 500ms, 30s, 5m or 1h"
    seconds = _quantity(value, _DURATION, _DURATION_UNITS)
    if seconds is None:
        raise ValueError(expected)
    if seconds > MAX_SECONDS:
        msg = "expected a duration of at most 365 days"
        raise ValueError(msg)
    return seconds


def parse_positive_seconds(value: object) -> float:
    """Read a duration that is longer than zero."""
    seconds = parse_seconds(value)
    if seconds == 0:
        msg = "expected a duration longer than zero"
        raise ValueError(msg)
    return seconds


def parse_bytes(value: object) -> int:
    """Read a size: a number of bytes, or text such as ``64MiB`` or ``10MB``."""
    expected = "expected a size: bytes as a whole number, or text such as 512KiB, 64MiB or 10MB"
    size = _quantity(value, _SIZE, _SIZE_UNITS)
    if size is None or (math.isfinite(size) and not size.is_integer()):
        raise ValueError(expected)
    if not 1 <= size <= MAX_BYTES:
        msg = "expected a size of at least 1 byte and less than 2 GiB"
        raise ValueError(msg)
    return int(size)


def _quantity(
    value: object, pattern: re.Pattern[str], units: dict[str, float] | dict[str, int]
) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return math.inf
        return number if number >= 0 else None  # also refuses nan
    if not isinstance(value, str):
        return None
    found = pattern.fullmatch(value.strip().replace("_", ""))
    if found is None:
        return None
    return float(found[1]) * units.get((found[2] or "").lower(), 1)


def base_url(text: str) -> str:
    """Check an upstream's base URL; a trailing slash is dropped."""
    try:
        url = urlsplit(text)
        port_is_valid = url.port is None or url.port > 0
    except ValueError:
        msg = "expected a valid http:// or https:// URL"
        raise ValueError(msg) from None
    if has_control_characters(text) or any(c.isspace() for c in text):
        msg = "expected a URL without spaces, line breaks or control characters"
        raise ValueError(msg)
    if url.scheme not in {"http", "https"}:
        msg = "expected a URL that starts with http:// or https://"
        raise ValueError(msg)
    if not url.hostname or not port_is_valid:
        msg = "expected a URL with a host, such as https://api.example.com/v1"
        raise ValueError(msg)
    if "@" in url.netloc:
        msg = "expected a URL without a user name or password; put the secret into api_key"
        raise ValueError(msg)
    if "?" in text or "#" in text:
        msg = "expected a URL without a query (?...) or fragment (#...)"
        raise ValueError(msg)
    return text.rstrip("/")


def origin(text: str) -> str:
    """Check a browser origin of the CORS list: ``*`` or ``https://host[:port]``."""
    if text == "*":
        return text
    try:
        checked = base_url(text)
        has_path = bool(urlsplit(checked).path)
    except ValueError:
        has_path = True
    if has_path or text.endswith("/"):
        msg = 'expected "*" or an origin such as https://app.example.com, with no path'
        raise ValueError(msg)
    return text.lower()


def provider_name(text: str) -> str:
    """Check the name of a provider; it is the first half of ``provider/model``."""
    if not _PROVIDER_NAME.fullmatch(text):
        msg = (
            "expected a provider name that starts with a letter or digit and continues with "
            "letters, digits, '_', '.' or '-' (no '/')"
        )
        raise ValueError(msg)
    return text


def public_name(text: str) -> str:
    """Check the name under which callers know a model."""
    if not text or len(text) > 256:
        msg = "expected a name of 1 to 256 characters"
        raise ValueError(msg)
    if has_control_characters(text) or any(c.isspace() for c in text):
        msg = "expected a name without spaces or control characters"
        raise ValueError(msg)
    return text


def secret(text: str) -> str:
    """Check a credential that travels in an HTTP header."""
    if not text:
        msg = "expected a secret, found an empty text"
        raise ValueError(msg)
    if not all("!" <= c <= "~" for c in text):
        msg = (
            "expected a secret of visible ASCII characters; found a space, a line break or another "
            "character that cannot travel in a header (value not shown)"
        )
        raise ValueError(msg)
    return text


def header_name(text: str) -> str:
    """Check the name of an HTTP header that the gateway adds to upstream requests."""
    if not _HEADER_NAME.fullmatch(text):
        msg = "expected a header name: letters, digits and '-'"
        raise ValueError(msg)
    if text.lower() in _CONNECTION_HEADERS:
        msg = "this header belongs to the HTTP connection itself; remove it"
        raise ValueError(msg)
    return text


def header_value(text: str) -> str:
    """Check the value of an HTTP header that the gateway adds to upstream requests."""
    if has_control_characters(text) or text != text.strip() or not text.isascii():
        msg = (
            "expected a header value of ASCII characters without line breaks, control characters "
            "or spaces at its ends (value not shown)"
        )
        raise ValueError(msg)
    return text


def has_control_characters(text: str) -> bool:
    """Whether a text holds C0 or C1 control characters, DEL, or halves of surrogate pairs."""
    return any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in text)
