"""Walks the OpenAPI document."""

from collections.abc import Iterator
from typing import Any


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in the value, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from objects(item)


def inlined(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the shared responses and examples in place of the references to them."""

    def copy(value: Any) -> Any:
        if isinstance(value, list):
            return [copy(item) for item in value]
        if not isinstance(value, dict):
            return value
        _, _, kind, name = str(value.get("$ref", "///")).split("/")
        if kind in ("responses", "examples"):
            return copy(document["components"][kind][name])
        return {key: copy(item) for key, item in value.items()}

    return document | {"paths": copy(document["paths"])}


def refers_to(document: dict[str, Any], value: Any) -> set[str]:
    """Return the names of the schemas to which the value refers, directly or through other schemas."""
    found: set[str] = set()
    values = [value]
    while values:
        names = {
            each["$ref"].rpartition("/")[2]
            for each in objects(values.pop())
            if "/schemas/" in each.get("$ref", "")
        }
        values += [document["components"]["schemas"][name] for name in names - found]
        found |= names
    return found
