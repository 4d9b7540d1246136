"""A transfer form that is sent several times moves money once."""

from playwright.sync_api import expect

from tests.browser.conftest import NewPerson, Payee
from tests.support.browser.person import Person
from tests.support.client import Api


def transfers_of(bank: Api, person: Person) -> int:
    return len(bank.history(person.wallet_id, "type=TRANSFER_OUT"))


# Dispatches two submit events and returns for each whether the browser may send the form. After a click,
# Playwright would wait for the next page.
DISPATCH_TWO_SUBMITS = """() => {
    const form = document.querySelector("form.once");
    const submit = () => form.dispatchEvent(new SubmitEvent("submit", { bubbles: true, cancelable: true }));
    return [submit(), submit()];
}"""


def test_submitted_form_is_not_sent_again(owner: NewPerson, boris: Payee) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    expect(anna.heading).to_have_text("Send this?")
    assert anna.page.evaluate(DISPATCH_TWO_SUBMITS) == [True, False]


def test_double_click_moves_money_once(owner: NewPerson, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    anna.page.get_by_role("button", name="Send").dblclick()
    expect(anna.heading).to_have_text("Sent")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")


def test_double_click_without_scripts_moves_money_once(owner: NewPerson, boris: Payee, bank: Api) -> None:
    anna = owner("100.00", java_script_enabled=False)
    anna.ask_to_send(boris.email, "40")
    anna.page.get_by_role("button", name="Send").dblclick()
    expect(anna.heading).to_have_text("Sent")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")


def test_form_sent_again_leads_to_the_same_receipt(owner: NewPerson, boris: Payee, bank: Api) -> None:
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


def test_reloaded_receipt_moves_nothing(owner: NewPerson, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    anna.page.reload()
    expect(anna.heading).to_have_text("Sent")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")


def test_back_from_the_receipt_shows_an_empty_form(owner: NewPerson, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "40")
    anna.confirm()
    expect(anna.heading).to_have_text("Sent")
    anna.page.go_back()  # the browser does not ask whether to send the form again
    expect(anna.heading).to_have_text("Send money")
    expect(anna.field("to")).to_have_value("")
    assert (transfers_of(bank, anna), bank.balance(anna.wallet_id)) == (1, "60.00")
