"""Invalid bodies, content types and amounts get a clear error and change nothing."""

import gzip
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
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf" * 2 + VALID_BODY,
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
        *("0", "0.00", "-1", "-0", "1e3", "1E3", "1e-2", "0.001", "10.0001", "1000000000001"),
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
        *(
            "application/json; charset=utf-8; charset=latin-1",
            "application/json; charset=latin-1; charset=utf-8",
            "text/json",
            "application/merge-patch+json",
        ),
    ],
)
def test_other_content_types_are_refused(api: Api, unchanged: Unchanged, content_type: str) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = post(api, wallet_id, VALID_BODY, content_type)
        assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        *(JSON, "Application/JSON", "application/json;charset=UTF-8", 'application/json; charset="utf8"'),
        *(
            "application/json;",
            "application/json; v=2",
            "application/json; odata.metadata=minimal; charset=utf-8",
        ),
    ],
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


def test_byte_order_mark_is_ignored(api: Api) -> None:
    wallet_id = api.open()
    assert post(api, wallet_id, b"\xef\xbb\xbf" + VALID_BODY).status == 201
    assert api.balance(wallet_id) == "1.00"


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP, identity", "x" * 100, "<b>"])
def test_compressed_body_is_refused_by_the_name_of_its_coding(
    api: Api, unchanged: Unchanged, coding: str
) -> None:
    wallet_id = api.open()
    path = f"/api/v1/wallets/{wallet_id}/operation"
    with unchanged(wallet_id):
        headers = {"Content-Type": JSON, "Content-Encoding": coding}
        answer = api.sender.send("POST", path, gzip.compress(VALID_BODY), headers)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "identity"
    assert "Content-Encoding" in answer.json["detail"]
    assert (coding.lower() in answer.json["detail"]) == (coding not in ("x" * 100, "<b>"))


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_body_without_a_coding_is_taken(api: Api, coding: str) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": coding}
    answer = api.sender.send("POST", f"/api/v1/wallets/{api.open()}/operation", VALID_BODY, headers)
    assert answer.status == 201


# --- null -------------------------------------------------------------------------------------------
def test_null_means_the_same_as_an_absent_field(api: Api) -> None:
    opened = api.post("/wallets", dict.fromkeys(("currency", "label", "overdraftLimit", "metadata", "id")))
    assert (opened.status, opened.json["label"], opened.json["metadata"]) == (201, "", {})
    wallet_id = opened.json["id"]
    first = api.deposit(wallet_id, 5, key="k", description=None, metadata=None, id=None)
    replay = api.deposit(wallet_id, 5, key="k")
    assert (first.status, replay.status, replay.json) == (201, 201, first.json)
    assert replay.headers["idempotent-replayed"] == "true"
    item = {"walletId": wallet_id, "operationType": "DEPOSIT", "amount": 1}
    nulls = dict.fromkeys(("description", "metadata", "idempotencyKey"))
    for many in ({"operations": [item | nulls], "atomic": None}, {"operations": [item]}):
        done = api.post("/operations", many, Idempotency_Key="bulk")
        assert (done.status, done.json["results"][0]["status"]) == (200, 201)
    assert api.balance(wallet_id) == "6.00"


def test_null_of_a_required_field_is_refused(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        refused = api.deposit(wallet_id, None)
        assert [error["field"] for error in refused.json["errors"]] == ["amount"]
        assert api.deposit(wallet_id, 1, unknown=None).json["errors"][0]["code"] == "unknown_field"


def test_null_changes_no_field_of_a_wallet(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(label="till", metadata={"a": None})
    with unchanged(wallet_id):
        unchanged_body = api.patch(f"/wallets/{wallet_id}", {"label": None, "metadata": None})
        assert (unchanged_body.status, unchanged_body.json) == (200, api.wallet(wallet_id))
    changed = api.patch(f"/wallets/{wallet_id}", {"label": "shop", "metadata": None, "status": None}).json
    assert (changed["label"], changed["metadata"], changed["status"]) == ("shop", {"a": None}, "ACTIVE")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b'{"amount": 1, "operationType": "DEPOSIT", "amount": 2}', '"amount"'),
        (b'{"metadata": {"b": 1, "a": 1, "a": 2, "c": 3}}', '"a"'),
        (b'{"%s": 1, "%s": 2}' % (b"x" * 100, b"x" * 100), '"' + "x" * 40 + '"'),
        (b'{"\\"": 1, "\\"": 2}', r'"\""'),
    ],
)
def test_repeated_name_is_in_the_error(api: Api, content: bytes, name: str) -> None:
    answer = post(api, api.open(), content)
    assert (answer.code, answer.json["detail"]) == (
        "malformed_json",
        f"An object contains the name {name} twice.",
    )
