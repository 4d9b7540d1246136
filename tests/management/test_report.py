"""The report of a period: its figures are those of what was done, and it never takes long."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.admin.test_wallets_and_operations import plan_of
from tests.support.client import Api
from tests.support.cluster import cluster
from tests.support.events import subscribed
from tests.support.past import let_it_be, quiet_day
from wallets import report
from wallets.models import LedgerCheck
from wallets.report import Period, Report, Volume

pytestmark = pytest.mark.usefixtures("long_report_timeout")

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def hour_of(since: datetime) -> Report:
    return report.make(Period(since, since + HOUR))


def minutes(since: datetime, *numbers: float) -> list[datetime]:
    return [since + MINUTE * number for number in numbers]


@contextmanager
def locked(table: str) -> Iterator[None]:
    """Lock the table as a schema change does."""
    with psycopg.connect(cluster.url("walletsvc_owner")) as owner:
        owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        owner.rollback()


# --- What was done ----------------------------------------------------------------------------------
def test_the_figures_are_those_of_what_was_done(api: Api) -> None:
    since = quiet_day()
    till, bank = api.open(currency="EUR", label="till"), api.open(currency="EUR")
    deposit = api.deposit(till, "100").json["id"]
    api.deposit(till, "20.50")
    api.withdraw(till, "30")
    assert api.withdraw(till, "1000").code == "insufficient_funds"
    api.transfer(till, bank, "40.25")
    api.capture(api.hold(till, "10").json["id"], "4")
    api.void(api.hold(till, "5").json["id"])
    api.reverse(deposit, "1")
    let_it_be([till, bank], minutes(since, 0, 1, 1.5, 2, 3, 4, 5, 6, 7, 8))

    made = hour_of(since)
    assert made.movements is not None
    assert {(volume.type, volume.count, str(volume.amount)) for volume in made.movements.volumes} == {
        ("DEPOSIT", 2, "120.5000"),
        ("WITHDRAW", 1, "30.0000"),
        ("TRANSFER_OUT", 1, "40.2500"),
        ("TRANSFER_IN", 1, "40.2500"),
        ("HOLD", 2, "15.0000"),
        ("CAPTURE", 1, "4.0000"),
        ("VOID", 1, "5.0000"),
        ("REVERSAL_OUT", 1, "1.0000"),
    }
    assert made.movements.steps == [1, 2, 0, 2, 1, 1, 1, 1, 1] + [0] * 51
    assert made.refusals is not None
    assert made.refusals.reasons == [("insufficient_funds", 1)]
    assert made.refusals.steps == [0, 0, 1] + [0] * 57
    assert made.busiest is not None
    assert [(str(it.id), it.operations, str(it.volume)) for it in made.busiest.hot] == [
        (till, 10, "195.7500"),  # what moved in or out of it; the refusal counts, and moved nothing
        (bank, 1, "40.2500"),
    ]
    assert made.busiest.hot[0].label == "till"
    assert made.busiest.top == made.busiest.hot
    assert not made.is_estimate
    assert made.left_out == []


def test_where_nothing_was_done_there_is_nothing() -> None:
    made = hour_of(quiet_day())
    assert made.movements == report.Movements([], [0] * 60, False)
    assert made.refusals == report.Refusals([], [0] * 60, False)
    assert made.busiest == report.Busiest([], [])
    assert made.left_out == []


def test_currencies_are_told_apart_and_the_busiest_comes_first(api: Api) -> None:
    since = quiet_day()
    yen, dinar = api.open(currency="JPY"), api.open(currency="KWD")
    api.deposit(yen, "5000")
    api.deposit(dinar, "0.001")
    api.deposit(dinar, "1.234")
    let_it_be([yen, dinar], minutes(since, 1, 2, 3))
    made = hour_of(since)
    assert made.movements is not None
    assert made.movements.volumes == [
        Volume("KWD", "DEPOSIT", 2, Decimal("1.2350")),
        Volume("JPY", "DEPOSIT", 1, Decimal("5000.0000")),
    ]
    assert made.busiest is not None
    assert [(wallet.currency, wallet.volume) for wallet in made.busiest.top] == [
        ("JPY", Decimal(5000)),
        ("KWD", Decimal("1.235")),
    ]


def test_refusals_come_most_frequent_first(api: Api) -> None:
    since = quiet_day()
    wallet_id, full = api.open(currency="EUR"), api.open(currency="EUR", maxBalance="1")
    api.withdraw(wallet_id, "1")
    api.deposit(full, "2")
    api.withdraw(wallet_id, "1")
    let_it_be([wallet_id, full], minutes(since, 1, 2, 3))
    made = hour_of(since)
    assert made.refusals is not None
    assert made.refusals.reasons == [("insufficient_funds", 2), ("balance_limit_exceeded", 1)]
    assert made.busiest is not None
    assert [(str(wallet.id), wallet.operations, wallet.volume) for wallet in made.busiest.hot] == [
        (wallet_id, 2, Decimal(0)),
        (full, 1, Decimal(0)),
    ]
    assert made.busiest.top == []


def test_of_many_wallets_the_busiest_are_told(api: Api) -> None:
    since = quiet_day()
    wallet_ids = [api.open(currency="EUR") for _ in range(report.MAX_BUSIEST_WALLETS + 1)]
    for number, wallet_id in enumerate(wallet_ids):
        api.deposit(wallet_id, 100 - number)
    api.deposit(wallet_ids[-1], "0.01")
    let_it_be(wallet_ids, [since + timedelta(seconds=number) for number in range(len(wallet_ids) + 1)])
    busiest = hour_of(since).busiest
    assert busiest is not None
    assert len(busiest.hot) == report.MAX_BUSIEST_WALLETS
    assert str(busiest.hot[0].id) == wallet_ids[-1]
    assert [str(wallet.id) for wallet in busiest.top] == wallet_ids[: report.MAX_BUSIEST_OF_CURRENCY]


# --- Of which time ----------------------------------------------------------------------------------
def test_a_period_begins_with_its_first_moment_and_ends_before_its_last(api: Api) -> None:
    since = quiet_day()
    wallet_id = api.open(currency="EUR")
    for amount in (1, 2, 4, 8, 16):
        api.deposit(wallet_id, amount)
    tick = timedelta(microseconds=1)
    edges = [since - tick, since, since + MINUTE - tick, since + HOUR - tick, since + HOUR]
    let_it_be([wallet_id], edges)
    made = hour_of(since)
    assert made.movements is not None
    assert made.movements.volumes == [Volume("EUR", "DEPOSIT", 3, Decimal(14))]
    assert made.movements.steps == [2] + [0] * 58 + [1]


@pytest.mark.parametrize(
    ("span", "step", "number"),
    [
        (MINUTE, MINUTE, 1),
        (HOUR, MINUTE, 60),
        (HOUR + MINUTE, timedelta(minutes=5), 13),
        (timedelta(days=1), HOUR, 24),
        (timedelta(days=7), timedelta(hours=6), 28),
        (report.MAX_PERIOD, timedelta(days=1), 31),
    ],
)
def test_a_period_is_shown_in_steps(span: timedelta, step: timedelta, number: int) -> None:
    since = quiet_day()
    period = Period(since, since + span)
    slices = period.slices()
    assert (period.step, len(slices)) == (step, number)
    assert (slices[0][0], slices[-1][1]) == (since, since + span)
    assert all(one[1] == other[0] for one, other in pairwise(slices))


# --- Much of it -------------------------------------------------------------------------------------
@pytest.fixture
def busy_hour(api: Api) -> datetime:
    """300 operations, at an even rate: every third of a hot wallet, every hundredth refused."""
    since = quiet_day()
    hot, cold = api.open(currency="EUR"), api.open(currency="EUR")
    for number in range(300):
        if number % 100 == 50:
            api.withdraw(hot, "1000000")
        else:
            api.deposit(cold if number % 3 else hot, "2")
    let_it_be([hot, cold], [since + 12 * timedelta(seconds=number) for number in range(300)])
    return since


@pytest.mark.parametrize("counted", [300, 1000], ids=["by their rate", "all counted"])
@pytest.mark.slow
def test_of_much_a_sample_is_read_and_told_as_an_estimate(
    busy_hour: datetime, monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", 120)
    monkeypatch.setattr(report, "MAX_COUNTED_OPERATIONS", counted)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 60)
    made = hour_of(busy_hour)
    assert made.is_estimate
    assert made.movements is not None
    assert sum(made.movements.steps) == pytest.approx(297, rel=0.1)
    [volume] = made.movements.volumes
    assert volume.amount == pytest.approx(Decimal(594), rel=Decimal("0.1"))
    assert made.refusals is not None
    assert not made.refusals.is_estimate
    assert made.refusals.reasons == [("insufficient_funds", 3)]
    assert made.busiest is not None
    assert [wallet.operations for wallet in made.busiest.hot] == pytest.approx([200, 100], rel=0.2)


@pytest.mark.slow
def test_a_wallet_that_a_sample_meets_by_chance_is_not_among_the_busiest(
    busy_hour: datetime, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = api.open(currency="EUR")
    api.deposit(rare, "1000")
    let_it_be([rare], [busy_hour + HOUR - MINUTE / 60])
    everything = hour_of(busy_hour).busiest
    assert everything is not None
    assert str(everything.top[0].id) == rare
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", 120)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 60)
    sampled = hour_of(busy_hour).busiest
    assert sampled is not None
    assert rare not in {str(wallet.id) for wallet in (*sampled.top, *sampled.hot)}


@pytest.mark.parametrize("most", [report.MAX_READ_OPERATIONS, 120], ids=["all", "a sample"])
@pytest.mark.slow
def test_what_is_read_is_found_by_its_time_however_long_the_ledger_is(
    busy_hour: datetime, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", most)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 60)
    with CaptureQueriesContext(connection) as asked:
        hour_of(busy_hour)
    plans = [
        plan_of(query["sql"], "seqscan")
        for query in asked.captured_queries
        if "WHERE created_at >=" in query["sql"]
    ]
    assert len(plans) == 5 + (most == 120)
    for plan in plans:
        assert "Index Cond: ((created_at >=" in plan, plan


# --- What takes too long ----------------------------------------------------------------------------
@pytest.mark.parametrize("patience", [60.0, 0.1], ids=["a lock", "time is over"])
def test_what_takes_too_long_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    monkeypatch.setattr(report, "STATEMENT_TIMEOUT_SECONDS", patience)
    with locked("operation"):
        made = hour_of(quiet_day())
    assert (made.movements, made.refusals, made.busiest) == (None, None, None)
    assert {"operations", "refusals", "wallets"} <= set(made.left_out)
    assert made.inbox is not None


def test_one_figure_that_takes_too_long_does_not_take_the_others_along() -> None:
    with locked("inbox"):
        made = hour_of(quiet_day())
    assert made.left_out == ["inbox"]
    assert made.movements is not None


# --- manage.py ledger_report ------------------------------------------------------------------------
def run(*arguments: str) -> str:
    output = StringIO()
    call_command("ledger_report", *arguments, stdout=output)
    return output.getvalue()


def told(*arguments: str) -> Any:
    return json.loads(run("--json", *arguments))


def written(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.000000Z"


@pytest.fixture
def on_a_day(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The command's hour is one that this test has for itself."""
    since = quiet_day()
    monkeypatch.setattr(report, "last", lambda span: Period(since, since + span))
    return since


