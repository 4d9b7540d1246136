"""Invalid bodies, content types and amounts get a clear error and change nothing."""

import json

import pytest
from django.test import override_settings

from tests.conftest import Unchanged
from tests.support.client import JSON, Answer, Api

VALID_BODY = b'{"operationType": "DEPOSIT", "amount": 1}'


def post(api: Api, wallet_id: str, content: bytes | None, content_type: str = JSON) -> Answer:
    path = f"/api/v1/wallets/{wallet_id}/operation"
    return api.sender.send("POST", path, content, {"Content-Type": content_type})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        VALID_BODY[:-1],
        VALID_BODY + b"x",
        VALID_BODY + VALID_BODY,
        b"\xff\xfe" + VALID_BODY.decode().encode("utf-16-le"),
        b'{"operationType": "DEPOSIT", "amount": 1, "description": "\xff"}',
        b"\xef\xbb\xbf" + VALID_BODY,
        b"null",
        b"[]",
        b"1",
        b'"DEPOSIT"',
        b"[" + VALID_BODY + b"]",
        b"[" * 60_000,
        b'{"a":' * 13_000,
        b'{"amount":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"operationType": "DEPOSIT", "amount": 1, "amount": 2}',
        b'{"operationType": "DEPOSIT", "amount": 1, "metadata": {"a": 1, "a": 2}}',
        b'{"operationType": "DEPOSIT", "amount": NaN}',
        b'{"operationType": "DEPOSIT", "amount": Infinity}',
        b'{"operationType": "DEPOSIT", "amount": -Infinity}',
        b'{"operationType": "DEPOSIT", "amount": 01}',
        b'{"operationType": "DEPOSIT", "amount": .5}',
        b'{"operationType": "DEPOSIT", "amount": 0x10}',
        b"{'operationType': 'DEPOSIT', 'amount': 1}",
        b'{"operationType": "DEPOSIT", "amount": 1,}',
        b'{"operationType": "DEPOSIT", /* one */ "amount": 1}',
        b"operationType=DEPOSIT&amount=1",
        b"<operation/>",
        b"\x00",
    ],
    ids=lambda content: repr(content[:30]),
)
def test_body_that_is_no_json_object_is_malformed(api: Api, unchanged: Unchanged, content: bytes) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = post(api, wallet_id, content)
        assert (answer.status, answer.code) == (400, "malformed_json")


@pytest.mark.parametrize(
    "amount",
    [
        *("0", "0.00", "-1", "-0", "1e3", "1E3", "1e-2", "0.001", "10.000", "1000000000001"),
        *("0.1000000000000000055511151231257827", "0.29999999999999998", "1" * 100, "1" * 5000),
        *("true", "false", "null", "[]", "[1]", "{}", '{"value": 1}', '""', '" "', '"1 "', '" 1"', '"1\\n"'),
        *('"+1"', '"-1"', '"-0"', '"0"', '"0.00"', '"1e3"', '"1_000"', '"1,000"', '"1.2.3"', '".5"', '"5."'),
        *('"01"', '"NaN"', '"Infinity"', '"inf"', '"0x10"', '"١٢٣"', '"１２"', '"½"', '"1\\u0000"', '"one"'),
        *('"\\ud800"', '"' + "1" * 5000 + '"', '"$1"', '"1 RUB"'),
    ],
    ids=lambda amount: repr(amount[:30]),
)
def test_invalid_amount_is_refused(api: Api, unchanged: Unchanged, amount: str) -> None:
    wallet_id = api.open()
    content = b'{"operationType": "DEPOSIT", "amount": %s}' % amount.encode()
    with unchanged(wallet_id):
        answer = post(api, wallet_id, content)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert [error["field"] for error in answer.json["errors"]] == ["amount"]


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data"),
        *(
            "application/json; charset=latin-1",
            "application/json; charset=utf-16",
            "application/jsonx",
            "*/*",
        ),
        *("application/json; charset=utf-8; charset=latin-1", "text/json", "application/merge-patch+json"),
    ],
)
def test_other_content_types_are_refused(api: Api, unchanged: Unchanged, content_type: str) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = post(api, wallet_id, VALID_BODY, content_type)
        assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [JSON, "Application/JSON", "application/json;charset=UTF-8", 'application/json; charset="utf8"'],
)
def test_content_type_may_name_utf_8(api: Api, content_type: str) -> None:
    assert post(api, api.open(), VALID_BODY, content_type).status == 201


def test_body_over_the_limit_is_too_large(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id), override_settings(MAX_BODY_BYTES=1000):
        answer = post(api, wallet_id, VALID_BODY + b" " * 1000)
        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert post(api, wallet_id, b"x" * 1000).code == "malformed_json"


def test_problem_echoes_no_markup_of_the_request(api: Api) -> None:
    answer = api.post(f"/wallets/{api.open()}/operation", {"<script>": "<script>"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_problem_names_every_missing_field(api: Api) -> None:
    answer = post(api, api.open(), b"{}")
    assert {(error["field"], error["code"]) for error in answer.json["errors"]} == {
        ("operationType", "required"),
        ("amount", "required"),
    }
    assert json.loads(answer.content)["title"]
