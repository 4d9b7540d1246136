"""The pages work with the keyboard alone, and the focus is visible."""

from playwright.sync_api import expect

from tests.browser.conftest import NewPerson, Payee
from tests.support.browser.person import Person
from tests.support.client import Api

OUTLINE = """() => {
    const style = getComputedStyle(document.activeElement);
    return style.outlineStyle === "solid" ? parseFloat(style.outlineWidth) : 0;
}"""
NAME = "() => document.activeElement.name || document.activeElement.className"


def go_to(person: Person, name: str) -> None:
    """Press Tab until the focus is on the element; the focus must be visible at every stop."""
    for _ in range(30):
        person.page.keyboard.press("Tab")
        assert person.page.evaluate(OUTLINE) >= 2, person.page.evaluate(NAME)
        if person.page.evaluate(NAME) == name:
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_transfer_works_with_the_keyboard_alone(owner: NewPerson, boris: Payee, bank: Api) -> None:
    anna = owner("100.00")
    keyboard = anna.page.keyboard
    go_to(anna, "to")
    keyboard.type(boris.email)
    go_to(anna, "amount")
    keyboard.type("40.50")
    go_to(anna, "note")
    keyboard.type("For the tickets")
    keyboard.press("Enter")
    expect(anna.heading).to_have_text("Send this?")
    expect(anna.page.get_by_role("button", name="Send")).to_be_focused()
    assert anna.page.evaluate(OUTLINE) >= 2
    keyboard.press("Enter")
    expect(anna.heading).to_have_text("Sent")
    assert bank.balance(anna.wallet_id) == "59.50"


def test_first_focus_skips_to_the_content(owner: NewPerson) -> None:
    anna = owner()
    skip = anna.page.get_by_role("link", name="Skip to content")
    expect(skip).not_to_be_in_viewport()
    anna.page.keyboard.press("Tab")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    anna.page.keyboard.press("Enter")
    anna.page.keyboard.press("Tab")
    expect(anna.page.get_by_role("main").locator(":focus")).to_have_count(1)


def test_focus_is_on_the_field_with_an_error(owner: NewPerson, boris: Payee) -> None:
    anna = owner("100.00")
    anna.ask_to_send(boris.email, "100.01")
    expect(anna.field("amount")).to_be_focused()