def test_the_command_tells_programs_all_of_it(api: Api, on_a_day: datetime) -> None:
    wallet_id = api.open(currency="EUR", label="till 7")
    api.deposit(wallet_id, "1234.5")
    api.withdraw(wallet_id, "5000")
    let_it_be([wallet_id], minutes(on_a_day, 1, 2))
    LedgerCheck.objects.create(began_at=on_a_day, wallets=7, differences=2)
    busy = {"walletId": wallet_id, "label": "till 7", "currency": "EUR", "operations": 2, "volume": "1234.50"}
    with subscribed("http://127.0.0.1:1/", is_enabled=False) as subscriber:
        body = told("--since", "1h")
    assert body.pop("inbox").keys() == {"entries", "oldestSeconds", "setAside"}
    [standing] = [it for it in body.pop("subscribers") if it["name"] == subscriber.name]
    assert standing.keys() == {"name", "isEnabled", "lagSeconds", "parked", "dead"}
    assert (standing["isEnabled"], standing["parked"], standing["dead"]) == (False, 0, 0)
    assert isinstance(body["lastCheck"].pop("endedAt"), str)
    assert body.pop("lastCheck") == {"beganAt": written(on_a_day), "wallets": 7, "differences": 2}
    assert body == {
        "from": written(on_a_day),
        "to": written(on_a_day + HOUR),
        "isEstimate": False,
        "leftOut": [],
        "completed": 1,
        "rejected": 1,
        "volume": [{"currency": "EUR", "operationType": "DEPOSIT", "count": 1, "amount": "1234.50"}],
        "refusals": [{"reason": "insufficient_funds", "count": 1}],
        "hotWallets": [busy],
        "topWallets": [busy],
    }


