"""A cursor is valid only for its own list, wallet and filters."""

import base64
import json
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest

from tests.support.client import Answer, Api


def decoded(cursor: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return content


def encoded(content: Any) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    return base64.urlsafe_b64encode(text.encode(errors="surrogatepass")).decode().rstrip("=")


def assert_refused(answer: Answer, field: str = "cursor") -> None:
    assert (answer.status, answer.code) == (400, "validation_error"), answer
    assert [error["field"] for error in answer.json["errors"]] == [field]


def cursor_of(api: Api, path: str) -> str:
    found = api.get(f"{path}{'&' if '?' in path else '?'}limit=1").json["nextCursor"]
    assert isinstance(found, str)
    return found


@pytest.fixture
def webhooks(api: Api) -> Iterator[None]:
    made = [
        api.post("/webhooks", {"name": f"cursors {n}", "url": "https://example.com/"}).json["id"]
        for n in range(2)
    ]
    yield
    for webhook_id in made:
        api.send("DELETE", f"/webhooks/{webhook_id}")


def new_wallet(api: Api) -> str:
    wallet_id = api.open(deposit="5")
    api.deposit(wallet_id, 5)
    for _ in range(2):
        api.hold(wallet_id, 1)
    return wallet_id


@pytest.mark.usefixtures("webhooks")
def test_list_refuses_the_cursor_of_another_list(api: Api) -> None:
    lists = ["/wallets", "/webhooks"]
    for wallet_id in (new_wallet(api), new_wallet(api)):
        lists += [f"/wallets/{wallet_id}/operations", f"/wallets/{wallet_id}/holds"]
    cursors = {path: cursor_of(api, path) for path in lists}
    for path, cursor in cursors.items():
        assert api.get(f"{path}?cursor={cursor}").status == 200
    for path, other in permutations(lists, 2):
        assert_refused(api.get(f"{path}?cursor={cursors[other]}"))


def test_cursor_is_valid_for_the_wallet_id_in_upper_case(api: Api) -> None:
    wallet_id = new_wallet(api)
    cursor = cursor_of(api, f"/wallets/{wallet_id}/operations")
    assert api.get(f"/wallets/{wallet_id.upper()}/operations?cursor={cursor}").status == 200


@pytest.mark.parametrize(
    "created_at",
    [
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "2026-01-01T00:00:00"),
        *("2026-01-01T00:00:00+23:59", "2026-01-01T24:00:00Z", "2026-13-01T00:00:00Z", "infinity", "now"),
        *("2026-01-01", "", 1767225600, 1e300, -1, None, [], {}, True, "2026-01-01T00:00:00Z\x00"),
    ],
)
def test_cursor_with_a_forged_time_causes_no_error(api: Api, created_at: Any) -> None:
    wallet_id = new_wallet(api)
    for path in ("/wallets", f"/wallets/{wallet_id}/operations", f"/wallets/{wallet_id}/holds"):
        forged = decoded(cursor_of(api, path)) | {"created_at": created_at}
        answer = api.get(f"{path}?cursor={encoded(forged)}")
        if created_at != "2026-01-01T00:00:00+23:59":  # a valid time with a large offset
            assert_refused(answer)
        else:
            assert answer.status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"id": "00000000-0000-0000-0000-000000000000"},
        {"id": 1},
        {"id": None},
        {"filters": []},
        {"filters": {"status": 1}},
        {"list_name": ""},
        {"list_name": None},
        {"more": 1},
    ],
)
def test_forged_cursor_is_refused(api: Api, change: dict[str, Any]) -> None:
    path = f"/wallets/{new_wallet(api)}/operations"
    assert_refused(api.get(f"{path}?cursor={encoded(decoded(cursor_of(api, path)) | change)}"))


@pytest.mark.parametrize("content", ["[]", "null", "1", '"x"', "{}", "[" * 2000, "{", '{"a":\ud800}', "\x00"])
def test_invalid_cursor_is_refused(api: Api, content: str) -> None:
    assert_refused(api.get(f"/wallets?cursor={encoded(content)}"))


def test_forged_filters_are_validated_as_parameters(api: Api) -> None:
    path = f"/wallets/{new_wallet(api)}/operations"
    cursor = decoded(cursor_of(api, path))
    for name, value in (("status", "X"), ("from", "2026"), ("nope", "1")):
        assert_refused(api.get(f"{path}?cursor={encoded(cursor | {'filters': {name: value}})}"), name)


def test_page_size_of_the_request_overrides_the_cursor(api: Api) -> None:
    path = f"/wallets/{new_wallet(api)}/operations"
    cursor = decoded(cursor_of(api, path)) | {"filters": {"limit": "500", "cursor": "x"}}
    assert len(api.get(f"{path}?limit=1&cursor={encoded(cursor)}").json["items"]) == 1
