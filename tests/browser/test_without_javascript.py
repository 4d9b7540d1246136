"""Every page works without scripts."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import NewPerson, Payee
from tests.support.client import Api


def test_journey_works_without_javascript(visitor: NewPerson, boris: Payee, bank: Api) -> None:
    anna = visitor(java_script_enabled=False)
    anna.sign_up()
    expect(anna.available).to_have_text("0.00 RUB")
    bank.bulk(*[{"operationType": "DEPOSIT", "walletId": anna.wallet_id, "amount": "10"} for _ in range(21)])

    anna.go_home()
    anna.ask_to_send(boris.email, "40.50")
    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    anna.page.get_by_role("link", name="Go to my wallet").click()
    expect(anna.available).to_have_text("169.50 RUB")

    expect(anna.history).to_have_count(20)
    expect(anna.history.first).to_contain_text("Sent −40.50 RUB")
    expect(anna.history.first.locator("time")).to_contain_text("UTC")
    anna.page.get_by_role("link", name="Older").click()
    expect(anna.history).to_have_count(2)
    anna.page.get_by_role("link", name="Newest").click()
    anna.page.get_by_label("Kind").select_option("Sent")
    anna.page.get_by_role("button", name="Show").click()
    expect(anna.page).to_have_url(re.compile("kind=TRANSFER_OUT"))
    expect(anna.history).to_have_count(1)

    anna.page.get_by_role("button", name="Log out").click()
    anna.page.goto(f"/wallets/{anna.wallet_id}")
    expect(anna.heading).to_have_text("Log in")


def test_script_controls_are_hidden_without_scripts(owner: NewPerson) -> None:
    anna = owner(java_script_enabled=False)
    expect(anna.page.locator("[data-copy]")).to_be_hidden()
