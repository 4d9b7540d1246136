"""Mails that the service sends, and a mail server that refuses every recipient."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, Final

from django.core import mail

from tests.support.people import Browser

PUBLIC_URL: Final = "https://wallets.example.com"
ANSWERS = {b"RCPT": b"550 unknown address\r\n", b"QUIT": b"221 bye\r\n"}


class _Refusal(StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n")
        for line in self.rfile:
            self.wfile.write(ANSWERS.get(line[:4].upper(), b"250 well\r\n"))


@contextmanager
def refusing_mail() -> Iterator[str]:
    """Run a mail server that refuses every recipient. Yield its EMAIL_URL."""
    with ThreadingTCPServer(("127.0.0.1", 0), _Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"smtp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def ask_for_link(address: str, email: str) -> None:
    """Request a link to choose a new password."""
    browser = Browser(address)
    with closing(browser.connection):
        browser.send("GET", "/password/forgotten")
        assert browser.post_form("/password/forgotten", email=email).status == 302


def mailed() -> list[Any]:
    """Wait for the mail threads and return the mails of this test."""
    for thread in threading.enumerate():
        if thread.name == "mail":
            thread.join()
    return mail.outbox


def link_in(message: Any) -> str:
    """Return the path of the link, which is on its own line."""
    found = re.findall(rf"^{re.escape(PUBLIC_URL)}(/\S+)$", message.body, re.MULTILINE)
    assert len(found) == 1, message.body
    return str(found[0])


# --- Mails of a running service ---------------------------------------------------------------------
def url_of(folder: Path) -> str:
    """Return the EMAIL_URL of a service that writes its mails into the folder."""
    return f"filemail:///{folder.absolute()}"


def link_to_verify(folder: Path, email: str) -> str:
    """Wait for the verification mail to the address and return the path of its link."""
    found: list[str] = []
    deadline = time.monotonic() + 30
    while not found:
        assert time.monotonic() < deadline, f"no mail to {email}"
        texts = [file.read_text() for file in folder.glob("*.log")]
        to = [text for text in texts if re.search(f"^To: {re.escape(email)}$", text, re.MULTILINE)]
        found = re.findall(r"^https?://[^/]+(/email/verify/\S+)\n", "".join(to), re.MULTILINE)
        time.sleep(0.02)
    return found[-1]


def verify_email(address: str, folder: Path, email: str) -> None:
    """Open the link and confirm the address."""
    browser, link = Browser(address), link_to_verify(folder, email)
    with closing(browser.connection):
        assert browser.send("GET", link).status == 200
        assert browser.post_form(link).status == 302
