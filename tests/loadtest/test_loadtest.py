"""The compared services, the load generators and the verdicts work. No test asserts a duration."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import psycopg
import pytest

from loadtest import attack, cache, stale_reads, wrk
from loadtest.answered import AnsweredOperations
from loadtest.crowd import Crowd
from loadtest.figures import Figures
from loadtest.profiles import Profile, Stage
from loadtest.servers import BARE, NAIVE, REDIS, REDIS_RAW, UNCHAINED, ServerKind, running
from loadtest.verdict import Answers, differences, verdict
from loadtest.wrk import Post, Result
from local import ROOT, LocalError
from local.service import Address
from tests.conftest import Books, Unchanged
from tests.support.chains import chain_anew
from tests.support.client import UNKNOWN_ID, Api, OverHttp
from tests.support.cluster import cluster
from tests.support.keys import new_key
from wallets.ledger.inbox import drain as drain_inbox
from wallets.ledger.verify import verify
from wallets.models import InboxEntry

pytestmark = pytest.mark.slow

UNKNOWN_WALLET = "/api/v1/wallets/00000000-0000-0000-0000-000000000000"


# --- Compared services ------------------------------------------------------------------------------
@contextmanager
def served(kind: ServerKind) -> Iterator[Api]:
    with running(kind, os.environ["DATABASE_URL"]) as server:
        sender = OverHttp(server.url)
        with closing(sender.connection):
            yield Api(sender)


def verify_all_but_hashes(wallet: str) -> None:
    """Verify the wallet: only its hashes are wrong."""
    assert verify([UUID(wallet)])
    with psycopg.connect(cluster.url("postgres")) as database:
        chain_anew(database, wallet)
    Books((wallet,)).verify()


def test_naive_service_responds_as_the_service(api: Api, unchanged: Unchanged) -> None:
    wallet = api.open(deposit="10.00")
    with served(NAIVE) as naive:
        for operate in (Api.deposit, Api.withdraw):
            compared, expected = operate(naive, wallet, "2.50"), operate(api, wallet, "2.50")
            assert compared.status == expected.status == 201
            assert compared.json.keys() == expected.json.keys()
        with unchanged(wallet):
            assert naive.withdraw(wallet, "10.01").status == 400
        assert naive.wallet(wallet).keys() == api.wallet(wallet).keys()
        assert naive.balance(wallet) == api.balance(wallet) == "10.00"
    verify_all_but_hashes(wallet)


def test_unchained_service_differs_only_in_hashes(api: Api) -> None:
    wallet = api.open(deposit="10.00")
    with served(UNCHAINED) as unchained:
        compared, expected = unchained.deposit(wallet, "2.50"), api.deposit(api.open(), "2.50")
        assert compared.status == expected.status == 201
        assert compared.json.keys() == expected.json.keys()
    verify_all_but_hashes(wallet)


def test_bare_service_responds_alike_and_stores_nothing(api: Api, unchanged: Unchanged) -> None:
    wallet = api.open(deposit="10.00")
    with served(BARE) as bare, unchanged(wallet):
        assert bare.deposit(wallet, "1.50").json.keys() == api.history(wallet)[0].keys()
        assert bare.wallet(wallet).keys() == api.wallet(wallet).keys()
        assert bare.deposit(wallet, "1e3").code == "validation_error"


@pytest.mark.parametrize("kind", [REDIS, REDIS_RAW], ids=["pickled", "raw"])
@pytest.mark.brokers
def test_cached_service_responds_alike_from_the_cache(api: Api, kind: ServerKind) -> None:
    wallet = api.open(deposit="10.00")
    path = f"/wallets/{wallet}"
    with served(kind) as cached:
        for _ in ("missed", "found"):
            compared, expected = cached.get(path), api.get(path)
            assert (compared.status, compared.json, compared.headers["etag"]) == (
                200,
                expected.json,
                expected.headers["etag"],
            )
            assert compared.headers["content-type"] == expected.headers["content-type"]
            assert cached.get(path, if_none_match=expected.headers["etag"]).status == 304
        api.deposit(wallet, "1.00")  # not through the cache, which stays stale
        assert (cached.balance(wallet), api.balance(wallet)) == ("10.00", "11.00")
        cached.deposit(wallet, "1.00")
        assert cached.balance(wallet) == api.balance(wallet) == "12.00"
        assert cached.get(f"/wallets/{UNKNOWN_ID}").code == "wallet_not_found"


def test_missing_redis_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LocalError, match="apt-get install redis-server"):
        cache.program()


def test_service_imports_nothing_of_the_load_tests() -> None:
    sources = [path for folder in ("walletsvc", "wallets") for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if "loadtest" in path.read_text()] == []


# --- Load -------------------------------------------------------------------------------------------
def test_crowd_receives_every_response(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    host, port = service.removeprefix("http://").split(":")
    result = Crowd(host, int(port), f"/api/v1/wallets/{wallet}/operation").run(size=20, seconds=0.5)
    assert result.failures == 0
    assert live_api.wallet(wallet)["sequence"] == result.requests >= 20
    assert Crowd(host, int(port), f"{UNKNOWN_WALLET}/operation").run(size=2, seconds=0.1).failures >= 2


def final_sequence(api: Api, wallet: str) -> int:
    """Return the sequence when it no longer changes: wrk ends before its last request is committed."""
    before, sequence = -1, int(api.wallet(wallet)["sequence"])
    while sequence != before:
        time.sleep(0.5)
        before, sequence = sequence, int(api.wallet(wallet)["sequence"])
    return sequence


@pytest.mark.brokers
def test_wrk_sends_the_given_body_and_preference(service: str, live_api: Api, tmp_path: Path) -> None:
    wallet = live_api.open()
    paths, body = tmp_path / "paths", tmp_path / "body"
    paths.write_text("/api/v1/operations\n")
    deposit = {"walletId": wallet, "operationType": "DEPOSIT", "amount": 1}
    body.write_text(json.dumps({"operations": [deposit] * 3}))
    done = wrk.load(service, "POST", paths, 1, 1, Post(body))
    sequence = final_sequence(live_api, wallet)
    assert (done.failures, sequence % 3) == (0, 0)
    assert sequence >= 3 * done.requests > 0
    accepted = wrk.load(service, "POST", paths, 1, 1, Post(body, prefer="respond-async", with_keys=True))
    assert accepted.failures == 0
    assert live_api.wallet(wallet)["sequence"] == sequence
    entries = InboxEntry.objects.filter(wallet_id=wallet)
    assert entries.count() >= 3 * accepted.requests > 0
    assert len(set(entries.values_list("idempotency_key", flat=True))) == entries.count()
    while drain_inbox(500):
        pass
    Books((wallet,)).verify()


@pytest.mark.brokers
def test_wrk_counts_answers_and_failures(service: str, live_api: Api, tmp_path: Path) -> None:
    wallet = live_api.open()
    paths = tmp_path / "paths"
    paths.write_text(f"/api/v1/wallets/{wallet}/operation\n")
    result = wrk.load(service, "POST", paths, connections=2, seconds=1)
    assert result.failures == 0
    # The last requests may be stored, but wrk did not wait for their responses.
    assert 0 <= live_api.wallet(wallet)["sequence"] - result.requests <= 2
    paths.write_text(f"{UNKNOWN_WALLET}\n")
    result = wrk.load(service, "GET", paths, connections=2, seconds=1)
    assert result.failures == result.requests > 0


@pytest.mark.brokers
def test_wrk_sends_the_given_api_key(
    service: str, live_api: Api, tmp_path: Path, unchanged: Unchanged
) -> None:
    wallet, paths = live_api.open(), tmp_path / "paths"
    paths.write_text(f"/api/v1/wallets/{wallet}/operation\n")
    with unchanged(wallet):
        refused = wrk.load(service, "POST", paths, 1, 1, Post(api_key=new_key("wallets:read")))
    assert refused.failures == refused.requests > 0
    assert wrk.load(service, "POST", paths, 1, 1, Post(api_key=new_key("admin"))).failures == 0
    assert live_api.history(wallet, "limit=1")[0]["status"] == "COMPLETED"


def test_flood_is_answered_and_deposits_continue(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    address = Address(*_host_and_port(service))
    with attack.flood(address) as answers:
        result = attack.deposit_steadily(address, wallet, new_key("operations:deposit"), 1)
        while {name for name, _ in answers} < attack.EXPENSIVE.keys():
            time.sleep(0.01)
    assert result.failures == 0
    assert live_api.wallet(wallet)["sequence"] == result.requests > 0
    assert {status for name, status in answers if name == "document"} == {200}
    assert all(200 <= status < 500 for _, status in answers), answers


def test_refused_deposits_are_failures(service: str) -> None:
    unknown_id = UNKNOWN_WALLET.rpartition("/")[2]
    result = attack.deposit_steadily(Address(*_host_and_port(service)), unknown_id, new_key("admin"), 0.5)
    assert result.failures == result.requests > 0


def _host_and_port(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def test_read_after_a_deposit_is_not_stale(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    with stale_reads.deposit_and_check(service.removeprefix("http://"), wallet) as checks:
        while checks.count < 3:
            time.sleep(0.01)
    assert checks.stale == 0
    assert live_api.wallet(wallet)["sequence"] == checks.count


class StaleServer(BaseHTTPRequestHandler):
    """Responds to a deposit, then shows the wallet without it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._respond(2)

    def do_GET(self) -> None:
        self._respond(1)

    def _respond(self, sequence: int) -> None:
        body = json.dumps({"sequence": sequence}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_read_without_the_answered_deposit_is_stale() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), StaleServer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        with stale_reads.deposit_and_check(f"127.0.0.1:{server.server_port}", "any") as checks:
            while checks.count < 3:
                time.sleep(0.01)
        server.shutdown()
        thread.join()
    assert checks.stale == checks.count


