"""Password checks are expensive for a guesser, and do not delay other requests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, make_password

from tests.conftest import running_service
from tests.support.client import Answer, Api, OverHttp
from tests.support.keys import PASSWORD
from tests.support.people import Person, registration, somebody
from wallets.access.passwords import MAX_PENDING_HASHES, Hasher
from wallets.models import User


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """One process, with one connection for all but the ledger."""
    one = {"WORKERS": "1", "DATABASE_POOL_MIN": "1", "DATABASE_POOL_MAX": "1"}
    with running_service(**one) as address:
        yield address


@pytest.fixture(scope="module")
def anna() -> Person:
    return somebody("5")


def log_in(service: str, person: Person, password: str = PASSWORD) -> Answer:
    sender = OverHttp(service)
    with closing(sender.connection):
        return Api(sender).post("/login", {"email": person.user.email, "password": password})


def test_a_password_costs_what_django_thinks_it_should_and_is_stored_in_its_form() -> None:
    assert Hasher.iterations == PBKDF2PasswordHasher.iterations
    stored = make_password(PASSWORD)
    assert PBKDF2PasswordHasher().verify(PASSWORD, stored)
    assert check_password(PASSWORD, stored)
    assert not check_password(PASSWORD.upper(), stored)


def test_a_hash_that_fails_leaves_room_for_the_next() -> None:
    for _ in range(MAX_PENDING_HASHES + 1):
        with pytest.raises(ValueError, match="salt"):
            Hasher().encode(PASSWORD, "no$salt", 1)
    assert Hasher().encode(PASSWORD, "salt", 1).startswith("pbkdf2_sha256$1$salt$")


@pytest.mark.slow
def test_while_passwords_are_checked_others_are_answered(service: str, anna: Person) -> None:
    sender = OverHttp(service)
    api = Api(sender)
    answered = 0
    with closing(sender.connection), ThreadPoolExecutor(MAX_PENDING_HASHES) as pool:
        logins = [pool.submit(log_in, service, anna) for _ in range(MAX_PENDING_HASHES)]
        wait(logins, return_when="FIRST_COMPLETED")  # so the others are being checked, or wait for that
        while not all(login.done() for login in logins):
            assert sender.send("GET", "/livez").status == 200
            assert api.get(f"/wallets/{anna.wallet_id}").status == 200
            # By the connection for which the logins have no use at the moment.
            assert len(api.history(anna.wallet_id)) == 1
            assert api.post("/transfers", {}).status == 400
            answered += 1
    assert [login.result().status for login in logins] == [200] * MAX_PENDING_HASHES
    # Were they checked between other requests, instead of beside them, it would be one for each.
    assert answered > 3 * MAX_PENDING_HASHES


@pytest.mark.slow
def test_too_many_at_once_are_sent_away_and_the_others_are_served(service: str, anna: Person) -> None:
    with ThreadPoolExecutor(3 * MAX_PENDING_HASHES) as pool:
        answers = list(pool.map(lambda _: log_in(service, anna), range(3 * MAX_PENDING_HASHES)))
    refused = [answer for answer in answers if answer.status != 200]
    assert MAX_PENDING_HASHES <= len(answers) - len(refused) < len(answers)
    for answer in refused:
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many_requests", "1")
    assert log_in(service, anna).status == 200


@pytest.mark.slow
def test_who_is_sent_away_signing_up_has_not_signed_up(service: str) -> None:
    people = [registration() for _ in range(2 * MAX_PENDING_HASHES)]

    def sign_up(number: int) -> int:
        sender = OverHttp(service)
        with closing(sender.connection):
            return Api(sender).post("/signup", people[number]).status

    with ThreadPoolExecutor(2 * MAX_PENDING_HASHES) as pool:
        statuses = list(pool.map(sign_up, range(2 * MAX_PENDING_HASHES)))
    assert set(statuses) == {201, 429}
    have_account = [User.objects.by_email(person["email"]).exists() for person in people]
    assert [201 if has_account else 429 for has_account in have_account] == statuses
