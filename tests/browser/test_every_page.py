"""Every page in light and dark, on a phone and a desktop: accessible, and without overflow."""

from collections.abc import Callable, Iterator
from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Site
from tests.support import mail
from tests.support.browser.person import DESK, PHONE, Person

Visit = Callable[[Person, Site], None]

OVERFLOW_WIDTH: Final = "() => document.documentElement.scrollWidth - innerWidth"
# Controls that are lower than 44 pixels, the size of a finger.
LOW_CONTROLS: Final = """() => [...document.querySelectorAll(
    "button, .button, nav a, .after-list a, input:not([type=hidden]), select"
)].filter((it) => it.checkVisibility() && it.getBoundingClientRect().height < 44).map((it) => it.outerHTML)"""


# --- Visits -----------------------------------------------------------------------------------------
def welcome(anna: Person, site: Site) -> None:
    anna.go_home()


def sign_up(anna: Person, site: Site) -> None:
    anna.page.goto("/signup")


def sign_up_with_errors(anna: Person, site: Site) -> None:
    anna.page.goto("/signup")
    anna.field("name").fill("Anna\N{ZERO WIDTH SPACE}")
    anna.field("email").fill("anna@example.com")
    anna.field("password").fill("12345678")
    anna.page.get_by_role("button", name="Open my wallet").click()
    anna.page.locator(".errorlist").first.wait_for()


def log_in(anna: Person, site: Site) -> None:
    anna.page.goto("/login")


def log_in_with_an_error(anna: Person, site: Site) -> None:
    anna.page.goto("/login")
    anna.log_in("unknown@example.com")
    anna.page.get_by_role("alert").wait_for()


def forgotten(anna: Person, site: Site) -> None:
    anna.page.goto("/password/forgotten")


def link_was_sent(anna: Person, site: Site) -> None:
    anna.page.goto("/password/forgotten")
    anna.field("email").fill("unknown@example.com")
    anna.page.get_by_role("button", name="Send me a link").click()
    anna.page.get_by_role("status").get_by_role("paragraph").wait_for()


def expired_link(anna: Person, site: Site) -> None:
    anna.page.goto("/password/new/MQ/abc-def")


def unverified_wallet(anna: Person, site: Site) -> None:
    anna.open_account()
    anna.go_home()
    anna.page.get_by_role("button", name="Send it again").click()
    anna.page.get_by_role("status").get_by_role("paragraph").wait_for()


def unverified_wallet_in_russian(anna: Person, site: Site) -> None:
    unverified_wallet(anna, site)
    anna.page.get_by_role("button", name="Русский").click()
    anna.page.get_by_role("button", name="Отправить ещё раз").wait_for()


def verify_email(anna: Person, site: Site) -> None:
    anna.open_account()
    anna.page.goto(mail.link_to_verify(site.mails, anna.email))


def verify_email_in_russian(anna: Person, site: Site) -> None:
    verify_email(anna, site)
    anna.page.get_by_role("button", name="Русский").click()
    anna.page.get_by_role("button", name="Это мой адрес и мой кошелёк").wait_for()


def email_is_verified(anna: Person, site: Site) -> None:
    verify_email(anna, site)
    anna.page.get_by_role("button", name="This is my address and my wallet").click()
    anna.page.get_by_role("status").get_by_role("paragraph").wait_for()
    expect(anna.page.get_by_text("is not verified yet")).to_have_count(0)


def expired_verification(anna: Person, site: Site) -> None:
    anna.page.goto("/email/verify/1/abc-def")


def empty_wallet(anna: Person, site: Site) -> None:
    anna.open_account()
    mail.verify_email(site.address, site.mails, anna.email)
    anna.go_home()


def full_wallet(anna: Person, site: Site) -> None:
    fill(site, anna)
    anna.go_home()
    expect(anna.history).to_have_count(20)


def refused_operations(anna: Person, site: Site) -> None:
    full_wallet(anna, site)
    anna.page.goto("/?kind=WITHDRAW")
    expect(anna.page.locator("tr.refused")).to_have_count(1)


def frozen_wallet(anna: Person, site: Site) -> None:
    fill(site, anna)
    site.bank.patch(f"/wallets/{anna.wallet_id}", {"status": "FROZEN"})
    anna.go_home()


