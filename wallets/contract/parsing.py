"""Parses a request into a checked schema and the context of its command. Malformed requests are refused here.

The checks, in this order: media type, length, number of values, nesting, JSON, schema. Cheap checks precede
expensive ones, so that refusing a body costs little.
"""

import codecs
import json
import re
from collections import Counter
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson
from django.conf import settings
from django.utils.http import parse_header_parameters
from gunicorn.http.errors import ParseException
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from rest_framework.request import Request

from wallets.access.authentication import principal
from wallets.access.rights import Principal, command_fields
from wallets.contract.field_errors import field_errors, names_in
from wallets.problems import (
    BadRequest,
    FieldError,
    MalformedJson,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationError,
)

SchemaT = TypeVar("SchemaT", bound=BaseModel)

_USUAL_CONTENT_TYPES: Final = ("application/json", "application/json; charset=utf-8")
# Without quotes no comma is allowed: the server joins the values of a repeated header with a comma.
_KEY: Final = re.compile(r'"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x2b\x2d-\x7e]{1,255})')
_TAGS: Final = re.compile(r'(?:W/)?("[^"]*")|([^\s,]+)')
_CODINGS: Final = re.compile(r"[a-z0-9-]{1,20}(, ?[a-z0-9-]{1,20}){0,3}")
IDENTITY: Final = "identity"  # no coding
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"?')


MAX_SHOWN_NAME: Final = 40  # characters, in an error
MAX_NESTING: Final = 32  # levels: 16 for metadata, and those around it in a bulk
QUOTES_PER_VALUE: Final = 4  # two around the name, two around the value
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # or an unterminated string
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class JsonNumber(str):
    """A number as the text of the body, so that no binary float loses digits before Decimal."""

    __slots__ = ()


def read(request: Request, schema: type[SchemaT]) -> SchemaT:
    """Return the body as an instance of `schema`.

    Raises UnsupportedMediaType, PayloadTooLarge, MalformedJson or ValidationError.
    """
    return check(schema, read_object(request))


def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of the body. Raises as `read` does, except ValidationError."""
    if not _is_json(request.META.get("CONTENT_TYPE") or ""):
        raise UnsupportedMediaType("Send `Content-Type: application/json`, in UTF-8.")
    if (coding := request.META.get("HTTP_CONTENT_ENCODING", "").strip().lower()) not in ("", IDENTITY):
        raise _unsupported(coding)
    body = _body(request)
    require_bounded(body, _view(request).max_values)
    return parse_object(body)


def _is_json(content_type: str) -> bool:
    """Whether the body is JSON in UTF-8. Parameters other than charset mean nothing (RFC 8259, 11)."""
    if content_type in _USUAL_CONTENT_TYPES:
        return True
    media_type, parameters = parse_header_parameters(content_type)
    is_repeated = content_type.lower().count("charset") > 1
    charset = parameters.get("charset", "utf-8").lower()
    return media_type == "application/json" and charset in ("utf-8", "utf8") and not is_repeated


def _unsupported(coding: str) -> UnsupportedMediaType:
    named = f"`{coding}`" if _CODINGS.fullmatch(coding) else "the encoding of the body"
    problem = UnsupportedMediaType(f"Send the body without Content-Encoding: {named} is not supported.")
    problem.headers = {"Accept-Encoding": IDENTITY}  # RFC 9110, 15.5.16
    return problem


def _view(request: Request) -> Any:
    return request.parser_context["view"]


def read_optional(request: Request, schema: type[SchemaT]) -> SchemaT:
    """Return the body as `read` does; a missing body counts as an empty object. Raises as `read` does."""
    has_none = request.META.get("CONTENT_LENGTH") in (None, "", "0")
    if has_none and not request.META.get("HTTP_TRANSFER_ENCODING"):
        return check(schema, {})
    return read(request, schema)


def check(schema: type[SchemaT], fields: dict[str, Any]) -> SchemaT:
    try:
        return schema.model_validate(fields)
    except PydanticError as error:
        raise ValidationError(errors=field_errors(error, names_in(schema))) from None


def _body(request: Request) -> bytes:
    limit: int = min(settings.MAX_BODY_BYTES, _view(request).max_body_bytes)
    too_large = PayloadTooLarge(f"A body has at most {limit} bytes.")
    if request.META.get("HTTP_TRANSFER_ENCODING"):
        # Django treats a body without Content-Length as empty, but the server has decoded the chunks.
        body = _chunked_body(request, limit + 1)
    elif int(request.META.get("CONTENT_LENGTH") or 0) > limit:
        raise too_large
    else:
        body = request._request.body
    if len(body) > limit:
        raise too_large
    return body


def _chunked_body(request: Request, most: int) -> bytes:
    try:
        body: bytes = request.META["wsgi.input"].read(most)
    except (OSError, ParseException):
        raise BadRequest("The body is incomplete, or its chunks are malformed.") from None
    return body


def require_bounded(body: bytes, max_values: int) -> None:
    """Refuse a body that would take long to parse and check.

    Every value except the first follows a comma or an opening bracket. Commas and brackets in strings do not
    count: strings are removed first, unless there are few of both. Raises MalformedJson.
    """
    if _separators(body) <= min(max_values, MAX_NESTING):
        return
    too_many = MalformedJson(f"The body has more than {max_values} values.")
    if body.count(b'"') - body.count(b'\\"') > QUOTES_PER_VALUE * (max_values + 1):
        raise too_many
    structure = _without_strings(body)
    if _separators(structure) > max_values:
        raise too_many
    if _is_nested_deeper(structure.translate(None, _NOT_BRACKETS), MAX_NESTING):
        raise MalformedJson(f"The body is nested more than {MAX_NESTING} levels, or brackets do not match.")


def _without_strings(body: bytes) -> bytes:
    if b"\\" in body:
        return _STRING.sub(b"", body)
    return b"".join(body.split(b'"')[::2])  # ten times as fast as a regular expression


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"{") + text.count(b"[")


def _is_nested_deeper(brackets: bytes, levels: int) -> bool:
    """Whether brackets remain after removing the innermost pairs MAX_NESTING times."""
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object; a byte order mark before it is ignored (RFC 8259, 8.1).

    Raises MalformedJson for anything else, including duplicate keys and NaN.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body.strip():
        raise MalformedJson("The body is empty. Send one JSON object.")
    try:
        value = _DECODER.decode(body.decode())
    except UnicodeDecodeError:
        raise MalformedJson("The body is not UTF-8.") from None
    except RecursionError:
        raise MalformedJson("The body is nested too deeply.") from None
    except ValueError as error:
        raise MalformedJson(str(error)) from None
    if not isinstance(value, dict):
        raise MalformedJson("The body must be a JSON object.")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"An object contains the name {orjson.dumps(name[:MAX_SHOWN_NAME]).decode()} twice.")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


_DECODER: Final = json.JSONDecoder(  # json.loads would create one for each body
    object_pairs_hook=_without_duplicates,
    parse_int=JsonNumber,
    parse_float=JsonNumber,
    parse_constant=_no_constant,
)


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key header, with or without quotes.

    Raises ValidationError for any other value, and for a repeated header.
    """
    header: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = _KEY.fullmatch(header)
    if match is None:
        detail = "send one key of 1 to 255 visible ASCII characters; a key with a comma in double quotes"
        raise ValidationError(errors=[FieldError("Idempotency-Key", "invalid", detail)])
    return match[1] or match[2]


