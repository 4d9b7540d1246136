"""The benchmark's yardsticks and the load test are what they claim to be. Nothing here is timed."""

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

from loadtest import attack, cache, written, wrk
from loadtest.crowd import Crowd
from loadtest.figures import Figures
from loadtest.profiles import Profile, Stage
from loadtest.servers import BARE, NAIVE, REDIS, REDIS_RAW, UNCHAINED, ServerKind, running
from loadtest.tally import Tally
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


# --- The yardsticks ---------------------------------------------------------------------------------
@contextmanager
def served(kind: ServerKind) -> Iterator[Api]:
    with running(kind, os.environ["DATABASE_URL"]) as server:
        sender = OverHttp(server.url)
        with closing(sender.connection):
            yield Api(sender)


def verify_but_for_hashes(wallet: str) -> None:
    """Those are wrong, and nothing else is."""
    assert verify([UUID(wallet)])
    with psycopg.connect(cluster.url("postgres")) as database:
        chain_anew(database, wallet)
    Books((wallet,)).verify()


def test_the_naive_shape_answers_as_the_service_does(api: Api, unchanged: Unchanged) -> None:
    wallet = api.open(deposit="10.00")
    with served(NAIVE) as naive:
        for operate in (Api.deposit, Api.withdraw):
            theirs, ours = operate(naive, wallet, "2.50"), operate(api, wallet, "2.50")
            assert theirs.status == ours.status == 201
            assert theirs.json.keys() == ours.json.keys()
        with unchanged(wallet):
            assert naive.withdraw(wallet, "10.01").status == 400
        assert naive.wallet(wallet).keys() == api.wallet(wallet).keys()
        assert naive.balance(wallet) == api.balance(wallet) == "10.00"
    verify_but_for_hashes(wallet)


def test_the_service_without_hashes_does_all_else(api: Api) -> None:
    wallet = api.open(deposit="10.00")
    with served(UNCHAINED) as unchained:
        theirs, ours = unchained.deposit(wallet, "2.50"), api.deposit(api.open(), "2.50")
        assert theirs.status == ours.status == 201
        assert theirs.json.keys() == ours.json.keys()
    verify_but_for_hashes(wallet)


def test_the_service_without_a_database_answers_alike_and_stores_nothing(
    api: Api, unchanged: Unchanged
) -> None:
    wallet = api.open(deposit="10.00")
    with served(BARE) as bare, unchanged(wallet):
        assert bare.deposit(wallet, "1.50").json.keys() == api.history(wallet)[0].keys()
        assert bare.wallet(wallet).keys() == api.wallet(wallet).keys()
        assert bare.deposit(wallet, "1e3").code == "validation_error"


@pytest.mark.parametrize("kind", [REDIS, REDIS_RAW], ids=["pickled", "raw"])
@pytest.mark.brokers
def test_the_service_with_a_cache_answers_alike_and_from_the_cache(api: Api, kind: ServerKind) -> None:
    wallet = api.open(deposit="10.00")
    path = f"/wallets/{wallet}"
    with served(kind) as cached:
        for _ in ("missed", "found"):
            theirs, ours = cached.get(path), api.get(path)
            assert (theirs.status, theirs.json, theirs.headers["etag"]) == (
                200,
                ours.json,
                ours.headers["etag"],
            )
            assert theirs.headers["content-type"] == ours.headers["content-type"]
            assert cached.get(path, if_none_match=ours.headers["etag"]).status == 304
        api.deposit(wallet, "1.00")  # past the cache, which does not hear of it
        assert (cached.balance(wallet), api.balance(wallet)) == ("10.00", "11.00")
        cached.deposit(wallet, "1.00")
        assert cached.balance(wallet) == api.balance(wallet) == "12.00"
        assert cached.get(f"/wallets/{UNKNOWN_ID}").code == "wallet_not_found"


def test_a_missing_redis_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LocalError, match="apt-get install redis-server"):
        cache.program()


def test_no_yardstick_can_be_reached_from_the_service() -> None:
    sources = [path for folder in ("walletsvc", "wallets") for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if "loadtest" in path.read_text()] == []


