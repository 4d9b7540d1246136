"""The shop in examples/topup: every payment and every refund counts once in the ledger."""

import hashlib
import hmac
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from local.postgres import free_port
from tests.conftest import Unchanged
from tests.support.client import UNKNOWN_ID, Api
from tests.support.events import wait_until
from tests.support.keys import new_key

README = Path("examples/README.md").read_text()
COMMANDS = {
    name: command
    for command, name in re.findall(r"^(PROVIDER_KEY=.* examples/topup/(\w+)\.py)$", README, re.MULTILINE)
}
KEY, SECRET = re.findall(r"^PROVIDER_KEY=(\S+) PROVIDER_SECRET=(\S+)", README, re.MULTILINE)[0]
EVENTS_PATH = "/provider-events"
CRASHING = COMMANDS["shop"].replace("examples/", "tests/examples/crashing.py examples/") + f" {EVENTS_PATH}"
Object = dict[str, Any]


@dataclass(frozen=True)
class Topup:
    """A shop, its provider and the service."""

    service: str
    shop_port: int
    provider_port: int

    # --- Processes ---
    @contextmanager
    def shop(self, command: str = COMMANDS["shop"]) -> Iterator["subprocess.Popen[bytes]"]:
        with running(
            command,
            self.shop_port,
            WALLETS_API=f"{self.service}/api/v1",
            WALLETS_KEY=new_key("wallets:read", "operations:deposit", "operations:withdraw"),
            PROVIDER=f"http://127.0.0.1:{self.provider_port}",
        ) as process:
            yield process

    @contextmanager
    def provider(self, copies: int) -> Iterator[None]:
        command = COMMANDS["provider"].replace("COPIES=3", f"COPIES={copies}")
        receiver = f"http://127.0.0.1:{self.shop_port}{EVENTS_PATH}"
        with running(command, self.provider_port, RECEIVER=receiver):
            wait_until(lambda: is_answering(self.provider_port), "the provider does not start")
            yield

    # --- Requests to the shop ---
    def check_out(self, order: object) -> tuple[int, str]:
        """Return the status, and the id of the session or an empty text."""
        status, _, page = send(f"http://127.0.0.1:{self.shop_port}/checkout", json.dumps(order).encode())
        return status, page.rpartition("/")[2]

    def post_event(self, event: Object, signature: str | None = None) -> int:
        body = json.dumps(event).encode()
        url = f"http://127.0.0.1:{self.shop_port}{EVENTS_PATH}"
        return send(url, body, {"Stripe-Signature": sign(body) if signature is None else signature})[0]

    # --- Requests to the provider ---
    def new_session(self, wallet_id: str, minor_units: int = 1000, currency: str = "eur") -> str:
        """Create a checkout session as the shop does, and return its id."""
        form = {
            "line_items[0][quantity]": "1",
            "line_items[0][price_data][currency]": currency,
            "line_items[0][price_data][unit_amount]": str(minor_units),
            "metadata[walletId]": wallet_id,
            "success_url": "http://127.0.0.1/paid",
        }
        return str(self._post("/v1/checkout/sessions", form)["id"])

    def pay(self, session: str) -> str:
        """Pay, and return the id of the payment."""
        status, _, page = send(f"http://127.0.0.1:{self.provider_port}/pay/{session}", b"")
        assert (status, page[-5:]) == (303, "/paid")
        return str(self.events()[0]["data"]["object"]["payment_intent"])

    def refund(self, payment: str, **fields: str) -> str:
        """Refund the payment, and return the id of the refund."""
        return str(self._post("/v1/refunds", {"payment_intent": payment} | fields)["id"])

    def events(self) -> list[Object]:
        """Return the events, newest first."""
        body = send(f"http://127.0.0.1:{self.provider_port}/v1/events")[1]
        events: list[Object] = json.loads(body)["data"]
        return events

    def is_delivered(self) -> bool:
        return not any(event["pending_webhooks"] for event in self.events())

    def wait_for_delivery(self) -> None:
        wait_until(self.is_delivered, "the events are not delivered")

    def _post(self, path: str, form: dict[str, str]) -> Any:
        url = f"http://127.0.0.1:{self.provider_port}{path}"
        status, body, _ = send(url, urlencode(form).encode(), {"Authorization": f"Bearer {KEY}"})
        assert status == 200, body
        return json.loads(body)


