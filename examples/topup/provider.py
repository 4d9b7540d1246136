"""Stand in for a payment provider with an API like Stripe's: python examples/topup/provider.py

It keeps everything in memory. Each event is delivered COPIES times at once, signed as Stripe signs, and again
until each copy is answered with 2xx. The newest event comes first, because Stripe promises no order.
"""

import hashlib
import hmac
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl
from urllib.request import Request, urlopen
from uuid import uuid4

KEY = os.environ["PROVIDER_KEY"]
SECRET = os.environ["PROVIDER_SECRET"].encode()
RECEIVER = os.environ.get("RECEIVER", "http://127.0.0.1:9001/provider-events")
PORT = int(os.environ.get("PORT", "9002"))
COPIES = int(os.environ.get("COPIES", "1"))
RETRY_SECONDS = 0.05  # Stripe's pauses grow from minutes to hours, for three days
TIMEOUT_SECONDS = 10
SUCCESS = range(200, 300)
PAYMENT_PAGE = '<!doctype html><form method="post"><button>Pay {amount} {currency}</button></form>'

Object = dict[str, Any]


class BadRequest(Exception):
    """The request is wrong."""


class Provider:
    """Checkout sessions, refunds and events. The caller holds `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: dict[str, Object] = {}
        self.refunds: list[Object] = []
        self.events: list[Object] = []

    def create_session(self, form: dict[str, str]) -> Object:
        id = new_id("cs_test")
        item = "line_items[0][price_data]"
        self.sessions[id] = {
            "id": id,
            "object": "checkout.session",
            "amount_total": int(form[f"{item}[unit_amount]"]) * int(form["line_items[0][quantity]"]),
            "currency": form[f"{item}[currency]"],
            "metadata": {
                name.removeprefix("metadata[").removesuffix("]"): value
                for name, value in form.items()
                if name.startswith("metadata[")
            },
            "payment_intent": None,
            "payment_status": "unpaid",
            "success_url": form["success_url"],
            "url": f"http://127.0.0.1:{PORT}/pay/{id}",
        }
        return self.sessions[id]

    def pay(self, id: str) -> Object:
        session = self.sessions[id]
        if session["payment_status"] != "paid":
            session |= {"payment_intent": new_id("pi"), "payment_status": "paid"}
            self._announce("checkout.session.completed", session)
        return session

    def refund(self, form: dict[str, str]) -> Object:
        """Refund a payment, or the part `amount` of it."""
        payment = form["payment_intent"]
        session = next(each for each in self.sessions.values() if each["payment_intent"] == payment)
        refunded = sum(each["amount"] for each in self.refunds if each["payment_intent"] == payment)
        amount = int(form.get("amount", session["amount_total"] - refunded))
        if not 0 < amount <= session["amount_total"] - refunded:
            raise BadRequest("the amount is larger than the remaining amount of the payment")
        refund = {
            "id": new_id("re"),
            "object": "refund",
            "amount": amount,
            "currency": session["currency"],
            "payment_intent": payment,
            "status": "succeeded",
        }
        self.refunds.append(refund)
        self._announce("refund.created", refund)
        return refund

    def _announce(self, type: str, subject: Object) -> None:
        self.events.append(
            {
                "id": new_id("evt"),
                "object": "event",
                "type": type,
                "created": int(time.time()),
                "data": {"object": deepcopy(subject)},
                "pending_webhooks": 1,  # zero after the delivery
            }
        )


provider = Provider()


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


# --- Delivery ---------------------------------------------------------------------------------------
def deliver_forever() -> None:
    with ThreadPoolExecutor(COPIES) as pool:
        while True:
            try:
                deliver_pending(pool)
            except OSError as error:  # the receiver is down, so the other events would not arrive either
                print(f"{RECEIVER}: {error}", flush=True)
            time.sleep(RETRY_SECONDS)


def deliver_pending(pool: ThreadPoolExecutor) -> None:
    with provider.lock:
        pending = [event for event in reversed(provider.events) if event["pending_webhooks"]]
    for event in pending:
        answers = list(pool.map(deliver, [event] * COPIES))
        print(f"{event['id']} {event['type']}: {answers}", flush=True)
        if all(status in SUCCESS for status in answers):
            event["pending_webhooks"] = 0


def deliver(event: Object) -> int:
    """Post the event and return the status of the response."""
    body = json.dumps(event).encode()
    request = Request(RECEIVER, body, {"Stripe-Signature": sign(body)})  # noqa: S310
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            return int(response.status)
    except HTTPError as answer:
        with answer:
            return answer.code


def sign(body: bytes) -> str:
    timestamp = int(time.time())
    return f"t={timestamp},v1={hmac.digest(SECRET, f'{timestamp}.'.encode() + body, hashlib.sha256).hex()}"


# --- HTTP -------------------------------------------------------------------------------------------
class Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_SECONDS

    def do_GET(self) -> None:
        with provider.lock:
            session = provider.sessions.get(self.path.removeprefix("/pay/"))
            if self.path == "/v1/events":
                self._answer(200, {"object": "list", "data": provider.events[::-1]})
            elif session:
                page = PAYMENT_PAGE.format(amount=session["amount_total"], currency=session["currency"])
                self._answer(200, page)
            else:
                self._answer(404, {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        try:
            with provider.lock:
                self._act(form)
        except (BadRequest, KeyError, ValueError, StopIteration) as error:
            self._answer(400, {"error": {"message": repr(error)}})

    def _act(self, form: dict[str, str]) -> None:
        if self.path.startswith("/pay/"):
            session = provider.pay(self.path.removeprefix("/pay/"))
            self._answer(303, "", Location=session["success_url"])
        elif self.headers["Authorization"] != f"Bearer {KEY}":
            self._answer(401, {"error": {"message": "Invalid API Key provided"}})
        elif self.path == "/v1/checkout/sessions":
            self._answer(200, provider.create_session(form))
        elif self.path == "/v1/refunds":
            self._answer(200, provider.refund(form))
        else:
            self._answer(404, {"error": {"message": "not found"}})

    def _answer(self, status: int, content: Object | str, **headers: str) -> None:
        is_page = isinstance(content, str)
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if is_page else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    threading.Thread(target=deliver_forever, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