def test_the_command_tells_people_all_of_it(api: Api, on_a_day: datetime) -> None:
    wallet_id = api.open(currency="JPY", label="till 7")
    api.deposit(wallet_id, "12345")
    api.withdraw(wallet_id, "99999")
    let_it_be([wallet_id], minutes(on_a_day, 1, 2))
    LedgerCheck.objects.create(began_at=on_a_day, wallets=7, differences=2)
    with subscribed("http://127.0.0.1:1/") as subscriber:
        lines = run().splitlines()
    assert lines[0] == f"The ledger from {written(on_a_day)} to {written(on_a_day + 24 * HOUR)}"
    rows = [line.split() for line in lines]
    assert ["completed", "1"] in rows
    assert ["rejected", "1"] in rows
    assert any(re.match("last verification  .*Z, 2 differences in 7 wallets$", line) for line in lines)
    assert ["JPY", "DEPOSIT", "1", "12345"] in rows
    assert ["insufficient_funds", "1"] in rows
    assert rows.count([wallet_id, "till", "7", "JPY", "2", "12345"]) == 2
    assert any(line.startswith(subscriber.name) for line in lines)


def test_the_command_has_no_table_where_there_is_nothing(on_a_day: datetime) -> None:
    shown = run()
    assert "completed          0\n" in shown
    assert not {"VOLUME", "REFUSALS", "HOT WALLETS, BY OPERATIONS"} & set(shown.splitlines())


