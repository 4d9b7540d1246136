"""The operators' start page, in light and dark, on a phone and a desktop."""

from collections.abc import Iterator
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Site
from tests.browser.test_every_page import OVERFLOW_WIDTH
from tests.support.browser.person import DESK, PHONE, Person

FIGURES = "#figures"


@pytest.fixture(scope="module")
def page(site: Site, browser: Browser) -> Iterator[Page]:
    """The start page of an operator, with all kinds of figures."""
    bank = site.bank
    for currency, label in (("EUR", "till 7"), ("JPY", "W" * 200), ("EUR", "")):
        wallet_id = bank.open(deposit="123456789", currency=currency, label=label)
        bank.withdraw(wallet_id, "999999999")
    anna = Person(browser, site.address)
    anna.page.goto("/login")
    anna.log_in(site.operator)
    anna.page.get_by_role("link", name="Go to the admin").click()
    anna.page.locator(FIGURES).wait_for()
    yield anna.page
    anna.leave()


@pytest.mark.parametrize("width", ["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_accessible(page: Page, width: str, scheme: Literal["light", "dark"]) -> None:
    page.set_viewport_size(PHONE if width == "phone" else DESK)
    page.emulate_media(color_scheme=scheme)
    page.reload()  # unfold reads the scheme only when it loads
    expect(page.locator("html.dark")).to_have_count(int(scheme == "dark"))
    found = Axe().run(page, context=FIGURES)
    assert found.response["passes"], "axe has checked nothing"
    assert found.response["violations"] == [], found.generate_report()


def test_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate(OVERFLOW_WIDTH) <= 0


def test_charts_are_drawn(page: Page) -> None:
    """The last column is visible, and the longest bar has the width of its background."""
    columns = page.locator(f"{FIGURES} figure svg rect")
    last = columns.nth(columns.count() - 2).bounding_box()  # the completed part; the rejected part follows
    assert last
    assert last["height"] > 10
    bar, background = (page.locator(f"{FIGURES} li svg rect").nth(number).bounding_box() for number in (1, 0))
    assert bar
    assert bar == background


def test_period_and_wallet_are_links(page: Page) -> None:
    page.set_viewport_size(DESK)
    page.get_by_role("link", name="Last week").click()
    expect(page.get_by_role("heading", name="Operations per 6 hours")).to_be_visible()
    expect(page.get_by_role("link", name="Last week")).to_have_attribute("aria-current", "true")
    page.locator(f"{FIGURES} li a").first.click()
    page.wait_for_url("**/admin/wallets/wallet/*/change/")
    page.go_back()
