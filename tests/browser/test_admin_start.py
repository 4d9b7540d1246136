"""The operators' start page, in light and dark, on a phone and on a desk."""

from collections.abc import Iterator
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import House
from tests.browser.test_every_page import WIDE
from tests.support.browser.person import DESK, PHONE, Person

FIGURES = "#figures"


@pytest.fixture(scope="module")
def page(house: House, browser: Browser) -> Iterator[Page]:
    """An operator's, with something of everything on it."""
    bank = house.bank
    for currency, label in (("EUR", "till 7"), ("JPY", "W" * 200), ("EUR", "")):
        wallet_id = bank.open(deposit="123456789", currency=currency, label=label)
        bank.withdraw(wallet_id, "999999999")
    anna = Person(browser, house.address)
    anna.page.goto("/login")
    anna.log_in(house.operator)
    anna.page.get_by_role("link", name="To the admin").click()
    anna.page.locator(FIGURES).wait_for()
    yield anna.page
    anna.leave()


@pytest.mark.parametrize("width", ["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_figures(page: Page, width: str, scheme: Literal["light", "dark"]) -> None:
    page.set_viewport_size(PHONE if width == "phone" else DESK)
    page.emulate_media(color_scheme=scheme)
    page.reload()  # unfold looks once
    expect(page.locator("html.dark")).to_have_count(int(scheme == "dark"))
    found = Axe().run(page, context=FIGURES)
    assert found.response["passes"], "axe has looked at nothing"
    assert found.response["violations"] == [], found.generate_report()


def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate(WIDE) <= 0


def test_the_charts_are_drawn(page: Page) -> None:
    """The last column is as high as the picture of its number, and the longest bar fills its place."""
    columns = page.locator(f"{FIGURES} figure svg rect")
    last = columns.nth(columns.count() - 2).bounding_box()  # of the completed; then comes the rejected
    assert last
    assert last["height"] > 10
    bar, place = (page.locator(f"{FIGURES} li svg rect").nth(number).bounding_box() for number in (1, 0))
    assert bar
    assert bar == place


def test_a_period_and_a_wallet_are_a_click_away(page: Page) -> None:
    page.set_viewport_size(DESK)
    page.get_by_role("link", name="Last week").click()
    expect(page.get_by_role("heading", name="Operations per 6 hours")).to_be_visible()
    expect(page.get_by_role("link", name="Last week")).to_have_attribute("aria-current", "true")
    page.locator(f"{FIGURES} li a").first.click()
    page.wait_for_url("**/admin/wallets/wallet/*/change/")
    page.go_back()