def test_missing_wrk_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LocalError, match="apt-get install wrk"):
        wrk.program()


def test_locust_load_matches_the_ledger(service: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.run"],
        env=os.environ | {"PROFILE": "smoke", "HOST": service},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"[1-9]\d+ operations answered in 3 wallets: as many are stored", done.stdout), done
    assert re.search(r"failures +0 .* met", done.stdout), done
    page = re.search(r"Report: (.+)", done.stdout)
    assert page, done
    assert "<html" in Path(page[1]).read_text()
    Path(page[1]).unlink()


# --- Verdicts ---------------------------------------------------------------------------------------
PROFILE = Profile((Stage(10, 100),), p99=50)


@pytest.mark.parametrize(
    ("answers", "missed"),
    [
        (Answers(1000, 0, {10: 990, 900: 10}), []),
        (Answers(1000, 0, {10: 989, 900: 11}), ["p99, ms"]),
        (Answers(1000, 1, {10: 1000}), ["failures"]),
        (Answers(949, 0, {10: 949}), ["share of the rate achieved"]),
        (Answers(0, 0, {}), ["share of the rate achieved"]),
    ],
)
def test_every_bound_of_a_load_is_checked(answers: Answers, missed: list[str]) -> None:
    assert [check.name for check in verdict(PROFILE, answers) if not check.is_met] == missed