@contextmanager
def running(command: str, port: int, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        ["sh", "-c", "exec env " + command.replace(".venv/bin/python", sys.executable)],
        env=os.environ | {"PORT": str(port)} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if command == CRASHING else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with the run that crashing.py has forked


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None: ...


OPENER = urllib.request.build_opener(NoRedirect)


def send(
    url: str, content: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, str]:
    """Return the status, the body and the `Location`."""
    try:
        response = OPENER.open(urllib.request.Request(url, content, headers or {}), timeout=30)  # noqa: S310
    except HTTPError as answer:
        response = answer
    with response:
        return response.status, response.read(), response.headers.get("Location", "")


def is_answering(port: int) -> bool:
    try:
        send(f"http://127.0.0.1:{port}/")
    except OSError:
        return False
    return True


def sign(body: bytes, age_seconds: int = 0, secret: str = SECRET) -> str:
    timestamp = int(time.time()) - age_seconds
    digest = hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"t={timestamp},v1={digest.hex()}"


def paid(wallet_id: str, payment: str | None = None, **fields: Any) -> Object:
    """Return a new event that reports a payment of ten euros."""
    session = {
        "id": "cs_test_1",
        "amount_total": 1000,
        "currency": "eur",
        "metadata": {"walletId": wallet_id},
        "payment_intent": payment or new_id("pi"),
        "payment_status": "paid",
    }
    return an_event("checkout.session.completed", session | fields)


def refunded(payment: str, minor_units: int = 1000, **fields: Any) -> Object:
    refund = {
        "id": new_id("re"),
        "amount": minor_units,
        "currency": "eur",
        "payment_intent": payment,
        "status": "succeeded",
    }
    return an_event("refund.created", refund | fields)


def an_event(type: str, subject: Object) -> Object:
    return {"id": new_id("evt"), "type": type, "data": {"object": subject}}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


def movements(api: Api, wallet_id: str) -> list[tuple[str, str]]:
    """Return the type and the amount of each completed operation, oldest first."""
    completed = [each for each in api.history(wallet_id) if each["status"] == "COMPLETED"]
    return [(each["operationType"], each["amount"]) for each in reversed(completed)]


@pytest.fixture(scope="module")
def module_topup(service: str) -> Iterator[Topup]:
    topup = Topup(service, free_port(), free_port())
    with topup.provider(copies=3), topup.shop():
        wait_until(lambda: is_answering(topup.shop_port), "the shop does not start")
        yield topup


@pytest.fixture
def topup(module_topup: Topup) -> Topup:
    """Run the shop, and a provider that delivers each event three times at once."""
    assert is_answering(module_topup.shop_port), "the shop has ended"
    return module_topup


@pytest.fixture
def own_topup(service: str) -> Iterator[Topup]:
    """Run a provider that delivers each event once; the test runs the shop."""
    topup = Topup(service, free_port(), free_port())
    with topup.provider(copies=1):
        yield topup


@pytest.fixture
def euro_wallet(live_api: Api) -> str:
    return live_api.open(currency="EUR")


# --- Payments ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("currency", "amount", "minor_units"),
    [("EUR", "12.50", 1250), ("USD", "0.29", 29), ("JPY", "300", 300), ("KWD", "0.250", 250)],
)
def test_event_that_is_delivered_three_times_counts_once(
    live_api: Api, topup: Topup, currency: str, amount: str, minor_units: int
) -> None:
    wallet_id = live_api.open(currency=currency)
    status, session = topup.check_out({"walletId": wallet_id, "amount": amount})
    assert (status, live_api.history(wallet_id)) == (303, [])
    payment = topup.pay(session)
    assert topup.events()[0]["data"]["object"]["amount_total"] == minor_units
    topup.wait_for_delivery()
    assert movements(live_api, wallet_id) == [("DEPOSIT", amount)]
    [deposit] = live_api.get(f"/operations?reference={payment}").json["items"]
    assert (deposit["walletId"], deposit["metadata"]) == (wallet_id, {"sessionId": session})


def test_two_events_for_one_payment_count_once(live_api: Api, topup: Topup, euro_wallet: str) -> None:
    first = paid(euro_wallet)
    second = first | {"id": new_id("evt"), "type": "checkout.session.async_payment_succeeded"}
    assert [topup.post_event(event) for event in (first, second)] == [200, 200]
    assert movements(live_api, euro_wallet) == [("DEPOSIT", "10.00")]


def test_events_without_a_payment_change_nothing(
    live_api: Api, topup: Topup, euro_wallet: str, unchanged: Unchanged
) -> None:
    with unchanged(euro_wallet):
        assert topup.post_event(paid(euro_wallet, payment_status="unpaid")) == 200
        assert topup.post_event(paid(euro_wallet, metadata={})) == 200
        assert topup.post_event(paid(euro_wallet) | {"type": "checkout.session.expired"}) == 200


