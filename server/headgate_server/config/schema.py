"""The JSON Schema of the configuration file, for editors and documentation.

``python -m headgate_server.config.schema > docs/headgate.schema.json`` writes it. It is never
stricter than the loader about ``${ENV}``; what it cannot express, the loader checks.
"""

import json
import sys
from collections.abc import Collection
from typing import Any

from headgate_server.config.model import Config

_REFERENCE: dict[str, object] = {"type": "string", "pattern": r"\$\{.+\}"}


def config_schema(kinds: Collection[str] = ()) -> dict[str, Any]:
    """Return the JSON Schema of the file; with kinds, editors offer them for ``kind``."""
    generated = Config.model_json_schema()
    for definition in (generated, *generated["$defs"].values()):
        for name, schema in definition["properties"].items():
            schema.pop("title", None)
            optional = name not in definition.get("required", ())
            definition["properties"][name] = _widen(schema, null=optional)
        definition.pop("title", None)
    if kinds:
        kind = generated["$defs"]["Provider"]["properties"]["kind"]
        kind.pop("type")
        kind["anyOf"] = [{"enum": sorted(kinds)}, _REFERENCE]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headgate configuration",
        **generated,
    }


def _widen(schema: dict[str, Any], *, null: bool = False) -> dict[str, Any]:
    """Let ``${ENV}`` stand for any scalar, and nothing stand for a default."""
    if "items" in schema:
        schema["items"] = _widen(schema["items"])
    choices = [_widen(choice) for choice in schema.pop("anyOf", [])]
    is_scalar = schema.get("type") in {"integer", "number", "boolean"} or "enum" in schema
    if not choices and not is_scalar and not null:
        return schema
    notes: dict[str, Any] = {
        key: schema.pop(key) for key in ("description", "default", "examples") if key in schema
    }
    flat: list[dict[str, Any]] = []
    for choice in choices or [schema]:
        flat.extend(choice.get("anyOf", [choice]))
    if is_scalar:
        flat.append(_REFERENCE)
    if null and {"type": "null"} not in flat:
        flat.append({"type": "null"})
    return {**notes, "anyOf": [c for i, c in enumerate(flat) if c not in flat[:i]]}


def main() -> None:
    """Write the schema to standard output."""
    sys.stdout.write(json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
