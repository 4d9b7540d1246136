"""A refusal is shown at its field or above the form, and moves no money."""

from typing import NamedTuple

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewPerson, Payee
from tests.support.browser.person import Person
from tests.support.client import Api
from tests.support.keys import PASSWORD


def set_status(bank: Api, person: Person, status: str) -> None:
    assert bank.patch(f"/wallets/{person.wallet_id}", {"status": status}).status == 200


class InvalidTransfer(NamedTuple):
    to: str
    amount: str
    field: str
    reason: str


@pytest.mark.parametrize(
    "invalid",
    [
        InvalidTransfer(
            "vacant@example.com", "10", "to", "No verified account with this address has a wallet in RUB."
        ),
        InvalidTransfer("Boris", "10", "to", "Enter an e-mail address or a wallet number."),
        InvalidTransfer("{own_wallet}", "10", "to", "You cannot send money to the same wallet."),
        InvalidTransfer("{own_email}", "10", "to", "You cannot send money to the same wallet."),
        InvalidTransfer("{boris}", "0.001", "amount", "Enter at most 2 digits after the point."),
        InvalidTransfer("{boris}", "10,50", "amount", "Enter an amount in digits, such as 115.60."),
        InvalidTransfer("{boris}", "0", "amount", "Enter an amount of more than zero."),
        InvalidTransfer(
            "{boris}", "100.01", "amount", "The amount exceeds the available balance. No money was moved."
        ),
    ],
    ids=lambda invalid: f"{invalid.to} {invalid.amount}",
)
def test_invalid_transfer_is_an_error_of_its_field(
    owner: NewPerson, boris: Payee, bank: Api, invalid: InvalidTransfer
) -> None:
    anna = owner("100.00")
    people = {"own_wallet": anna.wallet_id, "own_email": anna.email, "boris": boris.email}
    before = bank.balance(boris.wallet_id)
    anna.ask_to_send(invalid.to.format(**people), invalid.amount, "For the tickets")
    anna.sees_error(invalid.field, invalid.reason)
    expect(anna.page.locator("main .errorlist li")).to_have_count(1)
    expect(anna.field("note")).to_have_value("For the tickets")
    assert (bank.balance(anna.wallet_id), bank.balance(boris.wallet_id)) == ("100.00", before)


def test_wallet_frozen_after_the_review_sends_nothing_until_active(
    owner: NewPerson, boris: Payee, bank: Api
) -> None:
    anna = owner("100.00")
    before = bank.balance(boris.wallet_id)
    anna.ask_to_send(boris.email, "40")
    set_status(bank, anna, "FROZEN")
    anna.expect_refusal(409)
    anna.confirm()
    anna.sees_refusal("One of the two wallets is frozen. No money was moved.")
    assert (bank.balance(anna.wallet_id), bank.balance(boris.wallet_id)) == ("100.00", before)

    set_status(
        bank, anna, "ACTIVE"
    )  # the form has a new key, because the refusal is recorded under the old one
    anna.page.locator("button[value=review]").click()
    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    assert bank.balance(anna.wallet_id) == "60.00"


def test_money_spent_after_the_review_is_not_spent_twice(owner: NewPerson, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    before = bank.balance(boris.wallet_id)
    anna.ask_to_send(boris.email, "40")
    bank.withdraw(anna.wallet_id, "60.01")
    anna.expect_refusal(409)
    anna.confirm()
    anna.sees_refusal("The amount exceeds the available balance. No money was moved.")
    expect(anna.field("amount")).to_have_value("40")
    assert (bank.balance(anna.wallet_id), bank.balance(boris.wallet_id)) == ("39.99", before)


def test_history_shows_a_refusal_and_the_balance_is_unchanged(
    owner: NewPerson, boris: Payee, bank: Api
) -> None:
    anna = owner("100.00")
    bank.withdraw(anna.wallet_id, "500")
    anna.page.goto("/?kind=WITHDRAW")
    expect(anna.history).to_contain_text(
        ["Withdrawal The amount exceeds the available balance. No money was moved."]
    )
    expect(anna.available).to_have_text("100.00 RUB")


def test_errors_of_login_and_sign_up_reveal_little(owner: NewPerson, visitor: NewPerson) -> None:
    anna, guest = owner(), visitor()
    guest.page.goto("/login")
    guest.log_in(anna.email, "not " + PASSWORD)
    guest.sees_refusal("The e-mail address or the password is wrong.")
    guest.log_in("unknown@example.com")
    guest.sees_refusal("The e-mail address or the password is wrong.")

    guest.page.goto("/signup")
    guest.field("name").fill("Anna")
    guest.field("email").fill(anna.email.upper())
    guest.field("password").fill(PASSWORD)
    guest.expect_refusal(409)
    guest.page.get_by_role("button", name="Open my wallet").click()
    guest.sees_error("email", "An account with this e-mail address exists. Log in instead.")
    expect(guest.field("name")).to_have_value("Anna")


def test_foreign_wallet_is_not_found(owner: NewPerson, boris: Payee) -> None:
    anna = owner()
    anna.expect_refusal(404)
    anna.page.goto(f"/wallets/{boris.wallet_id}")
    expect(anna.heading).to_have_text("This wallet does not exist.")
