"""The cost of a request is bounded before parsing: bodies, forms, the Accept header; and list pages."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import LazySettings

from tests.access.test_rate_limits import Limit, limit, new_ip  # noqa: F401 - a fixture
from tests.conftest import Unchanged
from tests.support.client import Api, InProcess
from tests.support.people import FORM, registration
from wallets.contract.parsing import MAX_NESTING, parse_object, require_bounded
from wallets.contract.request_schemas import BulkToPost, Credentials, OperationToPost
from wallets.problems import MalformedJson
from walletsvc.middleware import MAX_FORM_BYTES

OPERATION = {"operationType": "DEPOSIT", "amount": "1"}


def padded(length: int, **fields: Any) -> bytes:
    content = json.dumps(fields).encode()
    return content + b" " * (length - len(content))


@pytest.mark.parametrize(
    ("path", "max_bytes"),
    [
        ("/login", 16_384),
        ("/signup", 16_384),
        ("/wallets", 65_536),
        ("/transfers", 65_536),
        ("/wallet", 65_536),
    ],
)
def test_each_endpoint_has_its_own_body_limit(path: str, max_bytes: int) -> None:
    sender = InProcess()
    assert sender.send("POST", f"/api/v1{path}", padded(max_bytes, nothing=0)).code == "validation_error"
    assert sender.send("POST", f"/api/v1{path}", padded(max_bytes + 1, nothing=0)).code == "payload_too_large"


def test_longest_credentials_and_bulks_fit(api: Api, settings: LazySettings) -> None:
    person = registration(password="\U0001f600" * 1024, name="\U0001f600" * 150)
    assert len(json.dumps(person)) > 12_000
    assert api.post("/login", {"email": person["email"], "password": person["password"]}).status == 401
    wallet_id = api.open()
    bulk = padded(settings.MAX_BODY_BYTES, operations=[{"walletId": wallet_id, **OPERATION}] * 2)
    assert api.sender.send("POST", "/api/v1/operations", bulk).status == 200
    assert api.sender.send("POST", "/api/v1/operations", bulk + b" ").code == "payload_too_large"


@pytest.mark.parametrize(
    ("path", "max_bytes"),
    [
        *(("/login", 16_384), ("/signup", 16_384), ("/admin/login/", 16_384)),
        *(("/language", MAX_FORM_BYTES), ("/logout", MAX_FORM_BYTES)),
    ],
)
def test_each_form_has_its_own_limit(path: str, max_bytes: int) -> None:
    sender = InProcess()
    for length, is_refused in ((max_bytes, False), (max_bytes + 1, True)):
        form = urlencode({"note": "a"}).encode().ljust(length, b"a")
        answer = sender.send("POST", path, form, {"Content-Type": FORM})
        assert (answer.status == 413) is is_refused, path


@pytest.fixture
def no_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the body was validated")

    for shape in (OperationToPost, Credentials, BulkToPost):
        monkeypatch.setattr(shape, "model_validate", fail)


TOO_MANY = json.dumps({f"key{number}": 0 for number in range(2101)}).encode()
TOO_DEEP = b'{"metadata":' + b'{"a":' * MAX_NESTING + b"0" + b"}" * (MAX_NESTING + 1)
LISTS = b'{"a":[' + b"[]," * 15_100 + b"[]]}"


@pytest.mark.usefixtures("no_validation")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        *(("/wallets/{wallet}/operation", body) for body in (TOO_MANY, TOO_DEEP, LISTS)),
        *(("/login", body) for body in (b'{"a":0,' * 1 + TOO_MANY[1:900] + b'":0}', TOO_DEEP)),
        *(("/operations", body) for body in (LISTS, TOO_DEEP)),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:20]),
)
def test_large_structure_is_refused_before_validation(
    api: Api, unchanged: Unchanged, path: str, body: bytes
) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.sender.send("POST", f"/api/v1{path}".replace("{wallet}", wallet_id), body)
        assert (answer.status, answer.code) == (400, "malformed_json")
        assert "more than" in answer.json["detail"]


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"0" + b"}" * levels


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        nested(MAX_NESTING),
        json.dumps({"a": list(range(98))}).encode(),
        json.dumps({"text": ",[{" * 5000}).encode(),
        json.dumps({"text": '\\",[{' * 5000}).encode(),
        json.dumps({'",[' * 1000: "[" * 100, "b": "\\"}).encode(),
        b'{"a": "' + b"\\u005b," * 1000 + b'"}',
        b'{"a":"' + b"\\\\" * 1000 + b'"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_strings_do_not_count_as_structure(body: bytes) -> None:
    require_bounded(body, 100)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"a": list(range(101))}).encode(),
        json.dumps({str(number): "," for number in range(102)}).encode(),
        json.dumps({"\\": [], "a": ["\\"] * 101}).encode(),
        b'["' + b'","' * 300 + b'"]',
        nested(MAX_NESTING + 1),
        b'{"a":"]"' + b',"b":["]",' * 40,
        b"[" * 99,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_many_values_or_levels_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedJson, match="more than"):
        require_bounded(body, 100)


def test_metadata_of_full_size_is_within_the_limits(api: Api) -> None:
    for metadata in ({"a": [1] * 2040}, {f"{number:x}": 1 for number in range(520)}):
        assert len(json.dumps(metadata, separators=(",", ":"))) > 3800
        assert api.post("/wallets", {"metadata": metadata}).status == 201


def test_field_errors_end_with_the_number_of_further_errors(api: Api) -> None:
    answer = api.post("/wallets", {f"key{number}": 0 for number in range(50)})
    errors = answer.json["errors"]
    assert (answer.code, len(errors)) == ("validation_error", 21)
    assert {error["code"] for error in errors[:20]} == {"unknown_field"}
    assert errors[20] == {"field": "", "code": "more", "detail": "and 30 more"}
    twenty = api.post("/wallets", {f"key{number}": 0 for number in range(20)}).json["errors"]
    assert [error["code"] for error in twenty] == ["unknown_field"] * 20


def test_invalid_bulk_is_refused_with_its_first_invalid_items(
    api: Api, unchanged: Unchanged, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet_id, checked = api.open(), []
    validate = BulkToPost.model_validate

    def counted(fields: dict[str, Any]) -> BulkToPost:
        checked.append(len(fields["operations"]))
        return validate(fields)

    monkeypatch.setattr(BulkToPost, "model_validate", counted)
    good, wrong = {"walletId": wallet_id, **OPERATION}, {"operationType": 0, "amount": "x"}
    with unchanged(wallet_id):
        answer = api.bulk(*[good] * 120, *[wrong] * 880)
        errors = answer.json["errors"]
        assert (answer.status, len(errors)) == (400, 21)
        assert errors[0]["field"] == "operations.120.operationType"
        assert errors[0] == api.bulk(*[good] * 120, wrong).json["errors"][0]
        assert errors[20]["detail"] == f"and {30 * 3 - 20} more"
    assert checked[:3] == [50, 50, 50]  # the remaining items are not checked
    assert len(checked) == 3 + 3


def test_bulk_is_carried_out_in_order(api: Api) -> None:
    wallet_id = api.open()
    answer = api.bulk(*({"walletId": wallet_id, **OPERATION, "description": str(n)} for n in range(130)))
    described = [result["operation"]["description"] for result in answer.json["results"]]
    assert described == [str(number) for number in range(130)]


def test_frame_of_a_bulk_is_checked_at_any_length(api: Api) -> None:
    item = {"walletId": api.open(), **OPERATION}
    for count in (1, 60):
        answer = api.post("/operations", {"operations": [item] * count, "atomic": 1, "other": 0})
        assert {error["field"] for error in answer.json["errors"]} == {"atomic", "other"}
    wrong: list[Any] = [[], [item] * 1001, None, {}]
    for operations in wrong:
        assert api.post("/operations", {"operations": operations}).code == "validation_error"
    assert api.post("/operations", {}).json["errors"][0]["code"] == "required"


def test_long_accept_header_is_refused_before_parsing() -> None:
    sender = InProcess()
    for path in ("/api/v1/wallets", "/api/schema", "/", "/livez", "/admin/login/"):
        refused = sender.send("GET", path, headers={"Accept": "a/b," * 251})
        assert refused.status == 400, path
    assert sender.send("GET", "/api/v1/wallets", headers={"Accept": "a/b," * 50 + "*/*"}).status == 200


def test_long_numbers_are_not_converted_during_parsing() -> None:
    """Digits and exponents stay text until a field needs a number."""
    long = "9" * 60_000
    assert parse_object(f'{{"a":{long},"b":1e1000000}}'.encode()) == {"a": long, "b": "1e1000000"}


def test_long_numbers_are_refused_as_amounts_and_metadata(api: Api) -> None:
    for value in ("9" * 60_000, "1e1000000", "1e-1000000"):
        body = f'{{"operationType":"DEPOSIT","amount":{value}}}'.encode()
        path = f"/api/v1/wallets/{api.open()}/operation"
        assert api.sender.send("POST", path, body).json["errors"][0]["code"] == "invalid_amount"
    assert api.sender.send("POST", "/api/v1/wallets", b'{"metadata":{"a":1e1000000}}').status == 400


def test_page_of_long_rows_is_shorter_and_loses_no_row(api: Api) -> None:
    wallet_id = api.open()
    texts = {"metadata": {"text": "a" * 4000}, "description": "b" * 500}
    api.bulk(*({"walletId": wallet_id, **OPERATION, **texts} for _ in range(200)))
    path = f"/wallets/{wallet_id}/operations?limit=200"
    first = api.get(path)
    assert len(first.content) < 1_000_000
    assert 50 < len(first.json["items"]) < 100
    sequences, page = [], first.json
    while page["nextCursor"]:
        sequences += [item["sequence"] for item in page["items"]]
        page = api.get(f"{path}&cursor={page['nextCursor']}").json
    sequences += [item["sequence"] for item in page["items"]]
    assert sequences == list(range(200, 0, -1))
    assert len(api.history(wallet_id, "limit=50")) == 50
