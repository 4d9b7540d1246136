"""Transfers to an account by its e-mail address."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.conftest import Books, Unchanged
from tests.support.client import Answer, Api
from tests.support.keys import new_key, new_operator, new_owner, session_of
from tests.support.people import Person, bank, new_account, new_address, new_wallet
from wallets.access.rights import ADMIN
from wallets.ledger.inbox import drain
from wallets.models import InboxEntry, User

pytestmark = pytest.mark.usefixtures("quick_hashing")


@pytest.fixture(autouse=True)
def _with_keys_only(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"


def send(api: Api, source_id: str, email: object, key: str | None = None, **fields: Any) -> Answer:
    body = {"sourceWalletId": source_id, "targetEmail": email, "amount": "1", **fields}
    return api.post("/transfers", body, **({"Idempotency_Key": key} if key else {}))


def test_address_is_found_in_any_case() -> None:
    anna, boris = new_account("10"), new_account()
    email = boris.user.email
    for api in (session_of(anna.user), bank()):
        for spelling in (email, email.upper(), email.title()):
            answer = send(api, anna.wallet_id, spelling)
            assert (answer.status, answer.json["target"]["walletId"]) == (201, boris.wallet_id)
    assert (bank().balance(anna.wallet_id), bank().balance(boris.wallet_id)) == ("4.00", "6.00")
    Books((anna.wallet_id, boris.wallet_id)).verify()


def test_payer_learns_only_the_wallet_id_of_an_address() -> None:
    anna, boris = new_account("10"), new_account("777")
    answer = send(session_of(anna.user), anna.wallet_id, boris.user.email)
    assert (answer.json["target"]["balance"], answer.json["target"]["sequence"]) == (None, None)
    assert "777.00" not in answer.content.decode()


def test_address_means_the_oldest_wallet_of_the_currency() -> None:
    anna, boris = new_account("10", currency="EUR"), new_account()
    oldest = new_wallet(boris.user, currency="EUR")
    new_wallet(boris.user, currency="EUR")
    assert send(bank(), anna.wallet_id, boris.user.email).json["target"]["walletId"] == oldest


def test_operator_is_paid_by_address_like_a_user() -> None:
    anna, operator = new_account("10"), new_operator()
    wallet_id = new_wallet(operator)
    assert send(bank(), anna.wallet_id, operator.email).json["target"]["walletId"] == wallet_id


# --- Refusals ---------------------------------------------------------------------------------------
def without_account() -> str:
    return new_address()


def with_another_currency() -> str:
    return new_account(currency="EUR").user.email


def without_a_wallet() -> str:
    return new_operator().email


def of_an_inactive_account() -> str:
    return new_account(is_active=False).user.email


def unverified() -> str:
    return new_account(verified_email="").user.email


def changed_after_verification() -> str:
    person = new_account()
    User.objects.filter(pk=person.user.pk).update(email=(changed := new_address()))
    return changed


def with_a_closed_wallet() -> str:
    person = new_account()
    assert bank().patch(f"/wallets/{person.wallet_id}", {"status": "CLOSED"}).status == 200
    return person.user.email


def username_without_address() -> str:
    """A username may look like an address; only a verified e-mail address counts."""
    person = new_account()
    User.objects.filter(pk=person.user.pk).update(email="")
    return person.user.username


WITHOUT_TARGET = (
    without_account,
    unverified,
    changed_after_verification,
    with_another_currency,
    with_a_closed_wallet,
    without_a_wallet,
    of_an_inactive_account,
    username_without_address,
)


@pytest.mark.parametrize("email", WITHOUT_TARGET)
@pytest.mark.parametrize("later", [{}, {"Prefer": "respond-async"}])
def test_responses_do_not_reveal_accounts(email: Callable[[], str], later: dict[str, str]) -> None:
    """Status, headers, bytes and queries are the same as for an address without an account."""
    anna = new_account("10")
    headers = {"X_Request_ID": "the-same", "Idempotency_Key": "k"}
    for api in (session_of(anna.user), bank()):
        answers, queries = [], []
        for address in (new_address(), email()):
            body = {"sourceWalletId": anna.wallet_id, "targetEmail": address, "amount": "1"}
            api.post("/transfers", {**body, "targetEmail": new_address()})  # now the key or session is cached
            with CaptureQueriesContext(connection) as captured:
                answer = api.post("/transfers", body, **headers, **later)
            rate = ("ratelimit", "ratelimit-policy")
            answers.append(
                (
                    answer.status,
                    [item for item in answer.headers.items() if item[0] not in rate],
                    answer.content,
                )
            )
            queries.append([query["sql"].replace(address, "…") for query in captured])
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
        assert len(queries[0]) == len(queries[1]) > 0


@pytest.mark.parametrize("email", WITHOUT_TARGET)
def test_unknown_address_is_refused_and_the_key_stays_free(
    email: Callable[[], str], unchanged: Unchanged
) -> None:
    anna, address = new_account("10"), email()
    wallets = [
        str(id)
        for user in User.objects.by_email(address)
        for id in user.wallet_set.values_list("id", flat=True)
    ]
    for api in (session_of(anna.user), bank()):
        with unchanged(anna.wallet_id, *wallets):
            answer = send(api, anna.wallet_id, address, key="k")
            assert (answer.status, answer.code) == (404, "wallet_not_found")
    assert send(bank(), anna.wallet_id, new_account().user.email, key="k").status == 201


def test_foreign_source_wallet_finds_no_address(unchanged: Unchanged) -> None:
    anna, boris, carla = new_account("10"), new_account("10"), new_account()
    restricted = Api(key=new_key(ADMIN, owner=anna.user, is_restricted=True))
    with unchanged(anna.wallet_id, boris.wallet_id, carla.wallet_id):
        for api in (session_of(anna.user), restricted):
            known = send(api, boris.wallet_id, carla.user.email)
            unknown = send(api, boris.wallet_id, new_address())
            own = send(api, boris.wallet_id, boris.user.email)
            for answer in (known, unknown, own):
                assert (answer.status, answer.code) == (404, "wallet_not_found")
            assert known.json["detail"] == unknown.json["detail"] == own.json["detail"]
            assert send(api, str(uuid4()), carla.user.email).code == "wallet_not_found"


@pytest.mark.parametrize("later", [{}, {"Prefer": "respond-async"}])
def test_address_of_the_source_wallet_is_refused(later: dict[str, str], unchanged: Unchanged) -> None:
    anna = new_account("10")
    body = {"sourceWalletId": anna.wallet_id, "targetEmail": anna.user.email.upper(), "amount": "1"}
    for api in (session_of(anna.user), bank()):
        with unchanged(anna.wallet_id):
            answer = api.post("/transfers", body, Idempotency_Key="k", **later)
            assert (answer.status, answer.code) == (400, "validation_error")
            assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [
                ("targetEmail", "same_wallet")
            ]


def test_own_address_from_a_second_wallet_means_the_first() -> None:
    anna = new_account()
    second = new_wallet(anna.user, "10")
    answer = send(session_of(anna.user), second, anna.user.email)
    assert (answer.status, answer.json["target"]["walletId"]) == (201, anna.wallet_id)
    Books((anna.wallet_id, second)).verify()


def test_transfer_needs_exactly_one_target(unchanged: Unchanged) -> None:
    anna, boris = new_account("10"), new_account()
    with unchanged(anna.wallet_id, boris.wallet_id):
        for fields in (
            {},
            {"targetEmail": None},
            {"targetWalletId": None, "targetEmail": None},
            {"targetWalletId": boris.wallet_id, "targetEmail": boris.user.email},
            {"targetWalletId": anna.wallet_id, "targetEmail": boris.user.email},
        ):
            answer = bank().post("/transfers", {"sourceWalletId": anna.wallet_id, "amount": "1", **fields})
            assert (answer.status, answer.code) == (400, "validation_error")
            assert answer.json["errors"][0]["code"] in ("required", "same_wallet")
    given = {"targetWalletId": boris.wallet_id, "targetEmail": None}
    answer = bank().post("/transfers", {"sourceWalletId": anna.wallet_id, "amount": "1", **given})
    assert answer.status == 201


@pytest.mark.parametrize(
    "email",
    [
        "",
        "anna",
        "%",
        "annaſ@example.com",
        "anna@example.com\n",
        "an\0na@example.com",
        "\ud800",
        5,
    ]
    + [["anna@example.com"], "a" * 10_000 + "@example.com", '"\x01"@example.com'],
)
def test_invalid_address_is_a_validation_error(email: object, unchanged: Unchanged) -> None:
    anna = new_account("10")
    with unchanged(anna.wallet_id):
        answer = send(bank(), anna.wallet_id, email)
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [error["field"] for error in answer.json["errors"]] == ["targetEmail"]


def test_pattern_finds_no_account(unchanged: Unchanged) -> None:
    anna, boris = new_account("10"), new_account()
    with unchanged(anna.wallet_id, boris.wallet_id):
        for email in (
            "%@example.com",
            boris.user.email.replace("-", "_"),
            boris.user.email.replace("person", "%"),
        ):
            assert send(bank(), anna.wallet_id, email).code == "wallet_not_found"


def test_bulk_accepts_no_address(unchanged: Unchanged) -> None:
    anna, boris = new_account("10"), new_account()
    with unchanged(anna.wallet_id, boris.wallet_id):
        answer = bank().bulk(
            {"sourceWalletId": anna.wallet_id, "targetEmail": boris.user.email, "amount": "1"}
        )
    assert answer.code == "validation_error"


def test_rule_refuses_a_transfer_by_address(unmoved: Unchanged) -> None:
    anna, boris = new_account(), new_account()
    with unmoved(anna.wallet_id, boris.wallet_id):
        answer = send(session_of(anna.user), anna.wallet_id, boris.user.email)
    assert (answer.status, answer.code) == (409, "insufficient_funds")
    assert answer.json["operationId"] == bank().history(anna.wallet_id)[0]["id"]


# --- Idempotency keys -------------------------------------------------------------------------------
def spellings(person: Person) -> list[Any]:
    """Return addresses that name the same account."""
    return [person.user.email, person.user.email.upper()]


def test_replay_moves_nothing_and_returns_the_first_response(unchanged: Unchanged) -> None:
    anna, boris = new_account("10"), new_account()
    api = session_of(anna.user)
    first = send(api, anna.wallet_id, boris.user.email, key="rent")
    new_wallet(boris.user)  # a newer wallet does not change the target
    with unchanged(anna.wallet_id, boris.wallet_id):
        for spelling in spellings(boris):
            again = send(api, anna.wallet_id, spelling, key="rent")
            assert (again.status, again.content) == (201, first.content)
            assert again.headers["idempotent-replayed"] == "true"
        # The id of the target wallet makes the same request as the address.
        assert api.transfer(anna.wallet_id, boris.wallet_id, 1, key="rent").content == first.content


def test_used_key_for_another_address_of_a_user_is_refused(unchanged: Unchanged) -> None:
    anna, boris, carla = new_account("10"), new_account(), new_account()
    api = session_of(anna.user)
    assert send(api, anna.wallet_id, boris.user.email, key="rent").status == 201
    with unchanged(anna.wallet_id, boris.wallet_id, carla.wallet_id):
        assert send(api, anna.wallet_id, carla.user.email, key="rent").code == "idempotency_key_reused"


def test_asynchronous_transfer_reaches_the_address() -> None:
    anna, boris = new_account("10"), new_account()
    body = {"sourceWalletId": anna.wallet_id, "targetEmail": boris.user.email, "amount": "1"}
    accepted = session_of(anna.user).post("/transfers", body, Prefer="respond-async")
    assert (accepted.status, InboxEntry.objects.filter(id=accepted.json["id"]).count()) == (202, 1)
    while drain(500):
        pass
    assert bank().balance(boris.wallet_id) == "1.00"


def test_read_only_key_learns_nothing_about_addresses(unchanged: Unchanged) -> None:
    anna, boris = new_account("10"), new_account()
    reader = Api(key=new_key("wallets:read", owner=new_owner()))
    with unchanged(anna.wallet_id, boris.wallet_id):
        for email in (boris.user.email, new_address()):
            assert send(reader, anna.wallet_id, email).code == "forbidden"


# --- Replays after a change of the account ----------------------------------------------------------
def test_replay_succeeds_after_the_address_has_changed() -> None:
    anna, boris = new_account("10"), new_account()
    email = boris.user.email
    first = send(bank(), anna.wallet_id, email, key="rent")
    changes: list[dict[str, Any]] = [
        {"is_active": False},
        {"email": new_address(), "is_active": True},
        {"email": ""},
    ]
    for change in changes:
        User.objects.filter(pk=boris.user.pk).update(**change)
        again = send(bank(), anna.wallet_id, email, key="rent")
        assert (again.json, again.headers["idempotent-replayed"]) == (first.json, "true")
        assert send(bank(), anna.wallet_id, email, key="other").code == "wallet_not_found"
    assert bank().balance(anna.wallet_id) == "9.00"


def test_new_transfer_skips_a_closed_wallet_and_replay_keeps_it() -> None:
    anna, boris = new_account("10"), new_account()
    first = send(bank(), anna.wallet_id, boris.user.email, key="rent")
    assert bank().withdraw(boris.wallet_id, "1").status == 201
    assert bank().patch(f"/wallets/{boris.wallet_id}", {"status": "CLOSED"}).status == 200
    second = new_wallet(boris.user, currency=first.json["currency"])
    assert send(bank(), anna.wallet_id, boris.user.email).json["target"]["walletId"] == second
    assert send(bank(), anna.wallet_id, boris.user.email, key="rent").json == first.json


def test_used_key_for_another_address_is_refused(unmoved: Unchanged) -> None:
    anna, boris, clara = new_account("10"), new_account(), new_account()
    assert send(bank(), anna.wallet_id, boris.user.email, key="rent").status == 201
    with unmoved(anna.wallet_id, boris.wallet_id, clara.wallet_id):
        assert send(bank(), anna.wallet_id, clara.user.email, key="rent").code == "idempotency_key_reused"


def test_replay_of_an_asynchronous_transfer_keeps_its_target() -> None:
    anna, boris = new_account("10"), new_account()
    later = {"Prefer": "respond-async", "Idempotency-Key": "rent"}
    body = {"sourceWalletId": anna.wallet_id, "targetEmail": boris.user.email, "amount": "1"}
    first = bank().post("/transfers", body, **later)
    User.objects.filter(pk=boris.user.pk).update(is_active=False)
    again = bank().post("/transfers", body, **later)
    assert (first.status, again.status, again.json) == (202, 202, first.json)
    while drain(500):
        pass
    assert bank().balance(boris.wallet_id) == "1.00"


def test_foreign_user_does_not_learn_used_keys() -> None:
    anna, boris, clara = new_account("10"), new_account(), new_account()
    send(bank(), anna.wallet_id, boris.user.email, key="rent")
    details = [
        send(session_of(clara.user), anna.wallet_id, boris.user.email, key=key).json["detail"]
        for key in ("rent", "other")
    ]
    assert details[0] == details[1]
