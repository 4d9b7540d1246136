"""From the sign-up to the receipt, and a later login."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import NewPerson
from tests.support.client import Api


def test_sign_up_opens_an_empty_wallet(visitor: NewPerson, bank: Api) -> None:
    anna = visitor()
    anna.go_home()
    anna.page.get_by_role("main").get_by_role("link", name="Sign up").click()
    anna.sign_up()
    expect(anna.available).to_have_text("0.00 RUB")
    expect(anna.page.get_by_text("No operations.")).to_be_visible()
    expect(anna.page.locator("#wallet-id")).to_have_text(anna.wallet_id)
    assert bank.balance(anna.wallet_id) == "0.00"


def test_open_page_shows_new_money_automatically(owner: NewPerson, bank: Api) -> None:
    anna = owner()
    anna.page.evaluate("window.isSamePage = true")
    bank.deposit(anna.wallet_id, "1175.25", description="Salary")
    expect(anna.available).to_have_text("1,175.25 RUB", timeout=20_000)
    expect(anna.history).to_have_count(1)
    expect(anna.history).to_contain_text(["Deposit Salary +1,175.25 RUB"])
    expect(
        anna.page.get_by_role("img", name="Your balance: lowest 0.00 RUB, highest 1,175.25")
    ).to_be_visible()
    bank.withdraw(anna.wallet_id, "75.25")
    expect(anna.available).to_have_text("1,100.00 RUB", timeout=20_000)
    expect(anna.history).to_have_count(2)
    assert anna.page.evaluate("window.isSamePage")


def test_hidden_page_closes_its_stream_and_refreshes_when_shown(owner: NewPerson, bank: Api) -> None:
    anna = owner()
    with anna.page.expect_event("requestfailed", lambda request: request.url.endswith("/events")):
        anna.hide_page()
    bank.deposit(anna.wallet_id, "5")
    with anna.page.expect_response("**/events"):
        anna.show_page()
    expect(anna.available).to_have_text("5.00 RUB")


def test_transfer_is_reviewed_and_listed_in_both_histories(owner: NewPerson, bank: Api) -> None:
    anna, boris = owner("100.00"), owner(name="Boris")
    anna.ask_to_send(boris.email, "40.50", "For the tickets")
    expect(anna.heading).to_have_text("Send this?")
    for fact in ("40.50 RUB", boris.email, "For the tickets"):
        expect(anna.page.get_by_role("definition").filter(has_text=fact)).to_be_visible()
    assert bank.balance(anna.wallet_id) == "100.00"

    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    for fact in ("40.50 RUB", anna.wallet_id, boris.wallet_id, "For the tickets"):
        expect(anna.page.get_by_role("definition").filter(has_text=fact)).to_be_visible()
    anna.page.get_by_role("link", name="Go to my wallet").click()
    expect(anna.available).to_have_text("59.50 RUB")
    expect(anna.history.first).to_contain_text("Sent For the tickets −40.50 RUB")

    boris.go_home()
    expect(boris.available).to_have_text("40.50 RUB")
    expect(boris.history).to_contain_text(["Received For the tickets +40.50 RUB"])
    boris.page.get_by_role("link", name="Received").click()
    expect(boris.heading).to_have_text("Received")
    assert (bank.balance(anna.wallet_id), bank.balance(boris.wallet_id)) == ("59.50", "40.50")


def test_login_redirects_back_to_the_requested_page(owner: NewPerson) -> None:
    anna = owner("5.00")
    anna.page.get_by_role("button", name="Log out").click()
    expect(anna.heading).to_have_text("Log in")
    anna.page.goto(f"/wallets/{anna.wallet_id}")
    expect(anna.page).to_have_url(re.compile(r"/login\?next="))
    anna.log_in()
    expect(anna.page).to_have_url(re.compile(f"/wallets/{anna.wallet_id}$"))
    expect(anna.available).to_have_text("5.00 RUB")
