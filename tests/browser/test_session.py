"""A session that has ended."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Someone


def test_a_page_whose_session_has_ended_goes_to_the_login_as_a_whole(owner: Someone) -> None:
    anna = owner("100.00")
    anna.go_home_in_a_hurry()
    anna.context.clear_cookies()
    anna.let_time_pass()
    expect(anna.page).to_have_url(re.compile("/login"))
    expect(anna.heading).to_have_text("Log in")
    expect(anna.page.locator("h1")).to_have_count(1)
    expect(anna.page.locator("#balance")).to_have_count(0)


def test_a_filter_of_a_session_that_has_ended_goes_to_the_login_as_a_whole(owner: Someone) -> None:
    anna = owner("100.00")
    anna.end_session()
    anna.page.get_by_label("Kind").select_option("Deposit")
    expect(anna.heading).to_have_text("Log in")
    expect(anna.page.locator("#history")).to_have_count(0)


def test_a_form_of_a_session_that_has_ended_moves_nothing_and_says_so(owner: Someone) -> None:
    anna = owner("100.00")
    anna.end_session()
    anna.expect_refusal(403)
    anna.ask_to_send("another@example.com", "40")
    expect(anna.heading).to_have_text(
        "This form cannot be used any more. Open the page again and fill it in anew."
    )