def russian_wallet(anna: Person, site: Site) -> None:
    full_wallet(anna, site)
    anna.page.get_by_role("button", name="Русский").click()
    anna.page.get_by_role("heading", name="История").wait_for()


def transfer_with_errors(anna: Person, site: Site) -> None:
    empty_wallet(anna, site)
    anna.ask_to_send("unknown", "0.001")
    anna.page.locator(".errorlist").first.wait_for()


def review(anna: Person, site: Site) -> None:
    full_wallet(anna, site)
    anna.ask_to_send(site.boris.email, "10", "For the tickets " * 10)
    anna.page.locator("button[value=send]").wait_for()


def refused(anna: Person, site: Site) -> None:
    review(anna, site)
    site.bank.patch(f"/wallets/{anna.wallet_id}", {"status": "FROZEN"})
    anna.expect_refusal(409)
    anna.confirm()
    anna.page.get_by_role("alert").wait_for()


def receipt(anna: Person, site: Site) -> None:
    review(anna, site)
    anna.confirm()
    anna.page.get_by_role("link", name="Go to my wallet").wait_for()


def page_not_found(anna: Person, site: Site) -> None:
    anna.expect_refusal(404)
    anna.page.goto("/nothing/here")


def password(anna: Person, site: Site) -> None:
    empty_wallet(anna, site)
    anna.page.goto("/password")


def without_wallet(anna: Person, site: Site) -> None:
    anna.page.goto("/login")
    anna.log_in(site.without_wallet)
    anna.page.get_by_role("heading", name="You have no wallet").wait_for()


def operator(anna: Person, site: Site) -> None:
    anna.page.goto("/login")
    anna.log_in(site.operator)
    anna.page.get_by_role("link", name="Go to the admin").wait_for()


def fill(site: Site, person: Person) -> None:
    """Open an account with operations of all kinds."""
    person.open_account()
    mail.verify_email(site.address, site.mails, person.email)
    bank, wallet_id = site.bank, person.wallet_id
    bank.bulk(
        *[
            {
                "operationType": "DEPOSIT",
                "walletId": wallet_id,
                "amount": "98765432.10",
                "description": "x" * 90,
            }
            for _ in range(22)
        ]
    )
    bank.withdraw(wallet_id, "11.50", description="Groceries")
    bank.withdraw(wallet_id, "999999999999")
    bank.hold(wallet_id, "25")


VISITS: Final[tuple[Visit, ...]] = (
    *(welcome, sign_up, sign_up_with_errors, log_in, log_in_with_an_error),
    *(forgotten, link_was_sent, expired_link),
    *(unverified_wallet, unverified_wallet_in_russian, verify_email, verify_email_in_russian),
    *(email_is_verified, expired_verification),
    *(empty_wallet, full_wallet, refused_operations, frozen_wallet, russian_wallet),
    *(transfer_with_errors, review, refused, receipt),
    *(page_not_found, password, without_wallet, operator),
)


@pytest.fixture(scope="module", params=VISITS, ids=lambda visit: visit.__name__)
def page(request: pytest.FixtureRequest, site: Site, browser: Browser) -> Iterator[Page]:
    """Open each page once, for all tests."""
    anna = Person(browser, site.address, "Anna-Maria Oppenheimer")
    request.param(anna, site)
    yield anna.page
    anna.leave()


# --- Checks -----------------------------------------------------------------------------------------
# Each width and each scheme once: axe takes most of the time of this file.
@pytest.mark.parametrize(("width", "scheme"), [("phone", "light"), ("desk", "dark")])
def test_page_is_accessible(page: Page, width: str, scheme: Literal["light", "dark"]) -> None:
    page.set_viewport_size(PHONE if width == "phone" else DESK)
    page.emulate_media(color_scheme=scheme)
    found = Axe().run(page)
    assert found.response["passes"], "axe has checked nothing"
    assert found.response["violations"] == [], found.generate_report()


def test_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate(OVERFLOW_WIDTH) <= 0


def test_controls_are_large_enough_for_a_finger(page: Page) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate(LOW_CONTROLS) == []
