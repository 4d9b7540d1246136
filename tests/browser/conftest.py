"""Chromium, and the service as in production. A test fails on any error in the browser."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser

from tests.conftest import running_service
from tests.support import mail
from tests.support.browser import chromium
from tests.support.browser.person import Person
from tests.support.client import Api, OverHttp
from tests.support.keys import PASSWORD, new_key, new_operator, new_person
from wallets.access.rights import ADMIN

Someone = Callable[..., Person]


@dataclass(frozen=True)
class Payee:
    """A user who receives money. All tests share it, so only differences of its balance count."""

    email: str
    wallet_id: str


@dataclass(frozen=True)
class House:
    """The service, and users created before the browser starts, because the ORM refuses later."""

    address: str
    bank: Api
    without_wallet: str  # who logs in so has none
    operator: str
    boris: Payee
    mails: Path


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    key = new_key(ADMIN)
    without_wallet, operator = new_person().username, new_operator("view_wallet", "view_operation").username
    # All people come from one address.
    off = {"RATE_LIMIT_SIGNUP": "off", "RATE_LIMIT_LOGIN": "off", "RATE_LIMIT_USER": "off"}
    mails = tmp_path_factory.mktemp("mails")
    with running_service(API_ACCESS="key", EMAIL_URL=mail.url_of(mails), **off) as address:
        sender = OverHttp(address)
        boris = _sign_up(Api(sender), "Boris")
        mail.verify_email(address, mails, boris.email)
        yield House(address, Api(sender, key), without_wallet, operator, boris, mails)
        sender.connection.close()


def _sign_up(stranger: Api, name: str) -> Payee:
    email = f"{name.lower()}-{uuid4()}@example.com"  # among other tests, this may not be the first house
    answer = stranger.post("/signup", {"name": name, "email": email, "password": PASSWORD})
    assert answer.status == 201, answer
    return Payee(email, answer.json["walletId"])


@pytest.fixture(scope="package")
def browser(house: House) -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        pytest.fail(chromium.MISSING, pytrace=False)
    with chromium.running(path) as browser:
        yield browser


@pytest.fixture
def bank(house: House) -> Api:
    return house.bank


@pytest.fixture
def boris(house: House) -> Payee:
    return house.boris


@pytest.fixture
def visitor(house: House, browser: Browser) -> Iterator[Someone]:
    """`visitor(locale="ru-RU")`: a new visitor, with options of Playwright's contexts."""
    here: list[Person] = []

    def come(**options: Any) -> Person:
        here.append(Person(browser, house.address, **options))
        return here[-1]

    yield come
    for person in here:
        person.leave()


@pytest.fixture
def owner(visitor: Someone, bank: Api, house: House) -> Someone:
    """`owner("100.00")`: the owner of a verified account with that much, on the page of their wallet."""

    def come(deposit: str | None = None, **options: Any) -> Person:
        person = visitor(**options)
        person.open_account()
        mail.verify_email(house.address, house.mails, person.email)
        if deposit:
            assert bank.deposit(person.wallet_id, deposit).status == 201
        person.go_home()
        return person

    return come
