"""Pages of a session that has ended."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import NewPerson


def test_refresh_after_the_session_loads_the_login_page(owner: NewPerson) -> None:
    anna = owner("100.00")
    anna.go_home_with_fake_clock()
    anna.context.clear_cookies()
    anna.let_time_pass()
    expect(anna.page).to_have_url(re.compile("/login"))
    expect(anna.heading).to_have_text("Log in")
    expect(anna.page.locator("h1")).to_have_count(1)
    expect(anna.page.locator("#balance")).to_have_count(0)


def test_filter_after_the_session_loads_the_login_page(owner: NewPerson) -> None:
    anna = owner("100.00")
    anna.end_session()
    anna.page.get_by_label("Kind").select_option("Deposit")
    expect(anna.heading).to_have_text("Log in")
    expect(anna.page.locator("#history")).to_have_count(0)


def test_form_after_the_session_shows_an_error(owner: NewPerson) -> None:
    anna = owner("100.00")
    anna.end_session()
    anna.expect_refusal(403)
    anna.ask_to_send("another@example.com", "40")
    expect(anna.heading).to_have_text("This form has expired. Open the page again and fill in the form.")