def test_payment_in_another_currency_is_not_accepted(
    live_api: Api, topup: Topup, euro_wallet: str, unchanged: Unchanged
) -> None:
    with unchanged(euro_wallet):
        assert topup.post_event(paid(euro_wallet, currency="usd")) == 503


def test_payment_that_the_ledger_refuses_is_recorded(live_api: Api, topup: Topup, euro_wallet: str) -> None:
    """The provider would deliver it in vain for days. Its refund has nothing to reverse."""
    live_api.patch(f"/wallets/{euro_wallet}", {"status": "CLOSED"})
    payment = new_id("pi")
    assert topup.post_event(paid(euro_wallet, payment)) == 200
    assert topup.post_event(refunded(payment)) == 200
    [refusal] = live_api.get(f"/operations?reference={payment}").json["items"]
    assert (refusal["status"], refusal["reason"]) == ("REJECTED", "wallet_closed")


@pytest.mark.parametrize(
    "amount", [12.5, 12, None, "", "0", "0.00", "-1", "1.005", "1e3", "NaN", "1,50", "9" * 20]
)
def test_checkout_with_a_malformed_amount_is_refused(topup: Topup, euro_wallet: str, amount: object) -> None:
    assert topup.check_out({"walletId": euro_wallet, "amount": amount}) == (400, "")


def test_checkout_for_an_unknown_wallet_is_refused(live_api: Api, topup: Topup) -> None:
    without_provider = live_api.open(currency="RUB")
    for wallet_id in (UNKNOWN_ID, "../operations", "", None, without_provider):
        assert topup.check_out({"walletId": wallet_id, "amount": "1"}) == (400, "")
    assert topup.check_out(["walletId"]) == (400, "")


# --- Signatures -------------------------------------------------------------------------------------
def test_event_with_a_wrong_or_old_signature_changes_nothing(
    topup: Topup, euro_wallet: str, unchanged: Unchanged
) -> None:
    event = paid(euro_wallet)
    body = json.dumps(event).encode()
    genuine = sign(body)
    wrong = [
        "",
        "x",
        sign(body, age_seconds=301),
        sign(body, age_seconds=-330),
        sign(body, secret=SECRET + "x"),
        sign(json.dumps(paid(UNKNOWN_ID)).encode()),
        genuine.replace("v1=", "v0="),
        genuine.replace("t=", "t=1"),
        genuine.split(",")[1],
        f"{genuine.split(',')[0]},v1=é",
    ]
    with unchanged(euro_wallet):
        assert [topup.post_event(event, signature) for signature in wrong] == [400] * len(wrong)
    time, signature = genuine.split(",")
    during_a_rotation = f"{time},v1={'0' * 64},{signature}"
    assert topup.post_event(event, during_a_rotation) == 200


# --- Refunds ----------------------------------------------------------------------------------------
def test_partial_and_full_refund_reverse_the_payment(live_api: Api, topup: Topup, euro_wallet: str) -> None:
    payment = topup.pay(topup.new_session(euro_wallet, 1001))
    topup.wait_for_delivery()
    first = topup.refund(payment, amount="334")
    topup.wait_for_delivery()
    assert live_api.balance(euro_wallet) == "6.67"
    second = topup.refund(payment)
    topup.wait_for_delivery()
    assert movements(live_api, euro_wallet) == [
        ("DEPOSIT", "10.01"), ("REVERSAL_OUT", "3.34"), ("REVERSAL_OUT", "6.67")
    ]  # fmt: skip
    found = live_api.get(f"/operations?reference={payment}").json["items"]
    assert [each["idempotencyKey"] for each in found] == [second, first, payment]


def test_refund_before_its_payment_is_retried(live_api: Api, own_topup: Topup, euro_wallet: str) -> None:
    """The provider delivers the newest event first, and again what the shop answers with 503."""
    own_topup.refund(own_topup.pay(own_topup.new_session(euro_wallet)), amount="400")
    with own_topup.shop():
        own_topup.wait_for_delivery()
    assert movements(live_api, euro_wallet) == [("DEPOSIT", "10.00"), ("REVERSAL_OUT", "4.00")]


def test_refund_without_its_payment_is_not_accepted(topup: Topup, live_api: Api, euro_wallet: str) -> None:
    payment = new_id("pi")
    refund = refunded(payment, 400)
    assert topup.post_event(refund) == 503
    assert topup.post_event(paid(euro_wallet, payment)) == 200
    assert topup.post_event(refund) == 200
    assert live_api.balance(euro_wallet) == "6.00"


