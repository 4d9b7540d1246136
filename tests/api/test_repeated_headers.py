"""Repeated headers: a second single value is refused; list headers are read as one list."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.conf import LazySettings

from tests.conftest import Unchanged, running_service
from tests.support.client import Api
from tests.support.hostile_requests import GOOD, HOST, PATH, Raw, Shape, Talk, sized
from tests.support.keys import new_key
from wallets.access.rights import ADMIN

JSON_TYPE = b"Content-Type: application/json"
BODY = {"operationType": "DEPOSIT", "amount": "1.00"}


@pytest.fixture(scope="module")
def socket_service() -> Iterator[str]:
    with running_service(WORKERS="1", API_ACCESS="open") as address:
        yield address


def exchange(service: str, shape: Shape, wallet_id: str) -> Raw:
    address = urlsplit(service)
    with Talk((str(address.hostname), address.port or 80)) as talk:
        talk.say(*shape.parts(wallet_id))
        answer = talk.hear()
    assert answer
    return answer


def deposit(service: str, wallet_id: str, *lines: bytes) -> Raw:
    """Send a deposit with these header lines over a socket."""
    head = b"POST %s HTTP/1.1\r\n%s%s\r\n" % (PATH, HOST, b"\r\n".join(lines or (JSON_TYPE,)))
    return exchange(service, Shape("", head + sized(GOOD)), wallet_id)


def read(service: str, wallet_id: str, *lines: bytes) -> Raw:
    head = b"GET %s HTTP/1.1\r\n%s%s\r\n\r\n" % (
        PATH.removesuffix(b"/operation"),
        HOST,
        b"\r\n".join((b"Connection: close", *lines)),
    )
    return exchange(service, Shape("", head), wallet_id)


# --- Sent over a socket -----------------------------------------------------------------------------
# Header lines as a client sends them, with the refusal. gunicorn itself refuses a second Content-Type.
@pytest.mark.parametrize(
    ("lines", "refusal"),
    [
        ((b"Idempotency-Key: a", b"Idempotency-Key: a"), (400, "validation_error")),
        ((b"Idempotency-Key: a", b"idempotency-key: b"), (400, "validation_error")),
        ((b'Idempotency-Key: "a"', b'Idempotency-Key: "a"'), (400, "validation_error")),
        ((b'Idempotency-Key: "a"', b"Idempotency-Key: a"), (400, "validation_error")),
        ((b"Idempotency-Key:", b"Idempotency-Key: a"), (400, "validation_error")),
        ((b"Idempotency-Key: a", b"Idempotency-Key:"), (400, "validation_error")),
        ((b"Idempotency-Key:", b"Idempotency-Key:"), (400, "validation_error")),
        ((b"Idempotency-Key:",), (400, "validation_error")),
        ((b"Idempotency-Key: a, a",), (400, "validation_error")),
        ((b"Idempotency-Key: a\r\n b",), (400, "bad_request")),
        ((JSON_TYPE,), (400, "bad_request")),
        ((b"Content-Type: text/plain",), (400, "bad_request")),
        ((b"Content-Type:",), (400, "bad_request")),
        ((b"Authorization: Bearer wk_a_b", b"Authorization: Bearer wk_a_b"), (401, "unauthorized")),
        ((b"Authorization: Basic eDp5", b"Authorization: Bearer wk_a_b"), (401, "unauthorized")),
        ((b"Authorization: Basic eDp5", b"Authorization: Basic eDp5"), (401, "unauthorized")),
        ((b"Authorization:", b"Authorization: Bearer wk_a_b"), (401, "unauthorized")),
        ((b"Authorization: Bearer wk_a_b", b"Authorization:"), (401, "unauthorized")),
    ],
)
def test_repeated_single_value_header_is_refused(
    socket_service: str,
    api: Api,
    unchanged: Unchanged,
    lines: tuple[bytes, ...],
    refusal: tuple[int, str],
) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = deposit(socket_service, wallet_id, JSON_TYPE, *lines)
        assert (answer.status, json.loads(answer.body)["code"]) == refusal


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b"Idempotency-Key: \t a \t", "a"),
        (b'Idempotency-Key: "a,b"', "a,b"),
        (b"iDEMPOTENCY-kEY: a", "a"),
        (b"Idempotency_Key: a", None),  # gunicorn drops this other header: it could hide the real one
    ],
)
def test_key_header_is_read_in_any_case(socket_service: str, api: Api, line: bytes, key: str | None) -> None:
    wallet_id = api.open()
    assert deposit(socket_service, wallet_id, JSON_TYPE, line).status == 201
    assert api.history(wallet_id)[0]["idempotencyKey"] == key


def test_repeated_request_id_is_replaced(socket_service: str, api: Api) -> None:
    answer = read(socket_service, api.open(), b"X-Request-ID: a", b"X-Request-ID: a")
    assert answer.status == 200
    assert "a,a" not in answer.headers["X-Request-ID"]


def test_list_headers_are_read_over_several_lines(socket_service: str, api: Api) -> None:
    wallet_id = api.open()
    tag = api.get(f"/wallets/{wallet_id}").headers["etag"].encode()
    assert read(socket_service, wallet_id, b'If-None-Match: "x"', b"If-None-Match: W/" + tag).status == 304
    assert read(socket_service, wallet_id, b"Accept: text/html", b"Accept: application/json").status == 200
    preferring = deposit(
        socket_service, wallet_id, JSON_TYPE, b"Prefer: return=minimal", b"Prefer: respond-async"
    )
    assert preferring.status == 202


# --- Joined by a proxy ------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["a,a", "a, a", ",a", "a,", ",", '"a","a"', '"a", "a"', '"a",a', '"a"b', '"'])
def test_joined_key_is_refused(api: Api, unchanged: Unchanged, key: str) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        for path, body in (
            (f"/wallets/{wallet_id}/operation", BODY),
            (f"/wallets/{wallet_id}/holds", {"amount": 1}),
            ("/operations", {"operations": [BODY | {"walletId": wallet_id}]}),
            ("/wallets", {}),
            ("/webhooks", {"name": f"joined {uuid4()}", "url": "https://example.com/"}),
        ):
            answer = api.post(path, body, Idempotency_Key=key)
            assert (answer.status, answer.code) == (400, "validation_error"), path
            assert [error["field"] for error in answer.json["errors"]] == ["Idempotency-Key"]


def test_comma_in_quotes_is_part_of_the_key(api: Api) -> None:
    wallet_id = api.open()
    assert api.deposit(wallet_id, 1, key='"a,b"').json["idempotencyKey"] == "a,b"
    assert api.deposit(wallet_id, 1, key='"a,b"').headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("kind", ["application/json,application/json", "application/json, text/plain", ","])
def test_joined_content_type_is_refused(api: Api, unchanged: Unchanged, kind: str) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.post(f"/wallets/{wallet_id}/operation", BODY, Content_Type=kind)
        assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("access", ["open", "key"])
def test_joined_credentials_are_refused(settings: LazySettings, access: str) -> None:
    settings.API_ACCESS = access
    key = new_key(ADMIN)
    for header in (
        *(f"Bearer {key},Bearer {key}", f"Bearer {key}, Bearer {key}", f"Bearer {key},", f",Bearer {key}"),
        *(f"Basic eDp5,Bearer {key}", f'Digest username="x", Bearer {key}', "basic eDp5,basic eDp5"),
    ):
        assert Api().get("/wallets", Authorization=header).code == "unauthorized"
    assert Api().get("/wallets", Authorization=f"Bearer {key}").status == 200


def test_open_api_ignores_credentials_with_commas(settings: LazySettings) -> None:
    settings.API_ACCESS = "open"
    assert Api().get("/wallets", Authorization='Digest username="x", realm="y"').status == 200


@pytest.mark.parametrize(
    ("header", "is_named"),
    [
        ("TAG", True),
        ("W/TAG", True),
        ('"x",TAG', True),
        (' "x" ,, W/"y" , TAG ', True),
        ('"a,b", TAG', True),
        ("*", True),
        ("", False),
        ('"x"', False),
        ('"x,TAG,y"', False),
        ("TAG, x", False),
        ('TAG, "x', False),
        ("*, TAG", False),
        ("w/TAG", False),
    ],
)
def test_entity_tags_are_read_as_a_list(api: Api, header: str, is_named: bool) -> None:
    wallet_id = api.open()
    given = header.replace("TAG", api.get(f"/wallets/{wallet_id}").headers["etag"])
    assert api.get(f"/wallets/{wallet_id}", If_None_Match=given).status == (304 if is_named else 200)
    changed = api.patch(f"/wallets/{wallet_id}", {"label": "x"}, If_Match=given)
    assert changed.status == (200 if is_named else 412)


@pytest.mark.parametrize(
    ("prefer", "status"),
    [
        ('return="a, respond-async"', 201),
        ('return="a\\", respond-async', 201),
        ('return="a,b", respond-async', 202),
        ('wait="5;,", respond-async; foo="x,y"', 202),
        (",, respond-async ,", 202),
        ('"respond-async"', 201),
    ],
)
def test_preferences_are_read_as_a_list(api: Api, prefer: str, status: int) -> None:
    path: Any = f"/wallets/{api.open()}/operation"
    assert api.post(path, BODY, Prefer=prefer).status == status


def test_many_quotes_are_parsed_in_linear_time(api: Api) -> None:
    """Each pattern reads a header once; a quadratic pattern would take minutes for this one."""
    wallet_id, quotes = api.open(), '\\"' * 100_000
    assert api.get(f"/wallets/{wallet_id}", If_None_Match=f'"{quotes}').status == 200
    assert api.post(f"/wallets/{wallet_id}/operation", BODY, Prefer=f'"{quotes}').status == 201
