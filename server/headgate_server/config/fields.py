"""The types of the configuration's fields: notations of ``values.py``, with their JSON Schema.

Must not know where a field stands.
"""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, SecretStr, WithJsonSchema

from headgate_server.config import values

Strategy = Literal["weighted", "priority", "least_busy", "latency", "cost", "affinity"]
AffinityKey = Literal["user", "session", "prompt"]
UnsupportedPolicy = Literal["strict", "drop", "pass"]
AuthMode = Literal["none", "keys", "mtls"]
Modality = Literal["text", "image", "audio", "video", "file"]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _secret(value: SecretStr) -> SecretStr:
    values.secret(value.get_secret_value())
    return value


def _header_value(value: SecretStr) -> SecretStr:
    values.header_value(value.get_secret_value())
    return value


def _positive(value: int) -> int:
    if value < 1:
        msg = "expected a whole number of at least 1"
        raise ValueError(msg)
    return value


def _ratio(value: float) -> float:
    if not 0 <= value <= 1:
        msg = "expected a share from 0 to 1"
        raise ValueError(msg)
    return value


def _positive_ratio(value: float) -> float:
    if not 0 < value <= 1:
        msg = "expected a share above 0, at most 1"
        raise ValueError(msg)
    return value


def _count_or_zero(value: int) -> int:
    if value < 0:
        msg = "expected a whole number of at least 0"
        raise ValueError(msg)
    return value


def _caller_header(value: str) -> str:
    name = values.header_name(value).lower()
    if not name.startswith("x-"):
        msg = "expected the name of a header that begins with x-, such as x-team"
        raise ValueError(msg)
    return name


def _one_or_several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _several_schema(one: dict[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [one, {"type": "array", "items": one}]})


def _text(value: str) -> str:
    if not value or values.has_control_characters(value):
        msg = "expected a text that is not empty and has no control characters"
        raise ValueError(msg)
    return value


_DURATION_SCHEMA: dict[str, object] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?$|\$\{.+\}"},
    ]
}
_SIZE_SCHEMA: dict[str, object] = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?\s*([KkMmGg]?[Bb]|[KkMmGg][Ii][Bb])?$|\$\{.+\}",
        },
    ]
}

Seconds = Annotated[
    float, BeforeValidator(values.parse_positive_seconds), WithJsonSchema(_DURATION_SCHEMA)
]
SecondsOrZero = Annotated[
    float, BeforeValidator(values.parse_seconds), WithJsonSchema(_DURATION_SCHEMA)
]
ByteCount = Annotated[int, BeforeValidator(values.parse_bytes), WithJsonSchema(_SIZE_SCHEMA)]
Count = Annotated[int, AfterValidator(_positive)]
CountOrZero = Annotated[int, AfterValidator(_count_or_zero)]
Ratio = Annotated[float, AfterValidator(_ratio)]
PositiveRatio = Annotated[float, AfterValidator(_positive_ratio)]
CallerHeader = Annotated[str, AfterValidator(_caller_header)]
Text = Annotated[str, AfterValidator(_text)]
Globs = Annotated[
    tuple[Text, ...], BeforeValidator(_one_or_several), _several_schema({"type": "string"})
]
Modalities = Annotated[
    tuple[Modality, ...],
    BeforeValidator(_one_or_several),
    _several_schema({"enum": list(get_args(Modality)), "type": "string"}),
]
ListenAddress = Annotated[str, AfterValidator(values.listen_address)]
BaseUrl = Annotated[str, AfterValidator(values.base_url)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
HeaderName = Annotated[str, AfterValidator(values.header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]
ProviderName = Annotated[str, AfterValidator(values.provider_name)]
PublicName = Annotated[str, AfterValidator(values.public_name)]
Origin = Annotated[str, AfterValidator(values.origin)]
Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["text", "json"], BeforeValidator(_lower)]
