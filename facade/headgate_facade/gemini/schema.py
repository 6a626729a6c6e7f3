"""Google's `Schema` to JSON Schema. Pure.

A `Schema` is a part of OpenAPI 3.0's (https://ai.google.dev/api/caching#Schema): types in capitals,
`nullable`, numbers as text, an order of properties. Other vendors take JSON Schema only, and Gemini takes
it, too (`parametersJsonSchema`, `responseJsonSchema`), so that is what travels. The order of
properties is said by their order in the text, which stays as it is on the whole way.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from headgate.errors import InvalidRequest

_LARGEST_KEPT = 16 * 1024
_MAX_DEPTH = 64

# Keywords that only Google, or only snake_case, spells like this.
_KEYWORDS = {
    "any_of": "anyOf", "max_items": "maxItems", "min_items": "minItems", "max_length": "maxLength",
    "min_length": "minLength", "max_properties": "maxProperties", "min_properties": "minProperties",
    "additional_properties": "additionalProperties", "property_ordering": "propertyOrdering",
    "defs": "$defs", "ref": "$ref",
}  # fmt: skip
# 64-bit integers, which proto JSON writes as text.
_COUNTS = frozenset(
    ("maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties")
)
_INT = re.compile(r"-?\d{1,18}").fullmatch


def json_schema(schema: msgspec.Raw, path: str) -> str:
    """The same schema as JSON Schema text.

    Args:
        schema: a `Schema`; one that is a JSON Schema already stays the same but for white space.
        path: where it stands, for errors.

    Raises:
        InvalidRequest: it is not an object.
    """
    text = bytes(schema)
    # The tools of an agent come again with every turn.
    return (_kept if len(text) <= _LARGEST_KEPT else _converted)(text, path)


def _converted(text: bytes, path: str) -> str:
    try:
        parsed = msgspec.json.decode(text, type=dict[str, Any])
        return msgspec.json.encode(_convert(parsed, 0)).decode()
    except msgspec.ValidationError as error:
        raise InvalidRequest.of(path, "must be an object") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest.of(path, "is no valid schema, or nested too deeply") from error


_kept = lru_cache(maxsize=256)(_converted)


def _convert(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict):
        return schema
    if depth > _MAX_DEPTH:
        raise RecursionError
    out: dict[str, Any] = {}
    for keyword, value in schema.items():
        name = _KEYWORDS.get(keyword) or str(keyword)
        if name == "type":
            if value != "TYPE_UNSPECIFIED":
                out[name] = _type(value)
        elif name in ("properties", "$defs") and isinstance(value, dict):
            out[name] = {key: _convert(inner, depth + 1) for key, inner in value.items()}
        elif name in ("items", "additionalProperties"):
            out[name] = _convert(value, depth + 1)
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            out[name] = [_convert(inner, depth + 1) for inner in value]
        elif name in _COUNTS and isinstance(value, str) and value.isdecimal():
            out[name] = int(value)
        elif name == "$ref" and isinstance(value, str):
            out[name] = value.replace("#/defs/", "#/$defs/", 1)
        elif name == "example":
            out["examples"] = [value]
        elif not (name in ("nullable", "propertyOrdering") or (name, value) == ("format", "enum")):
            out[name] = value
    if out.get("type") == "integer" and isinstance(out.get("enum"), list):
        # Google's enums are texts, whatever the type.
        out["enum"] = [int(v) if isinstance(v, str) and _INT(v) else v for v in out["enum"]]
    _order(out, schema.get("propertyOrdering", schema.get("property_ordering")))
    if schema.get("nullable") is True:
        _allow_null(out)
    return out


def _type(value: Any) -> Any:
    if isinstance(value, list):
        return [_type(each) for each in value]
    return value.lower() if isinstance(value, str) else value


def _order(schema: dict[str, Any], ordering: Any) -> None:
    properties = schema.get("properties")
    if isinstance(properties, dict) and isinstance(ordering, list):
        first = [name for name in ordering if isinstance(name, str) and name in properties]
        schema["properties"] = {
            name: properties[name] for name in dict.fromkeys([*first, *properties])
        }


def _allow_null(schema: dict[str, Any]) -> None:
    types = schema.get("type")
    if isinstance(types, str):
        schema["type"] = [types, "null"]
    elif isinstance(types, list) and "null" not in types:
        schema["type"] = [*types, "null"]
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
