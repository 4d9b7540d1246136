"""GET /metrics: values across processes, labels, and access."""

import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import LazySettings, settings
from prometheus_client.parser import text_string_to_metric_families

from local.postgres import free_port
from tests.conftest import running_master
from tests.support.client import Answer, Api, InProcess, OverHttp
from tests.support.cluster import cluster
from tests.support.faults.database import children
from tests.support.keys import new_key, new_owner
from wallets.access import rights
from wallets.events import delivery_state
from wallets.ledger import inbox
from wallets.models import LedgerCheck, Subscriber
from wallets.observability import metrics

TOKEN = "only-Prometheus-knows-it"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPERATION = "/api/v1/wallets/{wallet_id}/operation"
TIMEOUT_SECONDS = 30


class Samples(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """The samples of a response of /metrics."""

    def __init__(self, text: str) -> None:
        found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        super().__init__({(one.name, frozenset(one.labels.items())): one.value for one in found})
        assert len(self) == len(found), "a sample is repeated"

    def sum(self, name: str, **labels: str) -> float:
        return sum(
            value
            for (of, having), value in self.items()
            if of == name and labels.items() <= dict(having).items()
        )

    def values_of(self, label: str) -> set[str]:
        return {dict(labels)[label] for _, labels in self if label in dict(labels)}


@dataclass
class ObservedService:
    """A service with the process id of its gunicorn master."""

    address: str
    master: int

    def scrape(self) -> Samples:
        return Samples(self.text())

    def text(self) -> str:
        with closing(OverHttp(self.address).connection) as connection:
            connection.request("GET", "/metrics", headers=BEARER)
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode()

    def until(self, holds: Callable[[Samples], bool]) -> Samples:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not holds(samples := self.scrape()):
            assert time.monotonic() < deadline, samples
            time.sleep(0.1)
        return samples


@contextmanager
def observed(**environment: str) -> Iterator[ObservedService]:
    with running_master(None, METRICS_TOKEN=TOKEN, **environment) as (address, master):
        yield ObservedService(address, master)


@pytest.fixture(scope="module")
def service() -> Iterator[ObservedService]:
    with observed(WORKERS="2") as service:
        yield service


@contextmanager
def clients(service: ObservedService, number: int) -> Iterator[list[Api]]:
    """Open a number of connections, which are balanced among the workers."""
    senders = [OverHttp(service.address) for _ in range(number)]
    for sender in senders:
        sender.connection.connect()
    try:
        yield [Api(sender) for sender in senders]
    finally:
        for sender in senders:
            sender.connection.close()


def scrape(api: Api) -> Samples:
    answer = api.sender.send("GET", "/metrics")
    assert answer.status == 200, answer
    return Samples(answer.content.decode())


# --- Across processes -------------------------------------------------------------------------------
@pytest.mark.slow
def test_counts_of_workers_add_up_and_survive_restarts(service: ObservedService) -> None:
    with clients(service, 10) as apis:
        before = service.scrape()
        wallet = apis[0].open()
        for _ in range(5):
            assert {api.deposit(wallet, "1").status for api in apis} == {201}
    service.until(lambda now: answered(now) - answered(before) == 50)
    assert_grew(before, service.scrape(), by=50)

    first, second = children(service.master)
    os.kill(first, signal.SIGKILL)
    service.until(lambda now: now.sum("walletsvc_workers") == 2 and first not in children(service.master))
    assert second in children(service.master)
    assert_grew(before, service.scrape(), by=50)
    with clients(service, 10) as apis:
        assert {api.deposit(wallet, "1").status for api in apis} == {201}
    service.until(lambda now: answered(now) - answered(before) == 60)
    assert_grew(before, service.scrape(), by=60)


def answered(now: Samples) -> float:
    """Return the number of answered deposits; those of another worker may be a second late."""
    return now.sum("walletsvc_http_requests_total", route=OPERATION, status="201")


def assert_grew(before: Samples, after: Samples, by: int) -> None:
    """Assert that every metric of deposits grew by this number."""

    def grown(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert grown("walletsvc_http_requests_total", route=OPERATION, method="POST", status="201") == by
    assert grown("walletsvc_http_request_seconds_count", route=OPERATION, method="POST") == by
    assert grown("walletsvc_http_request_seconds_bucket", route=OPERATION, le="+Inf") == by
    assert grown("walletsvc_operations_total", type="DEPOSIT", outcome="COMPLETED", reason="") == by
    assert grown("walletsvc_batch_size_sum", queue="committer") == by
    batches = grown("walletsvc_batch_size_count", queue="committer")
    assert 0 < batches <= by
    assert grown("walletsvc_batch_seconds_count", queue="committer") == batches
    assert grown("walletsvc_batch_wait_seconds_count", queue="committer") == batches


@pytest.mark.slow
def test_gauges_of_connections_and_queues_add_up(service: ObservedService) -> None:
    with clients(service, 10) as apis:
        wallet = apis[0].open()
        assert {api.deposit(wallet, "1").status for api in apis} == {201}
        assert {api.get(f"/wallets/{wallet}").status for api in apis} == {200}
    now = service.until(lambda now: now.sum("walletsvc_workers") == 2)
    options: Any = settings.DATABASES["default"]["OPTIONS"]
    assert now.sum("walletsvc_pool_limit") == 2 * options["pool"]["max_size"]
    assert 0 < now.sum("walletsvc_pool_connections") <= now.sum("walletsvc_pool_limit")
    assert now.sum("walletsvc_pool_waiting") == 0
    for queue in ("committer", "reader"):
        assert now.sum("walletsvc_queue_length", queue=queue) == 0
        assert now.sum("walletsvc_queue_limit", queue=queue) == settings.GROUP_COMMIT_QUEUE


def test_queue_length_counts_operations_waiting_for_a_lock(service: ObservedService) -> None:
    from django.db import connection, transaction

    with clients(service, 1) as (api,):
        wallet = api.open()
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM wallet WHERE id = %s FOR UPDATE", [wallet])
            connections = [sent_deposit(service, wallet) for _ in range(4)]
            service.until(lambda now: now.sum("walletsvc_queue_length", queue="committer") > 0)
        for waiting in connections:
            with closing(waiting):
                assert waiting.getresponse().status == 201
    service.until(lambda now: now.sum("walletsvc_queue_length", queue="committer") == 0)


def sent_deposit(service: ObservedService, wallet: str) -> http.client.HTTPConnection:
    connection = OverHttp(service.address).connection
    body = '{"operationType": "DEPOSIT", "amount": "1"}'
    path = f"/api/v1/wallets/{wallet}/operation"
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    return connection


@pytest.mark.slow
def test_repeatedly_killed_workers_lose_no_counts_or_files() -> None:
    possible = {
        f"{kind}_{place}.db"
        for kind in ("counter", "histogram", "gauge_livemax", "gauge_livesum")
        for place in (0, 1)
    }
    with observed(WORKERS="2") as service:
        before = service.scrape()
        folder = folder_of(service)
        with clients(service, 1) as (api,):
            wallet = api.open()
        for turn in range(1, 7):
            with clients(service, 4) as apis:
                assert {api.deposit(wallet, "1").status for api in apis} == {201}
            service.until(lambda now, turn=turn: answered(now) == 4 * turn)  # type: ignore[misc]
            killed = children(service.master)[turn % 2]
            os.kill(killed, signal.SIGKILL)
            service.until(lambda _, killed=killed: killed not in children(service.master))  # type: ignore[misc]
            service.until(lambda now: now.sum("walletsvc_workers") == 2)
            assert_grew(before, service.scrape(), by=4 * turn)
            assert set(os.listdir(folder)) <= possible


@pytest.mark.slow
def test_terminating_worker_counts_beside_its_replacement() -> None:
    with observed(WORKERS="1", OPERATION_DEADLINE="60") as service, clients(service, 1) as (api,):
        locked, free = api.open(), api.open()
        with psycopg.connect(cluster.url("walletsvc_owner")) as other_session:
            other_session.execute("SELECT FROM wallet WHERE id = %s FOR UPDATE", [locked])
            waiting = sent_deposit(service, locked)
            service.until(lambda now: now.sum("walletsvc_queue_length", queue="committer") > 0)
            [old] = children(service.master)
            os.kill(service.master, signal.SIGHUP)
            service.until(lambda _: children(service.master)[:1] == [old] != children(service.master))
            with clients(service, 5) as apis:
                assert {other.deposit(free, "1").status for other in apis} == {201}
            service.until(lambda now: answered(now) == 5)
            assert old in children(service.master)
            other_session.rollback()
        with closing(waiting):
            assert waiting.getresponse().status == 201
        service.until(lambda _: old not in children(service.master))
        assert answered(service.until(lambda now: now.sum("walletsvc_workers") == 1)) == 6


def test_failed_gauge_update_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def length() -> int:
        raise ValueError("a queue without a length")

    monkeypatch.setitem(metrics._queues, "reader", length)
    metrics.try_to_update_gauges()
    assert "could not update the metrics" in caplog.text
    assert "a queue without a length" in caplog.text


@pytest.mark.slow
def test_shutdown_deletes_the_metrics_files() -> None:
    with observed(WORKERS="1") as service:
        folder = folder_of(service)
        assert os.listdir(folder)
    assert not os.path.exists(folder)


def folder_of(service: ObservedService) -> str:
    """Return the folder of the metrics files that the workers have open."""
    # A worker without a request has no files.
    maps = "".join(Path(f"/proc/{worker}/maps").read_text() for worker in children(service.master))
    found = re.findall(r"(/\S*/walletsvc-metrics-\w+)/counter_\d+\.db$", maps, re.MULTILINE)
    return str(found[0])


def test_service_works_with_metrics_off() -> None:
    with observed(METRICS="off", WORKERS="1") as service, clients(service, 1) as (api,):
        wallet = api.open(deposit="5")
        assert api.wallet(wallet)["balance"] == "5.00"
        assert api.sender.send("GET", "/metrics", headers=BEARER).code == "not_found"


# --- Labels -----------------------------------------------------------------------------------------
def test_hostile_requests_add_no_label_values(service: ObservedService) -> None:
    with clients(service, 1) as (api,):
        wallet = api.open(deposit="1", label="hunter2")
        send_hostile_requests(service, api, wallet)
    known = {"/", "unknown", "refused", "unreadable", "/static/", "/admin/login/", OPERATION}
    now = service.until(lambda now: known <= now.values_of("route"))
    assert now.values_of("method") <= metrics.METHODS | {metrics.OTHER_METHOD}
    routes = now.values_of("route")
    assert not [route for route in routes if re.search(r"[0-9a-f]{4}-|unknown-path|hunter2", route)], routes
    text = service.text()
    password = str(settings.DATABASES["default"]["PASSWORD"])
    for secret in (wallet, TOKEN, settings.SECRET_KEY, "hunter2", password):
        assert secret not in text


def send_hostile_requests(service: ObservedService, api: Api, wallet: str) -> None:
    """Send hostile requests, and one of each usual kind."""
    for number in range(20):
        api.sender.send("GET", f"/unknown-path/{uuid4()}/{number}")
        api.sender.send("GET", f"/api/v1/unknown-path-{number}")
        api.sender.send("GET", f"/api/v1/wallets/{uuid4()}/operations?cursor=hunter2")
        api.sender.send("GET", f"/admin/unknown-path/{uuid4()}")
        api.sender.send(f"HUNTER2{number}", f"/api/v1/wallets/{wallet}")
        api.sender.send("GET", "/livez", headers={"X-Request-ID": f"hunter2-{number}"})
    api.sender.send("GET", "/api/v1/wallets", headers={"Host": "evil.example"})
    api.sender.send("GET", "/", headers={"Accept": "text/html"})
    api.sender.send("GET", "/static/pages/pages.css")
    api.sender.send("GET", "/admin/login/")
    api.get("/wallets", Authorization="Bearer wk_abcd1234_hunter2")
    host, _, port = service.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(b"hunter2\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


# --- Operations -------------------------------------------------------------------------------------
@pytest.mark.parametrize("grouped", [True, False])
def test_operations_are_counted_by_outcome(api: Api, settings: LazySettings, grouped: bool) -> None:
    settings.GROUP_COMMIT = grouped
    wallet, other = api.open(deposit="10"), api.open()
    before = scrape(api)
    api.withdraw(wallet, "1", key="one")
    api.withdraw(wallet, "1", key="one")
    api.withdraw(wallet, "99", key="two")
    api.withdraw(wallet, "99", key="two")
    api.withdraw(str(uuid4()), "1")
    api.transfer(wallet, other, "1")
    api.post(
        f"/wallets/{wallet}/operation", {"operationType": "DEPOSIT", "amount": "1"}, Prefer="respond-async"
    )
    deposit = {"walletId": wallet, "operationType": "DEPOSIT", "amount": "1"}
    api.bulk(deposit, deposit, atomic=True)
    api.bulk(deposit, deposit | {"operationType": "WITHDRAW", "amount": "99"}, atomic=True)
    api.bulk(deposit, deposit)
    inbox.drain(500)
    after = scrape(api)
    grown = {
        tuple(dict(labels)[name] for name in ("type", "outcome", "reason")): value
        - before.get((name, labels), 0)
        for (name, labels), value in after.items()
        if name == "walletsvc_operations_total" and value != before.get((name, labels), 0)
    }
    assert grown == {
        ("WITHDRAW", "COMPLETED", ""): 1,
        ("WITHDRAW", "REPLAYED", ""): 2,
        ("WITHDRAW", "REJECTED", "insufficient_funds"): 1,
        ("WITHDRAW", "REFUSED", "wallet_not_found"): 1,
        ("TRANSFER_OUT", "COMPLETED", ""): 1,
        ("DEPOSIT", "PENDING", ""): 1,
        ("DEPOSIT", "COMPLETED", ""): 4,
        ("TOGETHER", "REJECTED", "insufficient_funds"): 1,
    }


# --- The database -----------------------------------------------------------------------------------
def test_inbox_metrics_show_pending_entries(api: Api) -> None:
    while inbox.drain(500):
        pass
    assert scrape(api).sum("walletsvc_inbox_age_seconds") == 0
    wallet = api.open()
    for _ in range(3):
        body = {"operationType": "DEPOSIT", "amount": "1"}
        assert api.post(f"/wallets/{wallet}/operation", body, Prefer="respond-async").status == 202
    now = scrape(api)
    assert (now.sum("walletsvc_database_up"), now.sum("walletsvc_inbox_entries")) == (1, 3)
    assert 0 < now.sum("walletsvc_inbox_age_seconds") < 60
    inbox.drain(500)
    assert scrape(api).sum("walletsvc_inbox_entries") == 0


def test_ledger_check_metrics_show_the_last_check(api: Api) -> None:
    began = datetime.now(UTC)
    LedgerCheck.objects.create(began_at=began, wallets=17, differences=2)
    now = scrape(api)
    assert now.sum("walletsvc_ledger_check_wallets") == 17
    assert now.sum("walletsvc_ledger_check_differences") == 2
    assert abs(now.sum("walletsvc_ledger_check_ended_timestamp_seconds") - began.timestamp()) < 60
    LedgerCheck.objects.create(began_at=began, wallets=18, differences=0)
    assert scrape(api).sum("walletsvc_ledger_check_differences") == 0


def test_relay_metrics_show_each_subscriber(api: Api) -> None:
    name = f"shop-{uuid4()}"
    subscriber = Subscriber.objects.create(
        id=uuid4(), kind=Subscriber.Kind.BROKER, name=name, **delivery_state.from_now_on()
    )
    try:
        wallet = api.open(deposit="1")
        now = scrape(api)
        assert now.sum("walletsvc_relay_lag_seconds", subscriber=name) > 0
        assert now.sum("walletsvc_relay_disabled", subscriber=name) == 0
        assert ("walletsvc_relay_dead_letters", frozenset({("subscriber", name)})) in now
        assert ("walletsvc_relay_parked", frozenset({("subscriber", name)})) in now
        delivery_state.disable(subscriber, "for a test")
        assert scrape(api).sum("walletsvc_relay_disabled", subscriber=name) == 1
        assert wallet not in str(now)
    finally:
        subscriber.delete()


@pytest.mark.slow
def test_metrics_without_the_database_are_served() -> None:
    unreachable = f"postgres://walletsvc:hunter2@127.0.0.1:{free_port()}/walletsvc"
    with observed(DATABASE_URL=unreachable, WORKERS="1") as service:
        text = service.text()
    now = Samples(text)
    assert now.sum("walletsvc_database_up") == 0
    assert now.sum("walletsvc_http_requests_total", route="/livez") > 0
    assert "walletsvc_inbox" not in text
    assert "hunter2" not in text


# --- Access -----------------------------------------------------------------------------------------
def request_metrics(authorization: str | None) -> Answer:
    headers = {"Authorization": authorization} if authorization else {}
    return InProcess().send("GET", "/metrics", headers=headers)


@pytest.mark.parametrize("access", ["open", "key"])
@pytest.mark.parametrize("token", ["", TOKEN])
def test_metrics_require_the_token_or_an_admin_key(settings: LazySettings, access: str, token: str) -> None:
    settings.API_ACCESS, settings.METRICS_TOKEN = access, token
    assert request_metrics(f"Bearer {new_key(rights.ADMIN)}").status == 200
    assert request_metrics(f"Bearer {new_key(rights.READ, rights.WRITE)}").code == "forbidden"
    restricted = new_key(rights.ADMIN, owner=new_owner(), is_restricted=True)
    assert request_metrics(f"Bearer {restricted}").code == "forbidden"
    for wrong in ("Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"):
        assert request_metrics(wrong).code == "unauthorized", wrong
    assert request_metrics(f"Bearer {TOKEN}").status == (200 if token else 401)
    assert request_metrics(None).status == (200 if access == "open" and not token else 401)


def test_metrics_accept_any_host_over_plain_http(api: Api, settings: LazySettings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    answer = InProcess().send("GET", "/metrics", headers={"Host": "10.1.2.3:8000"})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "private, no-cache"


def test_metrics_refuse_other_methods(api: Api) -> None:
    assert api.sender.send("POST", "/metrics", b"{}").code == "method_not_allowed"
