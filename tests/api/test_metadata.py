"""Accepted metadata is stored, returned and compared exactly as sent."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Books, Unchanged
from tests.support.client import JSON, Answer, Api
from tests.support.fuzz.strategies import values
from wallets.events import cloudevents
from wallets.ledger.reader import read_operation

number_texts = st.from_regex(r"\A-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?\Z")


def deposit(wallet_id: str, metadata: str, key: str) -> Answer:
    """Send a deposit with this text as its metadata."""
    content = f'{{"operationType": "DEPOSIT", "amount": 1, "metadata": {metadata}}}'
    headers = {"Content-Type": JSON, "Idempotency-Key": key}
    return Api().sender.send("POST", f"/api/v1/wallets/{wallet_id}/operation", content.encode(), headers)


def exact(content: bytes | str) -> Any:
    """Parse JSON with each number as an exact decimal."""
    return json.loads(content, parse_float=Decimal, parse_int=Decimal)


def event_of(operation_id: str) -> bytes:
    found = read_operation(UUID(operation_id), None)
    assert found
    (event,) = cloudevents.events_of([found.operation], ["wallet.operation.completed"])
    return event.content


def assert_kept(wallet_id: str, metadata: str, key: str) -> None:
    """Assert that the response, the stored operation, the event and the replay have the metadata as sent."""
    first = deposit(wallet_id, metadata, key)
    assert first.status == 201, first
    stored = Api().get(f"/operations/{first.json['id']}")
    for content in (first.content, stored.content):
        assert exact(content)["metadata"] == exact(metadata)
    assert exact(event_of(first.json["id"]))["data"]["metadata"] == exact(metadata)
    again = deposit(wallet_id, metadata, key)
    assert (again.status, again.headers.get("idempotent-replayed")) == (201, "true")
    assert again.json == first.json


@pytest.mark.parametrize(
    "number",
    [
        *("0", "-0", "-0.0", "0.0", "-0e5", "1", "-1", "1.0", "1.50", "0.1", "1e2", "1E-7", "5e-324", "0.30"),
        *("9007199254740991", "-9007199254740991", "9007199254740991.0", "0.1234567890123456", "1e15"),
    ],
)
def test_number_that_fits_a_double_is_kept(api: Api, number: str) -> None:
    wallet_id = api.open()
    assert_kept(wallet_id, f'{{"n": [{number}]}}', "k")
    Books((wallet_id,)).verify()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *(
            (number, "inexact_number")
            for number in ("0.1234567890123456789", "1e-400", "4503599627370497.25")
        ),
        *(
            (number, "inexact_number")
            for number in ("9007199254740991.4", "0.1000000000000000055511151231257827")
        ),
        *((number, "inexact_number") for number in ("1e-99999999999999999999", "0." + "0" * 400 + "1")),
        *(
            (number, "out_of_range")
            for number in ("1e400", "-1e400", "12345678901234567890", "9007199254740992")
        ),
    ],
)
def test_number_that_a_double_would_change_is_refused(
    api: Api, unchanged: Unchanged, number: str, code: str
) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = deposit(wallet_id, f'{{"a": {{"n": {number}}}}}', "k")
        assert (answer.status, answer.code) == (400, "validation_error")
        (error,) = answer.json["errors"]
        assert (error["field"], error["code"]) == ("metadata", code)
        assert "string" in error["detail"]
        assert error["detail"].startswith("at /a/n: ")
    assert deposit(wallet_id, f'{{"a": {{"n": "{number}"}}}}', "k").status == 201


def test_negative_zero_is_stored_as_zero(api: Api) -> None:
    first = deposit(api.open(), '{"a": -0.0, "b": -0}', "k")
    assert '"metadata":{"a":0.0,"b":0}' in first.content.decode()


def test_transfer_and_wallet_keep_their_metadata(api: Api) -> None:
    chosen = {"id": str(uuid4()), "metadata": {"a": -0.0, "b": 1e-7}}
    assert [api.post("/wallets", chosen).status for _ in range(2)] == [201, 201]
    source, target = api.open(deposit="5"), api.open()
    sent = [api.transfer(source, target, 1, key="k", metadata=chosen["metadata"]) for _ in range(2)]
    assert sent[0].json == sent[1].json
    later = [
        api.post(
            f"/wallets/{source}/operation",
            {"operationType": "DEPOSIT", "amount": 1, "metadata": chosen["metadata"]},
            Prefer="respond-async",
            Idempotency_Key="later",
        )
        for _ in range(2)
    ]
    assert [(answer.status, answer.json["metadata"]) for answer in later] == [
        (202, {"a": 0.0, "b": 1e-7})
    ] * 2


@pytest.fixture(scope="module")
def wallet_id() -> str:
    return Api().open()


keys = (f"property-{number}" for number in range(1_000_000))
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(number=number_texts)
@pytest.mark.slow
def test_any_number_is_kept_exactly_or_refused(wallet_id: str, number: str) -> None:
    metadata, key = f'{{"n": {number}}}', next(keys)
    if deposit(wallet_id, metadata, key).status == 201:
        assert_kept(wallet_id, metadata, next(keys))
    else:
        assert deposit(wallet_id, '{"n": 1}', key).status == 201  # the key of a refused request is free


@few
@given(value=values)
def test_any_json_value_is_kept_exactly_or_refused(wallet_id: str, value: Any) -> None:
    metadata, key = json.dumps({"v": value}), next(keys)
    if deposit(wallet_id, metadata, key).status == 201:
        assert_kept(wallet_id, metadata, next(keys))


def test_error_of_metadata_points_to_the_value(api: Api) -> None:
    refused = deposit(api.open(), '{"a": [1, {"x/y~": 1e400}], "b": 1}', "k")
    assert refused.json["errors"][0]["detail"].startswith("at /a/1/x~1y~0: numbers are at most 2^53 - 1")
    refused = deposit(api.open(), '{"a": ["\\u0000"]}', "k")
    assert refused.json["errors"][0]["detail"] == "at /a/0: every text must be Unicode without NUL"
    long = deposit(api.open(), f'{{"{"k" * 3000}": 1e400}}', "k")
    assert len(long.json["errors"][0]["detail"]) < 200
