"""Receive webhooks: WEBHOOK_SECRET=whsec_… PORT=9000 python examples/webhooks.py

Any client can call the URL, so a request counts only if its signature is valid and its time is recent
(https://www.standardwebhooks.com). Needs only Python. In production, put a server with HTTPS in front.
"""

import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from balances import Balances

TOLERANCE_SECONDS = 5 * 60  # between the sender's clock and this one; an older request may be a replay attack
MAX_BODY_BYTES = 1_000_000
SECRET = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))

balances = Balances()


def is_genuine(id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    digest = hmac.digest(SECRET, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = "v1," + base64.b64encode(digest).decode()
    # There are several while the secret is rotated. compare_digest takes the same time for every wrong one.
    return any(hmac.compare_digest(expected.encode(), each.encode()) for each in signatures.split())


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        self.send_response(self._take())
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _take(self) -> int:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return 413
        body = self.rfile.read(int(length))
        id, timestamp, signatures = (
            self.headers.get(f"Webhook-{name}", "") for name in ("Id", "Timestamp", "Signature")
        )
        if not is_genuine(id, timestamp, signatures, body):
            return 401
        events = json.loads(body)
        for event in events if isinstance(events, list) else [events]:
            balances.apply(event)
        return 204  # only after the commit: without a 204 the service sends the events again

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Handler).serve_forever()
