"""A mail server that takes no mail for anybody, and who asks for one."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer

from tests.people import Browser

ANSWERS = {b"RCPT": b"550 nobody has this address\r\n", b"QUIT": b"221 bye\r\n"}


class _Refusal(StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n")
        for line in self.rfile:
            self.wfile.write(ANSWERS.get(line[:4].upper(), b"250 well\r\n"))


@contextmanager
def refusing_mail() -> Iterator[str]:
    """Its EMAIL_URL."""
    with ThreadingTCPServer(("127.0.0.1", 0), _Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"smtp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def ask_for_link(address: str, email: str) -> None:
    """To choose a new password."""
    browser = Browser(address)
    with closing(browser.connection):
        browser.send("GET", "/password/forgotten")
        assert browser.post_form("/password/forgotten", email=email).status == 302
