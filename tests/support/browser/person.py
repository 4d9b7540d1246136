"""A user at a browser."""

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
    """They have a context of the browser of their own. What it complains of is kept for the end."""

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
        self.complaints: list[str] = []
        self.refusals: list[tuple[int, str]] = []
        self._expected: list[int] = []
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.complaints.append(f"{error.error}"))
        self.context.on("response", self._look)
        self.context.on("requestfailed", self._miss)

    # --- What goes wrong ------------------------------------------------------------------------------
    def expect_refusal(self, status: int) -> None:
        """That the service answers so, once, from here to the end of the test."""
        self._expected.append(status)

    def leave(self) -> None:
        """Fails where a script or the content security policy complained, or something was refused."""
        self.context.close()
        assert not self.complaints, self.complaints
        assert [status for status, _ in self.refusals] == self._expected, self.refusals

    def _hear(self, message: ConsoleMessage) -> None:
        # Refusals are looked at themselves; the console repeats them without their status.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.complaints.append(f"{message.text} ({message.location})")

    def _look(self, response: Response) -> None:
        if response.status >= 400:
            self.refusals.append((response.status, response.url))

    def _miss(self, request: Request) -> None:
        # Who leaves a page gives up what it has just asked for; a download is no page.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.url}: {request.failure}")

    # --- What they do ---------------------------------------------------------------------------------
    def open_account(self) -> None:
        """Past the form, which costs a test time, and into the same session."""
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
        """On the page of the login, where they are."""
        self.page.get_by_label("E-mail address").fill(login or self.email)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("main").get_by_role("button", name="Log in").click()

    def go_home(self) -> None:
        self.page.goto("/")

    def go_home_in_a_hurry(self) -> None:
        """With a clock of the page's own, which `let_time_pass` moves."""
        self.page.clock.install()
        self.page.goto("about:blank")  # what the page before it asked for is not taken for this one's
        with self.page.expect_response("**/events"):  # it has asked for what happens from now on
            self.go_home()

    def end_session(self) -> None:
        """Elsewhere. The page has just looked, and does not notice yet."""
        with self.page.expect_response("**/balance?*"):
            self.go_home()
        self.context.clear_cookies()

    def let_time_pass(self) -> None:
        """Until the page looks again whether something has changed."""
        self.page.clock.fast_forward(60_000)

    def look_at_another_tab(self) -> None:
        """To a browser without a screen all its pages are seen; so the page is told otherwise."""
        self._be_seen(False)

    def look_at_it_again(self) -> None:
        self._be_seen(True)

    def _be_seen(self, is_seen: bool) -> None:
        self.page.evaluate(
            """(isSeen) => {
                Object.defineProperty(document, "hidden", { value: !isSeen, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            is_seen,
        )

    def ask_to_send(self, to: str, amount: str, note: str = "") -> None:
        """Fill the form and look at what it would do."""
        self.field("to").fill(to)
        self.field("amount").fill(amount)
        self.field("note").fill(note)
        self.page.locator("button[value=review]").click()

    def confirm(self) -> None:
        self.page.locator("button[value=send]").click()

    # --- What they see --------------------------------------------------------------------------------
    def field(self, name: str) -> Locator:
        """By its name, which is the same in every language."""
        return self.page.locator(f"main [name={name}]:visible")

    @property
    def heading(self) -> Locator:
        return self.page.get_by_role("heading", level=1)

    @property
    def available(self) -> Locator:
        return self.page.locator(".available")

    @property
    def history(self) -> Locator:
        """Its rows, newest first."""
        return self.page.locator("#history tbody tr")

    def sees_error(self, field: str, text: str) -> None:
        """The error is shown at the field, and announced to screen readers."""
        expect(self.page.locator(f"#id_{field}_error")).to_have_text(text)
        expect(self.field(field)).to_have_accessible_description(re.compile(f"{re.escape(text)}$"))
        expect(self.field(field)).to_have_attribute("aria-invalid", "true")

    def sees_refusal(self, text: str) -> None:
        """On top of the form: no field is to blame."""
        expect(self.page.get_by_role("alert")).to_have_text(text)