def test_the_command_is_about_the_last_day_unless_told(api: Api) -> None:
    api.open(deposit="1")
    body = told()
    begin, end = (datetime.fromisoformat(body[name]) for name in ("from", "to"))
    assert end - begin == timedelta(days=1)
    before = told("--since", "31d")["completed"]
    api.open(deposit="1")
    assert told("--since", "31d")["completed"] == before + 1


def test_a_label_gives_the_terminal_no_orders(api: Api, on_a_day: datetime) -> None:
    wallet_id = api.open(deposit="1", currency="EUR", label="\x1b[2Jgone\u202e\nVOLUME")
    let_it_be([wallet_id], minutes(on_a_day, 1))
    assert "?[2Jgone??VOLUME" in run()


def test_the_command_names_what_is_left_out(on_a_day: datetime) -> None:
    with locked("operation"):
        shown, body = run(), told()
    assert "\nLeft out, because it took too long: subscribers, operations, refusals, wallets.\n" in shown
    assert "completed          left out\n" in shown
    assert body["leftOut"] == ["subscribers", "operations", "refusals", "wallets"]
    assert (body["completed"], body["volume"], body["hotWallets"]) == (None, None, None)


@pytest.mark.parametrize(
    "since",
    [
        "",
        "0h",
        "24",
        "h",
        "-1h",
        "1.5h",
        "1e3h",
        "24 h",
        "1w",
        "32d",
        "745h",
        "99999d",
        "999999999h",
        "١h",
        "24h\n",
    ],
    ids=ascii,
)
def test_a_span_that_is_none_is_refused(since: str) -> None:
    with pytest.raises(CommandError, match="write it as 90m, 24h or 7d|at most 31d"):
        run(f"--since={since}")


@pytest.mark.parametrize("since", ["1m", "44640m", "744h", "31d"])
def test_a_span_may_be_up_to_31_days(since: str) -> None:
    assert told("--since", since)["leftOut"] == []