def stored(wallet: str, sequence: int, balance: str) -> dict[str, Any]:
    return {"id": wallet, "sequence": sequence, "balance": balance}


@pytest.mark.parametrize(
    ("wallets", "found"),
    [
        ([stored("a", 2, "1.25"), stored("b", 1, "3.00"), stored("c", 9, "9.00")], []),
        ([stored("a", 3, "1.25"), stored("b", 1, "3.00")], ["a: 2 operations answered, 3 stored"]),
        ([stored("a", 1, "1.25"), stored("b", 1, "3.00")], ["a: 2 operations answered, 1 stored"]),
        ([stored("a", 2, "1.26"), stored("b", 1, "3.00")], ["a: a balance of 1.25 answered, 1.26 stored"]),
        ([stored("a", 2, "1.25")], ["b: 1 operations answered, but there is no such wallet"]),
    ],
)
def test_differences_from_the_ledger_are_named(wallets: list[dict[str, Any]], found: list[str]) -> None:
    answered = AnsweredOperations()
    for wallet, cents in (("a", 500), ("a", -375), ("b", 300)):
        answered.add(wallet, cents)
    assert list(differences(answered, wallets)) == found


def test_load_withdraws_only_deposited_money() -> None:
    answered, balance, kinds = AnsweredOperations(), 0, set()
    for _ in range(1000):
        cents = answered.next_amount("a")
        answered.add("a", cents)
        balance += cents
        kinds.add(cents > 0)
        assert balance >= 0
    assert kinds == {True, False}


