"""Let customers add money to their wallets with a payment provider: python examples/topup/shop.py

The provider's API has the shape of Stripe's; provider.py stands in for it. The shop needs only Python and
has no database: the ledger alone records payments and refunds. The shop answers an event with 200 after the
ledger has committed it, and the provider delivers every other event again. So a crash at any line neither
loses a payment nor counts it twice.
"""

import hashlib
import hmac
import json
import os
import re
import time
import traceback
from decimal import Decimal
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

WALLETS = os.environ.get("WALLETS_API", "http://127.0.0.1:8000/api/v1")
WALLETS_KEY = os.environ.get("WALLETS_KEY", "")  # an open API needs none
PROVIDER = os.environ.get("PROVIDER", "http://127.0.0.1:9002")
PROVIDER_KEY = os.environ["PROVIDER_KEY"]
PROVIDER_SECRET = os.environ["PROVIDER_SECRET"].encode()  # signs the events; whsec_ is a part of it
PORT = int(os.environ.get("PORT", "9001"))

# Of the provider's amounts. Its list differs from ISO 4217, for example for ISK: read it before you add one.
FRACTION_DIGITS = {"EUR": 2, "USD": 2, "GBP": 2, "JPY": 0, "KWD": 3}
TOLERANCE_SECONDS = 5 * 60  # between the provider's clock and this one; an older event may be a replay attack
TIMEOUT_SECONDS = 10
MAX_BODY_BYTES = 1_000_000


class Refused(Exception):
    """The request is wrong, and so would be a retry."""


class NotCommitted(Exception):
    """The ledger has not committed the event; the provider must deliver it again."""


# --- Checkout ---------------------------------------------------------------------------------------
def start_payment(wallet_id: object, amount: object) -> str:
    """Create a checkout session at the provider, and return the URL of its payment page."""
    if not isinstance(wallet_id, str) or not isinstance(amount, str):
        raise Refused("send walletId and amount as strings")
    status, wallet = ledger("GET", f"/wallets/{quote(wallet_id, safe='')}")
    if status == HTTPStatus.NOT_FOUND:
        raise Refused("the wallet does not exist")
    if status != HTTPStatus.OK:
        raise NotCommitted(wallet)
    session = {
        "mode": "payment",
        "line_items[0][quantity]": 1,
        "line_items[0][price_data][currency]": wallet["currency"].lower(),
        "line_items[0][price_data][unit_amount]": to_minor_units(amount, wallet["currency"]),
        "line_items[0][price_data][product_data][name]": "Money for the wallet",
        "metadata[walletId]": wallet["id"],  # comes back in the event
        "success_url": f"http://127.0.0.1:{PORT}/paid",
    }
    status, answer = call(
        "POST", f"{PROVIDER}/v1/checkout/sessions", PROVIDER_KEY, urlencode(session).encode()
    )
    if status != HTTPStatus.OK:
        raise NotCommitted(answer)
    return str(answer["url"])


def to_minor_units(amount: str, currency: str) -> int:
    """Return "0.29" euros as 29 cents; with a float, `int(0.29 * 100)` is 28."""
    if currency not in FRACTION_DIGITS:
        raise Refused(f"{currency} cannot be paid here")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,4})?", amount):
        raise Refused("write the amount as in 12.50")
    minor = Decimal(amount).scaleb(FRACTION_DIGITS[currency])
    if minor != int(minor) or not minor:
        raise Refused(f"the amount is zero, or {currency} has fewer fraction digits")
    return int(minor)


def from_minor_units(amount: int, currency: str) -> str:
    return str(Decimal(amount).scaleb(-FRACTION_DIGITS[currency.upper()]))


