"""The request parsers read valid input exactly and refuse all other input with a Problem."""

import codecs
import inspect
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.support.fuzz.budget import examples
from tests.support.fuzz.strategies import bodies, json_texts, objects, texts
from wallets import money
from wallets.contract import request_schemas
from wallets.contract.fields import Schema
from wallets.contract.paging import Cursor, NumberCursor, TimeCursor
from wallets.contract.parsing import JsonNumber, check, parse_object
from wallets.events.target_policy import NotAllowed, check_url
from wallets.problems import MalformedJson, ValidationError

SHAPES = [
    shape
    for name, shape in inspect.getmembers(request_schemas, inspect.isclass)
    if issubclass(shape, Schema) and shape is not Schema and not name.startswith("_")
]
GOOD_AMOUNTS = st.from_regex(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,30})?", fullmatch=True)
BAD_AMOUNTS = st.from_regex(r"[+-]?[0-9٠-٩_, ]{0,25}[.,]?[0-9]{0,25}([eE][+-]?[0-9]{1,4})?", fullmatch=True)
AMOUNTS = GOOD_AMOUNTS | BAD_AMOUNTS


@examples(300)
@given(st.binary() | json_texts.map(str.encode) | bodies)
@example(b'{"a": 1, "a": 1}')
@example(b'{"a": {"b": 1, "\\u0062": 1}}')
@example(b'{"a": Infinity}')
@example(b'{"a":' * 100_000)
@example(b'{"a": "\\ud800"}')
@example(b"\xef\xbb\xbf{}")
@example(b'{"a": ' + b"1" * 100_000 + b"}")
def test_body_is_parsed_as_json_or_refused(content: bytes) -> None:
    try:
        found = parse_object(content)
    except MalformedJson:
        assert not is_plain_object(content)
    else:
        assert is_plain_object(content)
        assert as_numbers(found) == json.loads(
            content.removeprefix(codecs.BOM_UTF8), parse_int=Decimal, parse_float=Decimal
        )


def is_plain_object(content: bytes) -> bool:
    """Return whether the content is an RFC 8259 object in UTF-8 without duplicate names."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError
        return dict(pairs)

    def never(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(
            content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "strict"),
            object_pairs_hook=once,
            parse_constant=never,
            parse_int=Decimal,
            parse_float=Decimal,
        )
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def as_numbers(value: Any) -> Any:
    match value:
        case JsonNumber():
            return Decimal(value)
        case dict():
            return {name: as_numbers(item) for name, item in value.items()}
        case list():
            return [as_numbers(item) for item in value]
    return value


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_schema_accepts_an_object_or_names_its_errors(shape: type[BaseModel]) -> None:
    names = [field.alias or name for name, field in shape.model_fields.items()]

    @examples(50)
    @given(objects(names))
    def is_checked(fields: dict[str, Any]) -> None:
        try:
            taken = check(shape, parse_object(json.dumps(fields).encode()))
        except ValidationError as problem:
            orjson.dumps(problem.as_json(""))  # as the response is encoded
        else:
            assert not [value for value in values_of(taken) if isinstance(value, float)]

    is_checked()


def values_of(shape: BaseModel) -> Iterator[Any]:
    """Yield the values of the model except metadata, which may contain floats."""
    for name in type(shape).model_fields:
        value = getattr(shape, name)
        if name == "operations":
            for item in value:
                yield from values_of(item)
        elif name != "metadata":
            yield value


@examples(300)
@given(AMOUNTS | texts | st.decimals(allow_nan=True).map(str) | st.integers().map(str))
def test_accepted_amount_equals_its_text(text: str) -> None:
    try:
        amount = money.parse(text)
    except ValueError:
        return
    assert f"{amount:f}" == text
    assert text.isascii()
    assert amount.is_finite()
    assert not amount.is_signed()


@pytest.mark.parametrize("written", ["{}", '"{}"'], ids=["number", "text"])
def test_accepted_amount_of_a_body_equals_its_text(written: str) -> None:
    @examples(200)
    @given(AMOUNTS | st.floats().map(repr) | st.integers(min_value=-1).map(str))
    def is_exact(text: str) -> None:
        content = '{"operationType": "DEPOSIT", "amount": ' + written.format(text) + "}"
        try:
            taken = check(request_schemas.OperationToPost, parse_object(content.encode()))
        except (MalformedJson, ValidationError):
            return
        assert type(taken.amount) is Decimal
        assert f"{taken.amount:f}" == text
        assert taken.amount > 0

    is_exact()


@examples(200)
@given(currency=st.sampled_from(sorted(money.FRACTION_DIGITS)), units=st.integers(0, 10**20))
def test_amount_of_any_currency_is_parsed_back(currency: str, units: int) -> None:
    amount = Decimal(units).scaleb(-money.FRACTION_DIGITS[currency])
    written = money.format_amount(amount, currency)
    assert money.parse(written) == amount
    assert money.fits(money.parse(written), currency)
    assert money.format_amount(money.parse(written), currency) == written


@examples(200)
@given(texts)
def test_foreign_cursor_is_refused(text: str) -> None:
    for kind in (Cursor, TimeCursor, NumberCursor):
        with pytest.raises(ValidationError):
            kind.decode(text)


@examples(200)
@given(st.from_regex(r"https?://[\[\]:@./?#%a-z0-9-]{0,40}", fullmatch=True) | texts)
def test_any_url_is_allowed_or_refused(url: str) -> None:
    try:
        check_url(url)
    except NotAllowed:
        return
    assert url.startswith("https://")
