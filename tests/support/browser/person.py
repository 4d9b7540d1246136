"""A user with a browser."""

import re
from typing import Any
from uuid import uuid4

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Response,
    ViewportSize,
    expect,
)

from tests.support.keys import PASSWORD

PHONE = ViewportSize(width=390, height=844)
DESK = ViewportSize(width=1280, height=900)


class Person:
    """A user with their own browser context. Errors of the browser are collected until `leave`."""

    def __init__(
        self, browser: Browser, address: str, name: str = "Anna", email: str | None = None, **options: Any
    ) -> None:
        self.name = name
        self.email = email or f"{name.split(maxsplit=1)[0].lower()}-{uuid4()}@example.com"
        self.wallet_id = ""
        self.context = browser.new_context(
            base_url=address, **{"locale": "en-US", "viewport": DESK, **options}
        )
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.browser_errors: list[str] = []
        self.refusals: list[tuple[int, str]] = []
        self._expected: list[int] = []
        self.context.on("console", self._record_console)
        self.context.on("weberror", lambda error: self.browser_errors.append(f"{error.error}"))
        self.context.on("response", self._record_response)
        self.context.on("requestfailed", self._record_failure)

    # --- Errors ---------------------------------------------------------------------------------------
    def expect_refusal(self, status: int) -> None:
        """Expect one more response with this status in this test."""
        self._expected.append(status)

    def leave(self) -> None:
        """Close the context; fail after an error of the browser or an unexpected refusal."""
        self.context.close()
        assert not self.browser_errors, self.browser_errors
        assert [status for status, _ in self.refusals] == self._expected, self.refusals

    def _record_console(self, message: ConsoleMessage) -> None:
        # The console repeats refused requests without their status; _record_response has the status.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.browser_errors.append(f"{message.text} ({message.location})")

    def _record_response(self, response: Response) -> None:
        if response.status >= 400:
            self.refusals.append((response.status, response.url))

    def _record_failure(self, request: Request) -> None:
        # The browser aborts requests of a page that the user leaves, and reports downloads as aborted.
        if request.failure != "net::ERR_ABORTED":
            self.browser_errors.append(f"{request.url}: {request.failure}")

    # --- Actions --------------------------------------------------------------------------------------
    def open_account(self) -> None:
        """Sign up with the API, which is faster than the form, in the same session."""
        body = {"name": self.name, "email": self.email, "password": PASSWORD}
        answer = self.context.request.post("/api/v1/signup", data=body)
        assert answer.status == 201, answer.text()
        self.wallet_id = answer.json()["walletId"]

    def sign_up(self) -> None:
        self.page.goto("/signup")
        self.page.get_by_label("Your name").fill(self.name)
        self.page.get_by_label("E-mail address").fill(self.email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Open my wallet").click()
        self.wallet_id = self.page.locator("#wallet-id").inner_text()

    def log_in(self, login: str | None = None, password: str = PASSWORD) -> None:
        """Fill and send the form of the login page, which must be open."""
        self.page.get_by_label("E-mail address").fill(login or self.email)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("main").get_by_role("button", name="Log in").click()

    def go_home(self) -> None:
        self.page.goto("/")

    def go_home_with_fake_clock(self) -> None:
        """Open the start page with a fake clock, which `let_time_pass` moves."""
        self.page.clock.install()
        self.page.goto("about:blank")  # so that no response to the page before is taken for one to this page
        with self.page.expect_response("**/events"):  # the stream of events is open
            self.go_home()

    def end_session(self) -> None:
        """Delete the session cookie, and keep the page from noticing it: its refreshes find no change."""
        self.go_home()
        self.page.route("**/balance?*", lambda route: route.fulfill(status=204))
        self.context.clear_cookies()

    def let_time_pass(self) -> None:
        """Move the clock until the page refreshes its balance."""
        self.page.clock.fast_forward(60_000)

    def hide_page(self) -> None:
        """Make the page hidden. A headless browser shows all pages, so a script sets the state."""
        self._set_visible(False)

    def show_page(self) -> None:
        self._set_visible(True)

    def _set_visible(self, is_visible: bool) -> None:
        self.page.evaluate(
            """(isVisible) => {
                Object.defineProperty(document, "hidden", { value: !isVisible, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            is_visible,
        )

    def ask_to_send(self, to: str, amount: str, note: str = "") -> None:
        """Fill the transfer form and open its review."""
        self.field("to").fill(to)
        self.field("amount").fill(amount)
        self.field("note").fill(note)
        self.page.locator("button[value=review]").click()

    def confirm(self) -> None:
        self.page.locator("button[value=send]").click()

    # --- Page content ---------------------------------------------------------------------------------
    def field(self, name: str) -> Locator:
        """Find an input by its name, which is the same in every language."""
        return self.page.locator(f"main [name={name}]:visible")

    @property
    def heading(self) -> Locator:
        return self.page.get_by_role("heading", level=1)

    @property
    def available(self) -> Locator:
        return self.page.locator(".available")

    @property
    def history(self) -> Locator:
        """The rows of the history, newest first."""
        return self.page.locator("#history tbody tr")

    def sees_error(self, field: str, text: str) -> None:
        """The error is shown at the field, and announced to screen readers."""
        expect(self.page.locator(f"#id_{field}_error")).to_have_text(text)
        expect(self.field(field)).to_have_accessible_description(re.compile(f"{re.escape(text)}$"))
        expect(self.field(field)).to_have_attribute("aria-invalid", "true")

    def sees_refusal(self, text: str) -> None:
        """The error is shown above the form, because it belongs to no field."""
        expect(self.page.get_by_role("alert")).to_have_text(text)