# --- Events -----------------------------------------------------------------------------------------
def is_genuine(header: str, body: bytes) -> bool:
    """Whether the provider has signed the body within the tolerance: `t=<seconds>,v1=<HMAC>,v1=<HMAC>`."""
    fields = [field.partition("=")[::2] for field in header.split(",")]
    timestamp = dict(fields).get("t", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    expected = hmac.digest(PROVIDER_SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hex()
    # There are several while the secret is rotated. compare_digest takes the same time for every wrong one.
    return any(
        name == "v1" and hmac.compare_digest(expected.encode(), value.encode()) for name, value in fields
    )


def apply(event: dict[str, Any]) -> None:
    """Record a payment or a refund in the ledger; return after the commit.

    The idempotency key is the id of the payment or of the refund, not of the event. An event that is
    delivered again has the same id, but Stripe can also send two events, with two ids, for one payment.
    """
    subject = event["data"]["object"]
    match event["type"]:
        case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
            deposit(subject)
        # Not charge.refunded: it has the sum of all refunds of the payment, not the amount of this one.
        case "refund.created" | "refund.updated":
            reverse(subject)


def deposit(session: dict[str, Any]) -> None:
    wallet_id = session["metadata"].get("walletId")
    if wallet_id is None or session["payment_status"] != "paid":
        return  # another product, or a slow payment method: a second event reports its payment
    status, wallet = ledger("GET", f"/wallets/{wallet_id}")
    if status != HTTPStatus.OK or wallet["currency"] != session["currency"].upper():
        raise NotCommitted(f"{session['id']} is not in the currency of the wallet: {wallet}")
    movement = {
        "operationType": "DEPOSIT",
        "amount": from_minor_units(session["amount_total"], session["currency"]),
        "reference": session["payment_intent"],
        "description": "Payment",
        "metadata": {"sessionId": session["id"]},
    }
    commit(f"/wallets/{wallet_id}/operation", movement, key=session["payment_intent"])


def reverse(refund: dict[str, Any]) -> None:
    if refund["status"] != "succeeded":
        return  # refund.updated reports the success
    payment = refund["payment_intent"]
    status, found = ledger("GET", f"/operations?type=DEPOSIT&reference={quote(payment, safe='')}")
    if status != HTTPStatus.OK or not found["items"]:
        raise NotCommitted(f"the payment {payment} of {refund['id']} has not arrived: {found}")
    completed = [each["id"] for each in found["items"] if each["status"] == "COMPLETED"]
    if not completed:
        return  # the ledger refused the payment, so the wallet never had the money
    movement = {
        "amount": from_minor_units(refund["amount"], refund["currency"]),
        "description": "Refund",
    }
    commit(f"/operations/{completed[0]}/reversal", movement, key=refund["id"])


def commit(path: str, movement: dict[str, Any], key: str) -> None:
    status, answer = ledger("POST", path, movement, key)
    if status == HTTPStatus.CREATED:
        print(f"{key}: {answer['operationType']} {answer['amount']} {answer['currency']}", flush=True)
    elif "operationId" in answer:
        # For example, the wallet is closed, or its owner has spent the refunded money. The ledger has
        # recorded the refusal and returns it to every retry, so an operator must decide.
        print(f"{key}: REFUSED, {answer['code']}, operation {answer['operationId']}", flush=True)
    else:
        raise NotCommitted(answer)


# --- HTTP -------------------------------------------------------------------------------------------
def ledger(method: str, path: str, body: object = None, key: str = "") -> tuple[int, Any]:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    return call(method, WALLETS + path, WALLETS_KEY, content, headers)


def call(
    method: str, url: str, key: str, content: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Return the status and the JSON of the response. Raises OSError or ValueError if there is none."""
    headers = (headers or {}) | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urlopen(Request(url, content, headers, method=method), timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            return response.status, json.load(response)
    except HTTPError as problem:
        with problem:
            return problem.code, json.load(problem)


class Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_SECONDS

    def do_GET(self) -> None:
        # The customer may never come back to this page, and anyone can open it: only the event counts.
        self._answer(200 if self.path == "/paid" else 404, "The money arrives when the payment is confirmed.")

    def do_POST(self) -> None:
        try:
            status, text = self._take()
        except Refused as refused:
            status, text = 400, str(refused)
        except Exception:  # whatever it is, the provider must deliver the event again
            traceback.print_exc()
            status, text = 503, "try again later"
        self._answer(status, text)

    def _take(self) -> tuple[int, str]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            raise Refused("send a Content-Length of at most a megabyte")
        body = self.rfile.read(int(length))
        match self.path:
            case "/checkout":
                return 303, start_payment(*read_order(body))
            case "/provider-events":
                if not is_genuine(self.headers.get("Stripe-Signature", ""), body):
                    raise Refused("the signature is wrong or old")
                apply(json.loads(body))
                return 200, "accepted"
        return 404, "not found"

    def _answer(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        if status == HTTPStatus.SEE_OTHER:
            self.send_header("Location", text)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


def read_order(body: bytes) -> tuple[object, object]:
    try:
        order = json.loads(body)
    except ValueError:
        raise Refused("send JSON") from None
    if not isinstance(order, dict):
        raise Refused("send a JSON object")
    return order.get("walletId"), order.get("amount")


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
