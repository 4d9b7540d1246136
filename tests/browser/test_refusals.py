"""What cannot be is said where it is wrong, and moves nothing."""

from typing import NamedTuple

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Payee, Someone
from tests.support.browser.person import Person
from tests.support.client import Api
from tests.support.keys import PASSWORD


def set_status(bank: Api, person: Person, status: str) -> None:
    assert bank.patch(f"/wallets/{person.wallet_id}", {"status": status}).status == 200


class Wrong(NamedTuple):
    to: str
    amount: str
    field: str
    reason: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("vacant@example.com", "10", "to", "No verified account with this address has a wallet in RUB."),
        Wrong("Boris", "10", "to", "This is neither an e-mail address nor the number of a wallet."),
        Wrong("{own_wallet}", "10", "to", "This is the wallet that the money comes from."),
        Wrong("{own_email}", "10", "to", "This is the wallet that the money comes from."),
        Wrong("{boris}", "0.001", "amount", "At most 2 digits after the point."),
        Wrong("{boris}", "10,50", "amount", "Write an amount in digits, such as 115.60."),
        Wrong("{boris}", "0", "amount", "Write an amount of more than zero."),
        Wrong("{boris}", "100.01", "amount", "You have less available than that. No money was moved."),
    ],
    ids=lambda wrong: f"{wrong.to} {wrong.amount}",
)
def test_what_is_wrong_is_said_at_its_field(owner: Someone, boris: Payee, bank: Api, wrong: Wrong) -> None:
    anna = owner("100.00")
    people = {"own_wallet": anna.wallet_id, "own_email": anna.email, "boris": boris.email}
    before = bank.balance(boris.wallet_id)
    anna.ask_to_send(wrong.to.format(**people), wrong.amount, "For the tickets")
    anna.sees_error(wrong.field, wrong.reason)
    expect(anna.page.locator("main .errorlist li")).to_have_count(1)
    expect(anna.field("note")).to_have_value("For the tickets")
    assert (bank.balance(anna.wallet_id), bank.balance(boris.wallet_id)) == ("100.00", before)


def test_a_wallet_frozen_before_the_last_click_sends_nothing_until_it_is_active_again(
    owner: Someone, boris: Payee, bank: Api
) -> None:
    anna = owner("100.00")
    before = bank.balance(boris.wallet_id)
    anna.ask_to_send(boris.email, "40")
    set_status(bank, anna, "FROZEN")
    anna.expect_refusal(409)
    anna.confirm()
    anna.sees_refusal("One of the two wallets is frozen. No money was moved.")
    assert (bank.balance(anna.wallet_id), bank.balance(boris.wallet_id)) == ("100.00", before)

    set_status(bank, anna, "ACTIVE")  # the form asks anew: the ledger keeps a refusal under its key
    anna.page.locator("button[value=review]").click()
    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    assert bank.balance(anna.wallet_id) == "60.00"


def test_money_spent_elsewhere_before_the_last_click_is_not_spent_twice(
    owner: Someone, boris: Payee, bank: Api
) -> None:
    anna = owner("100.00")
    before = bank.balance(boris.wallet_id)
    anna.ask_to_send(boris.email, "40")
    bank.withdraw(anna.wallet_id, "60.01")
    anna.expect_refusal(409)
    anna.confirm()
    anna.sees_refusal("You have less available than that. No money was moved.")
    expect(anna.field("amount")).to_have_value("40")
    assert (bank.balance(anna.wallet_id), bank.balance(boris.wallet_id)) == ("39.99", before)


def test_a_refusal_is_read_in_the_history_and_leaves_the_balance_alone(
    owner: Someone, boris: Payee, bank: Api
) -> None:
    anna = owner("100.00")
    bank.withdraw(anna.wallet_id, "500")
    anna.page.goto("/?kind=WITHDRAW")
    expect(anna.history).to_contain_text(
        ["Withdrawal You have less available than that. No money was moved."]
    )
    expect(anna.available).to_have_text("100.00 RUB")


def test_a_wrong_password_and_a_taken_address_are_said_without_a_word_too_much(
    owner: Someone, visitor: Someone
) -> None:
    anna, stranger = owner(), visitor()
    stranger.page.goto("/login")
    stranger.log_in(anna.email, "not " + PASSWORD)
    stranger.sees_refusal("The e-mail address or the password is wrong.")
    stranger.log_in("unknown@example.com")
    stranger.sees_refusal("The e-mail address or the password is wrong.")

    stranger.page.goto("/signup")
    stranger.field("name").fill("Anna")
    stranger.field("email").fill(anna.email.upper())
    stranger.field("password").fill(PASSWORD)
    stranger.expect_refusal(409)
    stranger.page.get_by_role("button", name="Open my wallet").click()
    stranger.sees_error("email", "An account with this e-mail address exists. Log in instead?")
    expect(stranger.field("name")).to_have_value("Anna")


def test_foreign_wallet_is_not_found(owner: Someone, boris: Payee) -> None:
    anna = owner()
    anna.expect_refusal(404)
    anna.page.goto(f"/wallets/{boris.wallet_id}")
    expect(anna.heading).to_have_text("There is no such wallet.")
