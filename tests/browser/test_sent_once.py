"""However often a transfer is sent, by a nervous hand or a browser that repeats it, money moves once."""

from playwright.sync_api import expect

from tests.browser.conftest import Payee, Someone
from tests.support.browser.person import Person
from tests.support.client import Api


def transfers_of(bank: Api, person: Person) -> int:
    return len(bank.history(person.wallet_id, "type=TRANSFER_OUT"))


# Whether the browser may send the form, asked twice. It is not clicked: while it waits, Playwright does too.
MAY_SEND = """() => {
    const form = document.querySelector("form.once");
    const ask = () => form.dispatchEvent(new SubmitEvent("submit", { bubbles: true, cancelable: true }));
    return [ask(), ask()];
}"""


def test_a_form_that_is_on_its_way_is_not_sent_again(owner: Someone, boris: Payee) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    expect(anna.heading).to_have_text("Send this?")
    assert anna.page.evaluate(MAY_SEND) == [True, False]


def test_a_double_click_moves_money_once(owner: Someone, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    anna.page.get_by_role("button", name="Send").dblclick()
    expect(anna.heading).to_have_text("Sent")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")


def test_a_double_click_without_scripts_moves_money_once(owner: Someone, boris: Payee, bank: Api) -> None:
    anna = owner("100.00", java_script_enabled=False)
    anna.ask_to_send(boris.email, "40")
    anna.page.get_by_role("button", name="Send").dblclick()
    expect(anna.heading).to_have_text("Sent")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")


def test_the_same_form_sent_again_leads_to_the_same_receipt(owner: Someone, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    with anna.page.expect_request(lambda request: request.method == "POST") as confirmed:
        anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    for _ in range(2):
        form = confirmed.value
        again = anna.context.request.post(form.url, headers=form.all_headers(), data=form.post_data)
        assert (again.status, again.url) == (200, anna.page.url)
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")


def test_a_receipt_read_again_moves_nothing(owner: Someone, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    anna.page.reload()
    expect(anna.heading).to_have_text("Sent")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")


def test_who_goes_back_from_the_receipt_finds_an_empty_form(owner: Someone, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    anna.page.go_back()  # without the browser's question whether to send the form again
    expect(anna.heading).to_have_text("Send money")
    expect(anna.field("to")).to_have_value("")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")
