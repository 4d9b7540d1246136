"""The types of fields: how requests are validated, and how responses write values."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from django.conf import settings
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from wallets import money
from wallets.access.people import MAX_EMAIL, MAX_NAME, MAX_PASSWORD, is_email, is_name
from wallets.contract.parsing import JsonNumber
from wallets.ledger import MAX_METADATA_BYTES
from wallets.operation_types import NAMES

MAX_KEY_LENGTH: Final = 255  # of the column
MAX_METADATA_DEPTH: Final = 16
MAX_REFERENCE_LENGTH: Final = 255
MAX_METADATA_FILTERS: Final = 5
MAX_SHOWN_NUMBER_CHARACTERS: Final = 40  # in an error
MAX_SHOWN_POINTER_CHARACTERS: Final = 100
MORE_THAN_ZERO: Final = "more than zero"
# Integers that every JSON implementation reads exactly (RFC 7493, I-JSON).
MAX_SAFE_NUMBER: Final = 2**53 - 1
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_WHOLE: Final = re.compile(r"-?[0-9]+(\.0+)?")  # 1.0 is an integer in JSON Schema
_WHOLE_IN_QUERY: Final = re.compile(r"-?[0-9]+")
MAX_WHOLE_NUMBER_DIGITS: Final = 18
_SPACE_FOR_PLUS: Final = re.compile(r" (?=[0-9]{2}:[0-9]{2}$)")


def _amount(value: object, minimum: str = "zero or more") -> Decimal:
    """Return the amount that a number or string of the body writes, as a Decimal."""
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_amount", "an amount is a number or a string of digits")
    try:
        amount = money.parse(value.removeprefix("-"))
    except ValueError as error:
        raise PydanticCustomError("invalid_amount", "{reason}", {"reason": str(error)}) from None
    if value.startswith("-"):
        raise PydanticCustomError("invalid_amount", "{minimum}", {"minimum": minimum})
    if amount > settings.MAX_AMOUNT:
        raise _out_of_range(f"at most {settings.MAX_AMOUNT:f}")
    return amount


def _positive(value: object) -> Decimal:
    amount = _amount(value, MORE_THAN_ZERO)
    if not amount:
        raise _out_of_range(MORE_THAN_ZERO)
    return amount


def _out_of_range(range_: str) -> PydanticCustomError:
    return PydanticCustomError("out_of_range", "{range}", {"range": range_})


def text_of(value: object) -> str:
    if not isinstance(value, str) or isinstance(value, JsonNumber):
        raise PydanticCustomError("invalid_type", "must be a string")
    if "\x00" in value or not _is_unicode(value):
        raise PydanticCustomError("invalid_text", "must be Unicode text without NUL")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _key(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", text):
        raise PydanticCustomError("invalid", "1 to 255 visible ASCII characters")
    return text


def _visible(value: object) -> str:
    text = text_of(value)
    if not text or not all(character.isprintable() and not character.isspace() for character in text):
        raise PydanticCustomError("invalid_text", "must be visible characters without spaces")
    return text


def _email(value: object) -> str:
    text = text_of(value)
    if is_email(text):
        return text
    detail = "must be an e-mail address such as anna@example.com"
    if is_email(text.strip()):
        detail = "must have no space before or after the e-mail address"
    elif not text.isascii():
        detail = "must be in ASCII letters; write an international domain in its form xn--"
    raise PydanticCustomError("invalid_email", "{detail}", {"detail": detail})


def _name(value: object) -> str:
    text = text_of(value).strip()
    if not is_name(text):
        raise PydanticCustomError("invalid_text", "must contain printable characters other than spaces")
    return text


def _id(value: object) -> UUID:
    text = text_of(value)
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = UUID(int=0)
    # UUID() also accepts braces, urn: and no hyphens; the nil UUID names nothing (RFC 9562).
    if str(parsed) != text.lower() or not parsed.int:
        raise PydanticCustomError("invalid_id", "must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")
    return parsed


def _currency(value: object) -> str:
    """Return the code of a currency in which wallets can be opened."""
    code = text_of(value)
    if code in money.WITHDRAWN:
        raise PydanticCustomError("unknown_currency", "is a withdrawn currency; choose a current one")
    if code not in money.FRACTION_DIGITS:
        code = code.upper() if code.upper() in money.OPENABLE else "EUR"
        raise PydanticCustomError(
            "unknown_currency", "must be a currency code of ISO 4217 such as {code}", {"code": code}
        )
    return code


def _metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticCustomError("invalid_type", "must be an object")
    checked: dict[str, Any] = _json(value, ())
    if len(orjson.dumps(checked)) > MAX_METADATA_BYTES:
        raise PydanticCustomError("metadata_too_long", "too long", {"limit": MAX_METADATA_BYTES})
    return checked


def _types(value: object) -> list[str]:
    return text_of(value).split(",")


def _metadata_filters(value: object) -> dict[str, str]:
    """Return the values by the top-level keys that the query names as `metadata.key=value`."""
    if not isinstance(value, dict):
        raise PydanticCustomError("invalid_type", "name a key, such as metadata.order=7")
    if len(value) > MAX_METADATA_FILTERS:
        raise PydanticCustomError("too_many", "at most {limit} keys", {"limit": MAX_METADATA_FILTERS})
    return {text_of(key): text_of(text) for key, text in value.items()}


def _known_currency(value: object) -> str:
    code = text_of(value)
    if code not in money.FRACTION_DIGITS:
        raise PydanticCustomError("unknown_currency", "must be a currency code of ISO 4217 such as EUR")
    return code


def _json(value: object, path: tuple[str | int, ...]) -> Any:
    """Return the value with parsed numbers, if PostgreSQL and all clients represent it exactly."""
    if len(path) >= MAX_METADATA_DEPTH:
        raise PydanticCustomError(
            "too_deep", "nested more than {limit} levels", {"limit": MAX_METADATA_DEPTH}
        )
    match value:
        case JsonNumber():
            return _json_number(value, path)
        case str():
            return _json_text(value, path)
        case dict():
            return {_json_text(key, path): _json(item, (*path, key)) for key, item in value.items()}
        case list():
            return [_json(item, (*path, place)) for place, item in enumerate(value)]
    return value


def _json_text(text: str, path: tuple[str | int, ...]) -> str:
    if "\x00" in text or not _is_unicode(text):
        raise _invalid_at(path, "invalid_text", "every text must be Unicode without NUL")
    return text


def _json_number(text: JsonNumber, path: tuple[str | int, ...]) -> int | float:
    """Return the number if a double represents it exactly, so that every client reads the same value."""
    number = float(text)
    if abs(number) > MAX_SAFE_NUMBER:
        detail = "numbers are at most 2^53 - 1; write larger ones as strings"
        raise _invalid_at(path, "out_of_range", detail)
    if not _is_exactly(number, text):
        detail = (
            f"{text[:MAX_SHOWN_NUMBER_CHARACTERS]} has more digits than JSON numbers keep"
            " (IEEE 754 doubles); write it as a string"
        )
        raise _invalid_at(path, "inexact_number", detail)
    if text.lstrip("-").isdecimal():
        return int(text)
    return number or 0.0  # zero in jsonb has no sign


def _invalid_at(path: tuple[str | int, ...], code: Any, detail: str) -> PydanticCustomError:
    """Return an error that names the place in the metadata as a JSON Pointer (RFC 6901)."""
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    shown = pointer[:MAX_SHOWN_POINTER_CHARACTERS].encode(errors="replace").decode()
    return PydanticCustomError(code, "at {place}: {detail}", {"place": shown or "the top", "detail": detail})


def _is_exactly(number: float, text: str) -> bool:
    """Whether the shortest decimal of this double equals the text."""
    try:
        return Decimal(repr(number)) == Decimal(text)
    except ArithmeticError:  # an exponent out of the range of Decimal
        return False


def whole_number(minimum: int, maximum: int, *, in_query: bool = False) -> BeforeValidator:
    """Return the validator of a whole number within the bounds.

    It follows the bounds of the field: a validator before them would hide them from the OpenAPI document.
    """
    kind, pattern = (str, _WHOLE_IN_QUERY) if in_query else (JsonNumber, _WHOLE)

    def checked(value: object) -> int:
        # int() also accepts "1_000", " 5" and digits of other scripts.
        if not isinstance(value, kind) or not pattern.fullmatch(value):
            raise PydanticCustomError("invalid_type", "must be a whole number")
        digits = value.partition(".")[0]
        if len(digits) > MAX_WHOLE_NUMBER_DIGITS or not minimum <= int(digits) <= maximum:
            raise _out_of_range(f"{minimum} to {maximum}")
        return int(digits)

    return BeforeValidator(checked)


def _flag(value: object) -> bool:
    """Return the flag of a query."""
    if value not in ("true", "false"):
        raise PydanticCustomError("invalid_type", "must be true or false")
    return value == "true"


def _time(value: object) -> datetime:
    """Return the time in UTC. Digits after the microseconds are cut: .NET and Go write 7 and 9 of them."""
    text = text_of(value)
    try:
        if not _RFC_3339.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError(
            "invalid_time", "must be a time of RFC 3339 with its offset, such as 2026-10-30T00:00:00Z"
        ) from None


def _time_of_query(value: object) -> datetime:
    """Return the time of a query, in which a plus sign that is not percent-encoded arrives as a space."""
    return _time(_SPACE_FOR_PLUS.sub("+", text_of(value)))


def format_time(time: datetime) -> str:
    """Return the time in RFC 3339 with six fraction digits. It must be in UTC."""
    if not time.microsecond:  # orjson omits zero microseconds
        return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    return orjson.dumps(time, option=orjson.OPT_UTC_Z)[1:-1].decode()  # four times as fast as isoformat


_AMOUNT_TEXT: Final = {"type": "string", "pattern": r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", "maxLength": 40}


def _amount_schema(number: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "oneOf": [_AMOUNT_TEXT, {"type": "number"} | number],
            "description": "A decimal with at most the fraction digits of the currency. A JSON number is"
            " read from its text, never through a binary float.",
            "examples": ["115.60"],
        }
    )


# The checks above as JSON Schema, for the document only.
_TEXT: Final = {"pattern": r"^[^\u0000]*$"}
_NAME: Final = {"pattern": r"\S"}
_EMAIL: Final = {"format": "email"}

# A TypeAliasType is a component of the document, from which a generated client gets a type with this name.
Amount = TypeAliasType("Amount", Annotated[Decimal, BeforeValidator(_amount), _amount_schema({"minimum": 0})])
PositiveAmount = TypeAliasType(
    "PositiveAmount", Annotated[Decimal, BeforeValidator(_positive), _amount_schema({"exclusiveMinimum": 0})]
)
# A query has no numbers: a client would write some of them with an exponent.
AmountParameter = TypeAliasType(
    "AmountParameter",
    Annotated[Decimal, BeforeValidator(_amount), WithJsonSchema(_AMOUNT_TEXT | {"examples": ["115.60"]})],
)
Id = Annotated[UUID, BeforeValidator(_id)]
CurrencyCode = TypeAliasType(
    "CurrencyCode",
    Annotated[
        str,
        BeforeValidator(_currency),
        WithJsonSchema(
            {"type": "string", "enum": list(money.OPENABLE), "description": "ISO 4217", "examples": ["EUR"]}
        ),
    ],
)
CurrencyFilter = Annotated[str, BeforeValidator(_known_currency), Field(examples=["EUR"])]
Label = Annotated[str, BeforeValidator(text_of), Field(max_length=200, json_schema_extra=_TEXT)]
Name = Annotated[str, BeforeValidator(_name), Field(max_length=MAX_NAME, json_schema_extra=_NAME)]
Email = Annotated[
    str,
    BeforeValidator(_email),
    Field(max_length=MAX_EMAIL, examples=["anna@example.com"], json_schema_extra=_EMAIL),
]
Login = Annotated[str, BeforeValidator(text_of), Field(max_length=MAX_EMAIL, json_schema_extra=_TEXT)]
Password = Annotated[str, BeforeValidator(text_of), Field(max_length=MAX_PASSWORD, json_schema_extra=_TEXT)]
Description = Annotated[str, BeforeValidator(text_of), Field(max_length=500, json_schema_extra=_TEXT)]
Reference = Annotated[
    str,
    BeforeValidator(text_of),
    Field(
        max_length=MAX_REFERENCE_LENGTH,
        description="Your own name for the movement, such as an order number; not unique.",
        json_schema_extra=_TEXT,
    ),
]
ExternalId = Annotated[
    str,
    BeforeValidator(_visible),
    Field(
        min_length=1,
        max_length=MAX_REFERENCE_LENGTH,
        description="Your own name for the wallet; unique among the wallets of one owner.",
        examples=["customer-4711"],
        json_schema_extra={"pattern": r"^[^\s]+$"},
    ),
]
Metadata = Annotated[
    dict[str, Any],
    BeforeValidator(_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": True,
            "description": f"Your own data; at most {MAX_METADATA_BYTES} bytes of JSON. A number that an IEEE"
            " 754 double does not represent exactly, or beyond 2^53 - 1, is refused: send it as a string.",
        },
    ),
]
MetadataPatch = Annotated[
    dict[str, Any],
    BeforeValidator(_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "description": "A merge patch (RFC 7396) of the metadata: a member with null is removed,"
            f" members that are not named stay. The result has at most {MAX_METADATA_BYTES} bytes of JSON.",
            "examples": [{"till": "7", "closedBy": None}],
        },
    ),
]
if TYPE_CHECKING:
    OperationType = str
else:
    OperationType = TypeAliasType("OperationType", Literal[NAMES])
DepositOrWithdraw = TypeAliasType("DepositOrWithdraw", Literal["DEPOSIT", "WITHDRAW"])
WalletStatus = TypeAliasType("WalletStatus", Literal["ACTIVE", "FROZEN", "CLOSED"])
OperationStatus = TypeAliasType("OperationStatus", Literal["PENDING", "COMPLETED", "REJECTED"])
DecidedStatus = TypeAliasType("DecidedStatus", Literal["COMPLETED", "REJECTED"])
HoldStatus = TypeAliasType("HoldStatus", Literal["ACTIVE", "CAPTURED", "VOIDED", "EXPIRED"])
CsvSeparator = TypeAliasType("CsvSeparator", Literal["comma", "semicolon"])
WebhookStart = TypeAliasType("WebhookStart", Literal["now", "beginning"])
StreamEventType = TypeAliasType("StreamEventType", Literal["message", "gap"])
EventType = TypeAliasType(
    "EventType",
    Literal[
        "wallet.opened",
        "wallet.changed",
        "wallet.operation.completed",
        "wallet.operation.rejected",
        "wallet.balance.changed",
        "wallet.hold.placed",
        "wallet.hold.captured",
        "wallet.hold.voided",
        "wallet.hold.expired",
    ],
)
Types = Annotated[list[OperationType], BeforeValidator(_types), Field(min_length=1)]
MetadataFilters = Annotated[dict[str, str], BeforeValidator(_metadata_filters)]
PrintableText = Annotated[str, BeforeValidator(_name), Field(json_schema_extra=_NAME)]
Key = Annotated[
    str,
    BeforeValidator(_key),
    Field(min_length=1, max_length=MAX_KEY_LENGTH, json_schema_extra={"pattern": r"^[\x21-\x7e]+$"}),
]
Money = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", examples=["1000.00"])]
Time = Annotated[
    datetime, PlainSerializer(format_time), WithJsonSchema({"type": "string", "format": "date-time"})
]


Limit = Annotated[int, Field(ge=1, le=500), whole_number(1, 500, in_query=True)]
Seconds = Annotated[int, Field(ge=0, le=300), whole_number(0, 300, in_query=True)]
Flag = Annotated[bool, BeforeValidator(_flag)]
TimeParameter = Annotated[datetime, BeforeValidator(_time_of_query)]
TimeInBody = Annotated[datetime, BeforeValidator(_time)]


class Schema(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)
