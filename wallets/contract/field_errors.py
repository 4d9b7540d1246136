"""Describes invalid fields in the service's own words: pydantic's texts name its classes, not the request."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from pydantic_core.core_schema import ErrorType

from wallets.problems import FieldError

MAX_FIELD_ERRORS: Final = 20
BULK_ITEM_KINDS: Final = ("operation", "transfer")
BULK_ITEM_KIND_INDEX: Final = 2  # as in operations.3.transfer.amount
_OF_PYDANTIC: Final = frozenset(get_args(ErrorType))
# The API's code and text by error type, with the values of the error's context in braces.
_OWN: Final = {
    "missing": ("required", "is required"),
    "extra_forbidden": ("unknown_field", "is not a field or parameter of this request"),
    "literal_error": ("unknown_value", "must be {expected}"),
    "too_short": ("too_short", "must not be empty"),  # every minimum is 1
    "too_long": ("too_long", "at most {max_length} {unit}"),
    "metadata_too_long": ("too_long", "at most {limit} bytes of JSON"),
    "string_too_short": ("too_short", "must not be empty"),
    "string_too_long": ("too_long", "at most {max_length} characters"),
    "string_type": ("invalid_type", "must be a string"),
    "string_unicode": ("invalid_text", "must be Unicode text"),
    "string_pattern_mismatch": ("invalid", "has characters that are not allowed"),
    "model_type": ("invalid_type", "must be an object"),
    "list_type": ("invalid_type", "must be an array"),
    "bool_type": ("invalid_type", "must be true or false"),
    "greater_than_equal": ("out_of_range", "at least {ge}"),
    "less_than_equal": ("out_of_range", "at most {le}"),
}
NO_NAMES: Final[Mapping[str, str]] = {}
_OTHER: Final = ("invalid", "is not valid")


@cache
def names_in(schema: type[BaseModel]) -> Mapping[str, str]:
    """Return the field names of the schema, and of the schemas of its lists, by their plain spelling."""
    document = schema.model_json_schema()
    schemas = [document, *document.get("$defs", {}).values()]
    return {_plain(name): name for found in schemas for name in found.get("properties", {})}


def _plain(name: str) -> str:
    """Return the name without what other conventions spell differently: wallet_id, WalletId, walletID."""
    return name.replace("_", "").replace("-", "").lower()


def field_errors(error: PydanticError, names: Mapping[str, str] = NO_NAMES) -> list[FieldError]:
    """Return the first MAX_FIELD_ERRORS errors, and one that counts the others.

    An unknown field that is another spelling of one of the `names` is told this name.
    """
    found = error.errors(include_url=False, include_input=False)
    told = [_field_error(item, names) for item in found[:MAX_FIELD_ERRORS]]
    if more := len(found) - len(told):
        told.append(FieldError("", "more", f"and {more} more"))
    return told


def _field_error(error: Mapping[str, Any], names: Mapping[str, str]) -> FieldError:
    # "operation" and "transfer" are the kinds of bulk items, not names of fields.
    place = [str(part) for part in error["loc"]]
    field = ".".join(
        part for at, part in enumerate(place) if at != BULK_ITEM_KIND_INDEX or part not in BULK_ITEM_KINDS
    )
    if error["type"] not in _OWN and error["type"] not in _OF_PYDANTIC:
        return FieldError(field, error["type"], error["msg"])  # an error of our own fields
    code, text = _OWN.get(error["type"], _OTHER)
    if code == "unknown_field" and (meant := names.get(_plain(place[-1]))):
        return FieldError(field, code, f"{text}; write {meant}")
    values = error.get("ctx", {})
    unit = "items" if values.get("field_type") == "List" else "characters"
    return FieldError(field, code, text.format_map({**values, "unit": unit}))
