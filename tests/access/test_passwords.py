"""Password checks are expensive for a guesser, and do not delay other requests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, make_password

from tests.conftest import running_service
from tests.support.client import Answer, Api, OverHttp
from tests.support.keys import PASSWORD
from tests.support.people import Person, new_account, registration
from wallets.access.passwords import MAX_PENDING_HASHES, Hasher
from wallets.models import User


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """One process, with one database connection in addition to the ledger's."""
    settings = {"WORKERS": "1", "DATABASE_POOL_MIN": "1", "DATABASE_POOL_MAX": "1"}
    with running_service(**settings) as address:
        yield address


@pytest.fixture(scope="module")
def anna() -> Person:
    return new_account("5")


def log_in(service: str, person: Person, password: str = PASSWORD) -> Answer:
    sender = OverHttp(service)
    with closing(sender.connection):
        return Api(sender).post("/login", {"email": person.user.email, "password": password})


def test_password_hash_has_the_cost_and_format_of_django() -> None:
    assert Hasher.iterations == PBKDF2PasswordHasher.iterations
    stored = make_password(PASSWORD)
    assert PBKDF2PasswordHasher().verify(PASSWORD, stored)
    assert check_password(PASSWORD, stored)
    assert not check_password(PASSWORD.upper(), stored)


def test_failed_hash_releases_its_slot() -> None:
    for _ in range(MAX_PENDING_HASHES + 1):
        with pytest.raises(ValueError, match="salt"):
            Hasher().encode(PASSWORD, "no$salt", 1)
    assert Hasher().encode(PASSWORD, "salt", 1).startswith("pbkdf2_sha256$1$salt$")


@pytest.mark.slow
def test_password_checks_do_not_delay_other_requests(service: str, anna: Person) -> None:
    sender = OverHttp(service)
    api = Api(sender)
    answered = 0
    with closing(sender.connection), ThreadPoolExecutor(MAX_PENDING_HASHES) as pool:
        logins = [pool.submit(log_in, service, anna) for _ in range(MAX_PENDING_HASHES)]
        wait(logins, return_when="FIRST_COMPLETED")  # the others are still checked or waiting
        while not all(login.done() for login in logins):
            assert sender.send("GET", "/livez").status == 200
            assert api.get(f"/wallets/{anna.wallet_id}").status == 200
            # These use the one database connection, which the waiting logins have returned.
            assert len(api.history(anna.wallet_id)) == 1
            assert api.post("/transfers", {}).status == 400
            answered += 1
    assert [login.result().status for login in logins] == [200] * MAX_PENDING_HASHES
    # If the event loop itself hashed, only one round of requests would fit between two hashes.
    assert answered > 3 * MAX_PENDING_HASHES


@pytest.mark.slow
def test_excess_concurrent_logins_are_refused(service: str, anna: Person) -> None:
    with ThreadPoolExecutor(3 * MAX_PENDING_HASHES) as pool:
        answers = list(pool.map(lambda _: log_in(service, anna), range(3 * MAX_PENDING_HASHES)))
    refused = [answer for answer in answers if answer.status != 200]
    assert MAX_PENDING_HASHES <= len(answers) - len(refused) < len(answers)
    for answer in refused:
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many_requests", "1")
    assert log_in(service, anna).status == 200


@pytest.mark.slow
def test_refused_sign_up_creates_no_account(service: str) -> None:
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