def request_key(request: Request, chosen_id: UUID | None) -> str | None:
    """Return the header's key. Raises ValidationError if the body has an id as well."""
    key = idempotency_key(request)
    if chosen_id and key:
        raise ValidationError(
            errors=[FieldError("id", "conflict", "give either an id or an Idempotency-Key")]
        )
    return key


def command_context(request: Request, chosen_id: UUID | None, *, may_be_async: bool = True) -> dict[str, Any]:
    """Return the fields of a command that come from its request, not from its body.

    They are the actor, the owner restriction, the id or the key, and whether the client asked for an
    asynchronous response. Raises ValidationError for a malformed key, or for a key beside an id.
    """
    key = request_key(request, chosen_id)
    return context_of(principal(request), key, chosen_id, may_be_async and wants_async(request))


def details_in(body: Any) -> dict[str, Any]:
    """Return the fields of a command that hold the client's own data."""
    return {"reference": body.reference, "description": body.description, "metadata": body.metadata}


def context_of(caller: Principal, key: str | None, chosen_id: UUID | None, is_async: bool) -> dict[str, Any]:
    """Return the command context of one item of a bulk, as `command_context` does for a single command."""
    fields = command_fields(caller) | {"is_async": is_async}
    if chosen_id:
        return fields | {
            "id": chosen_id,
            "key": caller.stored_key(str(chosen_id)),
            "client_chose_id": True,
        }
    return fields | {"key": caller.stored_key(key)}


def wants_async(request: Request) -> bool:
    return prefers(request, "respond-async")


def names_tag(header: str | None, tag: str) -> bool:
    """Whether an If-Match or If-None-Match header names the entity tag (RFC 9110, 13.1.1 and 13.1.2).

    A weak tag matches If-Match too, because a proxy that compresses responses weakens ours.
    """
    if header is None:
        return False
    if header.strip() == "*":
        return True
    found = _TAGS.findall(header)
    is_malformed = any(junk for _, junk in found)
    return not is_malformed and tag in [quoted for quoted, _ in found]


def prefers(request: Request, preference: str) -> bool:
    """Whether a Prefer header names the preference (RFC 7240)."""
    header: str | None = request.META.get("HTTP_PREFER")
    if header is None:
        return False
    return any(item.split(";")[0].strip().lower() == preference for item in items_of(header))


def items_of(header: str) -> list[str]:
    """Return the items of a list header, without the texts in quotes: a comma in them is no separator."""
    return _QUOTED.sub('""', header).split(",")