# --- Load -------------------------------------------------------------------------------------------
def test_a_crowd_hears_every_answer(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    host, port = service.removeprefix("http://").split(":")
    result = Crowd(host, int(port), f"/api/v1/wallets/{wallet}/operation").run(size=20, seconds=0.5)
    assert result.failures == 0
    assert live_api.wallet(wallet)["sequence"] == result.requests >= 20
    assert Crowd(host, int(port), f"{UNKNOWN_WALLET}/operation").run(size=2, seconds=0.1).failures >= 2


def final_sequence(api: Api, wallet: str) -> int:
    """Return the sequence once it stays: wrk ends with a request in flight, which is still committed."""
    before, sequence = -1, int(api.wallet(wallet)["sequence"])
    while sequence != before:
        time.sleep(0.5)
        before, sequence = sequence, int(api.wallet(wallet)["sequence"])
    return sequence


@pytest.mark.brokers
def test_wrk_sends_the_body_and_the_preference_it_is_given(
    service: str, live_api: Api, tmp_path: Path
) -> None:
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
    waiting = InboxEntry.objects.filter(wallet_id=wallet)
    assert waiting.count() >= 3 * accepted.requests > 0
    assert len(set(waiting.values_list("idempotency_key", flat=True))) == waiting.count()
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
    # What was on its way when the time was over is stored, but wrk did not wait for it.
    assert 0 <= live_api.wallet(wallet)["sequence"] - result.requests <= 2
    paths.write_text(f"{UNKNOWN_WALLET}\n")
    result = wrk.load(service, "GET", paths, connections=2, seconds=1)
    assert result.failures == result.requests > 0


@pytest.mark.brokers
def test_wrk_sends_the_api_key_it_is_given(
    service: str, live_api: Api, tmp_path: Path, unchanged: Unchanged
) -> None:
    wallet, paths = live_api.open(), tmp_path / "paths"
    paths.write_text(f"/api/v1/wallets/{wallet}/operation\n")
    with unchanged(wallet):
        refused = wrk.load(service, "POST", paths, 1, 1, Post(api_key=new_key("wallets:read")))
    assert refused.failures == refused.requests > 0
    assert wrk.load(service, "POST", paths, 1, 1, Post(api_key=new_key("admin"))).failures == 0
    assert live_api.history(wallet, "limit=1")[0]["status"] == "COMPLETED"


def test_flood_is_answered_and_deposits_go_on(service: str, live_api: Api) -> None:
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
    nowhere = UNKNOWN_WALLET.rpartition("/")[2]
    result = attack.deposit_steadily(Address(*_host_and_port(service)), nowhere, new_key("admin"), 0.5)
    assert result.failures == result.requests > 0


def _host_and_port(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def test_who_pays_and_looks_sees_what_was_answered(service: str, live_api: Api) -> None:
    wallet = live_api.open()
    with written.meanwhile(service.removeprefix("http://"), wallet) as looks:
        while looks.number < 3:
            time.sleep(0.01)
    assert looks.stale == 0
    assert live_api.wallet(wallet)["sequence"] == looks.number


class Forgetful(BaseHTTPRequestHandler):
    """Answers a payment, and shows the wallet as it was before."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._show(2)

    def do_GET(self) -> None:
        self._show(1)

    def _show(self, sequence: int) -> None:
        body = json.dumps({"sequence": sequence}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_look_that_shows_less_than_was_answered_is_stale() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        with written.meanwhile(f"127.0.0.1:{server.server_port}", "any") as looks:
            while looks.number < 3:
                time.sleep(0.01)
        server.shutdown()
        thread.join()
    assert looks.stale == looks.number


def test_a_missing_wrk_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LocalError, match="apt-get install wrk"):
        wrk.program()


def test_locust_puts_its_load_on_a_running_service_and_the_books_agree(service: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.run"],
        env=os.environ | {"PROFILE": "smoke", "HOST": service},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"[1-9]\d+ operations answered in 3 wallets: as many are stored", done.stdout), done
    assert re.search(r"failures +0 .* kept", done.stdout), done
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
def test_a_load_is_judged_by_every_bound(answers: Answers, missed: list[str]) -> None:
    assert [check.what for check in verdict(PROFILE, answers) if not check.is_kept] == missed


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
def test_what_the_ledger_has_otherwise_is_named(wallets: list[dict[str, Any]], found: list[str]) -> None:
    tally = Tally()
    for wallet, cents in (("a", 500), ("a", -375), ("b", 300)):
        tally.add(wallet, cents)
    assert list(differences(tally, wallets)) == found


def test_a_load_never_withdraws_what_it_has_not_seen_deposited() -> None:
    tally, balance, kinds = Tally(), 0, set()
    for _ in range(1000):
        cents = tally.next_amount("a")
        tally.add("a", cents)
        balance += cents
        kinds.add(cents > 0)
        assert balance >= 0
    assert kinds == {True, False}


def test_the_tallies_of_several_processes_add_up(tmp_path: Path) -> None:
    for name, cents in (("one", 100), ("two", 250)):
        tally = Tally()
        tally.add("a", cents)
        tally.add(name, cents)
        tally.save(tmp_path / name)
    total = Tally.load(tmp_path.iterdir())
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
def test_a_benchmark_is_judged_by_the_median_of_its_rounds(figures: Figures, missed: list[str]) -> None:
    assert [check.what for check in figures.checks() if not check.is_kept] == missed


def test_one_stale_look_at_ours_is_one_too_many() -> None:
    figures = Figures()
    for row, stale in (("get-written", 1), ("get-written-redis", 1)):
        figures.results[row] = [Result(1, 1, 0, 10, 20, 30, looks=40, stale=stale)]
    checks = {check.what: check.is_kept for check in figures.checks()}
    assert checks["get-written: stale of 40 looks"] is False
    assert checks["get-written-redis: stale of 40 looks"] is True


@pytest.mark.parametrize(("under_attack", "is_kept"), [(15, True), (15.1, False)])
def test_median_latency_under_attack_is_bounded(under_attack: float, is_kept: bool) -> None:
    figures = Figures()
    figures.results["calm"] = [Result(100, 1, 0, 10, 20, 30)]
    figures.results["attack"] = [Result(100, 1, 0, under_attack, 20, 30)]
    [check] = figures.checks()
    assert (check.what, check.is_kept) == ("attack / calm, p50", is_kept)


def test_growing_memory_is_a_figure_that_misses() -> None:
    flat, growing = (Figures(memory=[(10, 90), (60, 100), (100, last)]) for last in (101, 103))
    assert [check.is_kept for check in flat.checks()] == [True, True]
    assert [check.is_kept for check in growing.checks()] == [True, False]
