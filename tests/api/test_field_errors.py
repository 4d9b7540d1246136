"""Field errors are in the service's own words, and say which values are valid."""

import json
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from tests.conftest import Unchanged
from tests.fuzz.test_parsers import SHAPES
from tests.support.client import JSON, Answer, Api
from wallets.contract import field_errors
from wallets.contract.parsing import check, parse_object
from wallets.problems import ValidationError

WALLET = "01930a5d-0000-7000-8000-000000000000"


def error_of(answer: Answer) -> tuple[str, str, str]:
    """Return the field, the code and the text of the only error."""
    assert (answer.status, answer.code) == (400, "validation_error")
    (error,) = answer.json["errors"]
    return error["field"], error["code"], error["detail"]


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/wallets", {"label": "x" * 201}, ("label", "too_long", "at most 200 characters")),
        (
            "/wallets",
            {"labels": "x"},
            ("labels", "unknown_field", "is not a field or parameter of this request"),
        ),
        ("/wallets", {"overdraftLimit": -1}, ("overdraftLimit", "invalid_amount", "zero or more")),
        ("/wallets", {"label": 5}, ("label", "invalid_type", "must be a string")),
        (
            "/wallet",
            {"walletId": WALLET, "operationType": "PAY", "amount": 1},
            ("operationType", "unknown_value", "must be 'DEPOSIT' or 'WITHDRAW'"),
        ),
        ("/wallet", {"walletId": WALLET, "operationType": "DEPOSIT"}, ("amount", "required", "is required")),
        *(
            (
                "/wallet",
                {"walletId": WALLET, "operationType": "DEPOSIT", "amount": amount},
                ("amount", code, "more than zero"),
            )
            for amount, code in (
                *((amount, "invalid_amount") for amount in (-5, "-5", "-0.01", "-0")),
                *((amount, "out_of_range") for amount in (0, "0.00")),
            )
        ),
        (
            "/wallet",
            {"walletId": WALLET, "operationType": "DEPOSIT", "amount": "1000000000001"},
            ("amount", "out_of_range", "at most 1000000000000"),
        ),
        ("/operations", {"operations": []}, ("operations", "too_short", "must not be empty")),
        ("/operations", {"operations": [1] * 1001}, ("operations", "too_long", "at most 1000 items")),
        ("/operations", {"operations": [1]}, ("operations.0", "invalid_type", "must be an object")),
        ("/operations", {"operations": {}}, ("operations", "invalid_type", "must be an array")),
        *(
            (
                "/webhooks",
                {"name": "x", "url": "https://example.com", "batch": batch},
                ("batch", "out_of_range", "1 to 500"),
            )
            for batch in (0, -1, 501, 10**30)
        ),
    ],
)
def test_error_says_what_is_valid(api: Api, path: str, body: Any, error: tuple[str, str, str]) -> None:
    assert error_of(api.post(path, body)) == error


@pytest.mark.parametrize(
    ("path", "body", "field", "meant"),
    [
        ("/wallets", {"overdraft_limit": "1"}, "overdraft_limit", "overdraftLimit"),
        ("/wallets", {"MaxBalance": "1"}, "MaxBalance", "maxBalance"),
        (
            "/operations",
            {
                "operations": [
                    {"walletId": WALLET, "operationType": "DEPOSIT", "amount": 1, "idempotency-key": "k"}
                ]
            },
            "operations.0.idempotency-key",
            "idempotencyKey",
        ),
        ("/webhooks", {"name": "x", "url": "https://example.com", "FROM": "now"}, "FROM", "from"),
    ],
)
def test_other_spelling_of_a_field_is_told_the_name(
    api: Api, path: str, body: Any, field: str, meant: str
) -> None:
    text = f"is not a field or parameter of this request; write {meant}"
    assert error_of(api.post(path, body)) == (field, "unknown_field", text)


def test_bulk_item_without_its_operation_type_misses_only_that(api: Api) -> None:
    item = {"walletId": WALLET, "amount": 1}
    assert error_of(api.post("/operations", {"operations": [item]})) == (
        "operations.0.operationType",
        "required",
        "is required",
    )


@pytest.mark.parametrize(
    ("email", "said"),
    [
        (" anna@example.com", "no space"),
        ("anna@example.com\u00a0", "no space"),
        ("anna@пример.рф", "xn--"),
        ("anna", "such as anna@example.com"),
    ],
)
def test_error_of_an_email_address_says_what_is_wrong(api: Api, email: str, said: str) -> None:
    refused = api.post("/signup", {"name": "Anna", "email": email, "password": "correct horse battery"})
    field, code, detail = error_of(refused)
    assert (field, code) == ("email", "invalid_email")
    assert said in detail


def test_currency_in_small_letters_is_told_its_code(api: Api) -> None:
    field, code, detail = error_of(api.post("/wallets", {"currency": "jpy"}))
    assert (field, code) == ("currency", "unknown_currency")
    assert detail.endswith("such as JPY")


@pytest.mark.parametrize("limit", ["-1", "0", "501", "9" * 30])
def test_limit_out_of_range_names_the_range(api: Api, limit: str) -> None:
    assert error_of(api.get(f"/wallets?limit={limit}")) == ("limit", "out_of_range", "1 to 500")


def test_number_with_an_exponent_is_refused_with_the_reason(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    content = b'{"operationType": "DEPOSIT", "amount": 1e2}'
    with unchanged(wallet_id):
        path = f"/api/v1/wallets/{wallet_id}/operation"
        _, code, detail = error_of(api.sender.send("POST", path, content, {"Content-Type": JSON}))
    assert code == "invalid_amount"
    assert "exponent" in detail


JUNK: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**400, "", " ", "x", "x" * 5000, "\x00", "\ud800", "2026-13-01", "٣"),
    *([], {}, [None], [[]], {"x": 1}, [{}] * 1001, [{"operationType": None}], [{"amount": "-"}], ["x", "x"]),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_no_text_of_pydantic_reaches_a_client(shape: type[BaseModel]) -> None:
    names = [field.alias or name for name, field in shape.model_fields.items()]
    for name in [*names, "unknown"]:
        for junk in JUNK:
            fields = parse_object(json.dumps({name: junk}).encode())
            try:
                shape.model_validate(fields)
            except PydanticError as error:
                raised = error
            else:
                continue
            with pytest.raises(ValidationError) as refused:
                check(shape, fields)
            told = {each.detail for each in refused.value.errors}
            for item in raised.errors():
                if item["type"] in field_errors._OF_PYDANTIC:
                    assert item["type"] in field_errors._OWN, item
                    assert item["msg"] not in told
