"""Chromium and a running service. A test fails if the browser reports an error."""

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

NewPerson = Callable[..., Person]


@dataclass(frozen=True)
class Payee:
    """A user who receives money. All tests share it, so only differences of its balance count."""

    email: str
    wallet_id: str


@dataclass(frozen=True)
class Site:
    """The service, and users created before the browser starts, because the ORM refuses later."""

    address: str
    bank: Api
    without_wallet: str  # the username of a user without a wallet
    operator: str
    boris: Payee
    mails: Path


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    key = new_key(ADMIN)
    without_wallet, operator = new_person().username, new_operator("view_wallet", "view_operation").username
    # All users have the same IP address.
    off = {"RATE_LIMIT_SIGNUP": "off", "RATE_LIMIT_LOGIN": "off", "RATE_LIMIT_USER": "off"}
    mails = tmp_path_factory.mktemp("mails")
    with running_service(API_ACCESS="key", EMAIL_URL=mail.url_of(mails), **off) as address:
        sender = OverHttp(address)
        boris = _sign_up(Api(sender), "Boris")
        mail.verify_email(address, mails, boris.email)
        yield Site(address, Api(sender, key), without_wallet, operator, boris, mails)
        sender.connection.close()


def _sign_up(api: Api, name: str) -> Payee:
    email = (
        f"{name.lower()}-{uuid4()}@example.com"  # another process of the tests may have created the same name
    )
    answer = api.post("/signup", {"name": name, "email": email, "password": PASSWORD})
    assert answer.status == 201, answer
    return Payee(email, answer.json["walletId"])


@pytest.fixture(scope="package")
def browser(site: Site) -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        pytest.fail(chromium.MISSING, pytrace=False)
    with chromium.running(path) as browser:
        yield browser


@pytest.fixture
def bank(site: Site) -> Api:
    return site.bank


@pytest.fixture
def boris(site: Site) -> Payee:
    return site.boris


@pytest.fixture
def visitor(site: Site, browser: Browser) -> Iterator[NewPerson]:
    """Return a function that opens a browser context, such as `visitor(locale="ru-RU")`."""
    people: list[Person] = []

    def new_visitor(**options: Any) -> Person:
        people.append(Person(browser, site.address, **options))
        return people[-1]

    yield new_visitor
    for person in people:
        person.leave()


@pytest.fixture
def owner(visitor: NewPerson, bank: Api, site: Site) -> NewPerson:
    """Return a function that opens a verified account and its wallet page, such as `owner("100.00")`."""

    def new_owner(deposit: str | None = None, **options: Any) -> Person:
        person = visitor(**options)
        person.open_account()
        mail.verify_email(site.address, site.mails, person.email)
        if deposit:
            assert bank.deposit(person.wallet_id, deposit).status == 201
        person.go_home()
        return person

    return new_owner
