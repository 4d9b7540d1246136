"""Random bodies, headers, URLs and queries are answered as the API's contract defines."""

import json
import string
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Books
from tests.support.client import JSON, Answer, Api
from tests.support.fuzz.budget import examples
from tests.support.fuzz.strategies import bodies, json_texts, objects, texts, values
from wallets.problems import CONTENT_TYPE

# The texts that a header can contain after the server has parsed it.
header_texts = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60
)
queries = st.dictionaries(
    st.sampled_from(["limit", "cursor", "type", "status", "from", "to", "at"])
    | texts.filter(str.isprintable),
    st.sampled_from(
        ["1", "500", "DEPOSIT", "COMPLETED", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999+14:00"]
    )
    | st.text(max_size=20),
    max_size=3,
)
LISTS = ["/wallets", "/wallets/{}/operations", "/wallets/{}/holds", "/webhooks"]
READ = [*LISTS, "/wallets/{}/balance", "/wallets/{}/statement", "/wallets/{}", "/operations/{}", "/holds/{}"]


@pytest.fixture(scope="module")
def wallet_id() -> str:
    return Api().open(deposit="1000", currency="EUR")


def is_of_the_contract(answer: Answer) -> bool:
    """Return whether the response is a success or a problem with a 4xx status."""
    if answer.status < 400:
        return True
    return answer.status < 500 and answer.headers["content-type"] == CONTENT_TYPE and bool(answer.code)


@examples(150)
@given(content=bodies | st.binary(max_size=40) | json_texts.map(str.encode))
def test_corrupted_body_is_refused_or_carried_out(wallet_id: str, content: bytes) -> None:
    api, books = Api(), Books((wallet_id,))
    before = books.snapshot()
    answer = api.sender.send(
        "POST", f"/api/v1/wallets/{wallet_id}/operation", content, {"Content-Type": JSON}
    )
    assert is_of_the_contract(answer)
    if answer.status == 201:
        assert answer.json["amount"] == f"{Decimal(str(json.loads(content)['amount'])):.2f}"
    else:
        assert books.snapshot() == before


@examples(100)
@given(metadata=st.dictionaries(texts, values, max_size=4))
def test_accepted_metadata_is_returned_as_sent(metadata: dict[str, Any]) -> None:
    api = Api()
    opened = api.post("/wallets", {"metadata": metadata})
    assert is_of_the_contract(opened)
    if opened.status == 201:
        assert opened.json["metadata"] == api.wallet(opened.json["id"])["metadata"] == metadata


@pytest.mark.parametrize(
    "path", ["/transfers", "/operations", "/wallets", "/wallet", "/wallets/{}/holds", "/webhooks"]
)
def test_random_object_causes_no_server_error(wallet_id: str, path: str) -> None:
    @examples(30)
    @given(
        objects(
            [
                "walletId",
                "operationType",
                "amount",
                "sourceWalletId",
                "targetWalletId",
                "operations",
                "id",
                "url",
            ]
        )
    )
    def is_answered(fields: dict[str, Any]) -> None:
        assert is_of_the_contract(Api().post(path.format(wallet_id), fields))

    is_answered()


@pytest.mark.parametrize("path", READ)
def test_random_query_causes_no_server_error(wallet_id: str, path: str) -> None:
    @examples(30)
    @given(queries)
    def is_answered(query: dict[str, str]) -> None:
        assert is_of_the_contract(Api().get(f"{path.format(wallet_id)}?{urlencode(query)}"))

    is_answered()


@pytest.mark.parametrize("path", LISTS)
def test_changed_cursor_is_refused(wallet_id: str, path: str) -> None:
    api = Api()
    for _ in range(2):
        api.deposit(wallet_id, 1)
        api.hold(wallet_id, 1)
        api.open()
        api.post("/webhooks", {"name": "tampered", "url": "https://example.com/"})
    address = path.format(wallet_id)
    cursor = api.get(f"{address}?limit=1").json["nextCursor"] or "eyJmaWx0ZXJzIjp7fSwiaWQiOjF9"

    @examples(50)
    @given(
        st.integers(0, len(cursor) - 1), st.sampled_from(string.ascii_letters + string.digits + "-_=.\n\x00é")
    )
    def is_refused_or_another(at: int, new: str) -> None:
        answer = api.get(f"{address}?cursor={quote(cursor[:at] + new + cursor[at + 1 :])}")
        assert is_of_the_contract(answer)
        assert answer.status in (200, 400)

    is_refused_or_another()


@examples(100)
@given(id=texts.filter(lambda id: id.isprintable() and id not in ("", ".", "..")))
def test_invalid_id_is_not_found(id: str) -> None:
    for noun in ("wallets", "operations", "transfers", "holds", "webhooks"):
        answer = Api().get(f"/{noun}/{quote(id)}")
        assert answer.code == ("not_found" if "/" in id else f"{noun.removesuffix('s')}_not_found")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Idempotency-Key",
            "Prefer",
            "traceparent",
            "Accept",
            "If-Match",
            "If-None-Match",
            "X-Request-ID",
        ),
        *("Authorization", "Cookie", "Content-Type", "Accept-Language", "Last-Event-ID", "Origin", "Host"),
    ],
)
def test_random_header_causes_no_server_error(wallet_id: str, name: str) -> None:
    @examples(30)
    @given(header_texts)
    def is_answered(value: str) -> None:
        sender = Api().sender
        given = {"Content-Type": JSON, name: value}
        content = b'{"operationType": "DEPOSIT", "amount": 1}'
        assert is_of_the_contract(sender.send("GET", f"/api/v1/wallets/{wallet_id}", None, {name: value}))
        assert is_of_the_contract(
            sender.send("POST", f"/api/v1/wallets/{wallet_id}/operation", content, given)
        )

    is_answered()


def test_ledger_is_consistent_after_the_random_requests(wallet_id: str) -> None:
    Books((wallet_id,)).verify()