def test_pending_refund_counts_when_it_succeeds(topup: Topup, live_api: Api, euro_wallet: str) -> None:
    payment = new_id("pi")
    topup.post_event(paid(euro_wallet, payment))
    pending = refunded(payment, status="pending")
    assert (topup.post_event(pending), live_api.balance(euro_wallet)) == (200, "10.00")
    succeeded = an_event("refund.updated", pending["data"]["object"] | {"status": "succeeded"})
    assert (topup.post_event(succeeded), live_api.balance(euro_wallet)) == (200, "0.00")


def test_refund_of_spent_money_is_recorded_as_refused(live_api: Api, topup: Topup, euro_wallet: str) -> None:
    payment = new_id("pi")
    topup.post_event(paid(euro_wallet, payment))
    live_api.withdraw(euro_wallet, "0.01")
    refund = refunded(payment)
    assert [topup.post_event(refund), topup.post_event(refund)] == [200, 200]
    [refusal] = live_api.get(f"/operations?reference={payment}&status=REJECTED").json["items"]
    assert (refusal["idempotencyKey"], refusal["reason"]) == (
        refund["data"]["object"]["id"], "insufficient_funds"
    )  # fmt: skip


# --- Faults -----------------------------------------------------------------------------------------
def test_event_without_the_ledger_is_not_accepted(euro_wallet: str, unchanged: Unchanged) -> None:
    topup = Topup(f"http://127.0.0.1:{free_port()}", free_port(), free_port())
    with topup.shop(), unchanged(euro_wallet):
        wait_until(lambda: is_answering(topup.shop_port), "the shop does not start")
        assert topup.post_event(paid(euro_wallet)) == 503
        assert topup.check_out({"walletId": euro_wallet, "amount": "1"}) == (503, "")


def crash_at_each_line(topup: Topup, cause: Callable[[], object], count: Callable[[], int]) -> list[int]:
    """Kill the shop at each line that it executes for an event; let the provider deliver the event again.

    `cause` causes an event, and `count` counts those that have reached the ledger. Each run of the shop first
    gets the event at which the former run was killed, then a new one. Return the growth of the count at each
    crash.
    """
    growth: list[int] = []
    cause()
    with topup.shop(CRASHING) as process:
        assert process.stdin
        while True:
            topup.wait_for_delivery()
            before = count()
            cause()
            wait_until(lambda: was_killed(process) or topup.is_delivered(), "no crash and no delivery")
            if topup.is_delivered():
                return growth  # the event has no more lines
            growth.append(count() - before)
            process.stdin.write(b"\n")
            process.stdin.flush()


def was_killed(process: "subprocess.Popen[bytes]") -> bool:
    assert process.stdout
    return bool(select.select([process.stdout], [], [], 0)[0] and process.stdout.readline())


def assert_on_both_sides_of_the_commit(growth: list[int]) -> None:
    assert set(growth) == {0, 1}
    assert growth == sorted(growth)


@pytest.mark.slow
def test_crash_at_any_line_counts_the_payment_once(live_api: Api, own_topup: Topup, euro_wallet: str) -> None:
    payments: list[str] = []
    growth = crash_at_each_line(
        own_topup,
        cause=lambda: payments.append(own_topup.pay(own_topup.new_session(euro_wallet))),
        count=lambda: len(movements(live_api, euro_wallet)),
    )
    assert_on_both_sides_of_the_commit(growth)
    assert movements(live_api, euro_wallet) == [("DEPOSIT", "10.00")] * len(payments)
    assert [each["reference"] for each in live_api.history(euro_wallet)] == payments[::-1]


@pytest.mark.slow
def test_crash_at_any_line_counts_the_refund_once(live_api: Api, own_topup: Topup, euro_wallet: str) -> None:
    payment = own_topup.pay(own_topup.new_session(euro_wallet))
    with own_topup.shop():
        own_topup.wait_for_delivery()
    refunds: list[str] = []
    growth = crash_at_each_line(
        own_topup,
        cause=lambda: refunds.append(own_topup.refund(payment, amount="1")),
        count=lambda: len(movements(live_api, euro_wallet)) - 1,
    )
    assert_on_both_sides_of_the_commit(growth)
    assert movements(live_api, euro_wallet) == [
        ("DEPOSIT", "10.00"), *[("REVERSAL_OUT", "0.01")] * len(refunds)
    ]  # fmt: skip
    assert [each["idempotencyKey"] for each in live_api.history(euro_wallet)] == [*refunds[::-1], payment]