def test_answered_operations_of_processes_add_up(tmp_path: Path) -> None:
    for name, cents in (("one", 100), ("two", 250)):
        answered = AnsweredOperations()
        answered.add("a", cents)
        answered.add(name, cents)
        answered.save(tmp_path / name)
    total = AnsweredOperations.load(tmp_path.iterdir())
    assert total.operations == {"a": 2, "one": 1, "two": 1}
    assert total.cents == {"a": 350, "one": 100, "two": 250}


def measured(**rates: list[int]) -> Figures:
    figures = Figures()
    for name, of_rounds in rates.items():
        figures.results[name.replace("_", "-")] = [Result(rate, 1, 0, 10, 20, 30) for rate in of_rounds]
    return figures


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        (measured(hot=[900, 1000, 100], naive=[100, 100, 100]), []),
        (measured(hot=[800, 1000, 100], naive=[100, 100, 100]), ["hot / naive"]),
        (measured(hot=[590], bare=[1000]), ["hot / bare"]),
        (measured(hot=[1000], spread=[1110]), ["spread / hot"]),
        (measured(hot=[1400], slow_disk=[1400]), ["slow disk: operations a second"]),
        (measured(get=[740], get_bare=[1000], get_query=[300]), ["get / get-bare", "get / get-query"]),
        (measured(get=[99, 101], get_redis=[100, 100]), []),
        (measured(get=[98, 101], get_redis=[100, 100]), ["get / get-redis"]),
        (measured(get_spread=[99], get_spread_redis=[100]), ["get-spread / get-spread-redis"]),
        (measured(bulk=[19_999]), ["bulk: operations a second"]),
        (measured(bulk=[20_000]), []),
        (measured(hot=[1]), []),
    ],
)
def test_benchmark_checks_the_median_of_its_rounds(figures: Figures, missed: list[str]) -> None:
    assert [check.name for check in figures.checks() if not check.is_met] == missed


def test_one_stale_read_of_the_service_fails() -> None:
    figures = Figures()
    for row, stale in (("get-written", 1), ("get-written-redis", 1)):
        figures.results[row] = [Result(1, 1, 0, 10, 20, 30, checked_reads=40, stale=stale)]
    checks = {check.name: check.is_met for check in figures.checks()}
    assert checks["get-written: stale of 40 reads"] is False
    assert checks["get-written-redis: stale of 40 reads"] is True


@pytest.mark.parametrize(("under_attack", "is_met"), [(15, True), (15.1, False)])
def test_median_latency_under_attack_is_bounded(under_attack: float, is_met: bool) -> None:
    figures = Figures()
    figures.results["calm"] = [Result(100, 1, 0, 10, 20, 30)]
    figures.results["attack"] = [Result(100, 1, 0, under_attack, 20, 30)]
    [check] = figures.checks()
    assert (check.name, check.is_met) == ("attack / calm, p50", is_met)


def test_growing_memory_fails() -> None:
    flat, growing = (Figures(memory=[(10, 90), (60, 100), (100, last)]) for last in (101, 103))
    assert [check.is_met for check in flat.checks()] == [True, True]
    assert [check.is_met for check in growing.checks()] == [True, False]
