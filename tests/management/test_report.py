"""The report of a period: its figures equal the operations, and slow figures are left out."""

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
from tests.support.past import move_operations, quiet_day
from wallets import report
from wallets.models import LedgerCheck
from wallets.report import Period, Report, Volume

pytestmark = pytest.mark.usefixtures("long_report_timeout")

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def report_of_hour(since: datetime) -> Report:
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


# --- Figures ----------------------------------------------------------------------------------------
def test_figures_equal_the_operations_of_the_period(api: Api) -> None:
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
    move_operations([till, bank], minutes(since, 0, 1, 1.5, 2, 3, 4, 5, 6, 7, 8))

    figures = report_of_hour(since)
    assert figures.movements is not None
    assert {(volume.type, volume.count, str(volume.amount)) for volume in figures.movements.volumes} == {
        ("DEPOSIT", 2, "120.5000"),
        ("WITHDRAW", 1, "30.0000"),
        ("TRANSFER_OUT", 1, "40.2500"),
        ("TRANSFER_IN", 1, "40.2500"),
        ("HOLD", 2, "15.0000"),
        ("CAPTURE", 1, "4.0000"),
        ("VOID", 1, "5.0000"),
        ("REVERSAL_OUT", 1, "1.0000"),
    }
    assert figures.movements.steps == [1, 2, 0, 2, 1, 1, 1, 1, 1] + [0] * 51
    assert figures.refusals is not None
    assert figures.refusals.reasons == [("insufficient_funds", 1)]
    assert figures.refusals.steps == [0, 0, 1] + [0] * 57
    assert figures.busiest is not None
    assert [(str(it.id), it.operations, str(it.volume)) for it in figures.busiest.by_operations] == [
        (till, 10, "195.7500"),  # the refusal is counted as an operation but moved nothing
        (bank, 1, "40.2500"),
    ]
    assert figures.busiest.by_operations[0].label == "till"
    assert figures.busiest.by_volume == figures.busiest.by_operations
    assert not figures.is_estimate
    assert figures.left_out == []


def test_period_without_operations_has_empty_figures() -> None:
    figures = report_of_hour(quiet_day())
    assert figures.movements == report.Movements([], [0] * 60, False)
    assert figures.refusals == report.Refusals([], [0] * 60, False)
    assert figures.busiest == report.Busiest([], [])
    assert figures.left_out == []


def test_volumes_are_by_currency_and_the_busiest_comes_first(api: Api) -> None:
    since = quiet_day()
    yen, dinar = api.open(currency="JPY"), api.open(currency="KWD")
    api.deposit(yen, "5000")
    api.deposit(dinar, "0.001")
    api.deposit(dinar, "1.234")
    move_operations([yen, dinar], minutes(since, 1, 2, 3))
    figures = report_of_hour(since)
    assert figures.movements is not None
    assert figures.movements.volumes == [
        Volume("KWD", "DEPOSIT", 2, Decimal("1.2350")),
        Volume("JPY", "DEPOSIT", 1, Decimal("5000.0000")),
    ]
    assert figures.busiest is not None
    assert [(wallet.currency, wallet.volume) for wallet in figures.busiest.by_volume] == [
        ("JPY", Decimal(5000)),
        ("KWD", Decimal("1.235")),
    ]


def test_most_frequent_refusals_come_first(api: Api) -> None:
    since = quiet_day()
    wallet_id, full = api.open(currency="EUR"), api.open(currency="EUR", maxBalance="1")
    api.withdraw(wallet_id, "1")
    api.deposit(full, "2")
    api.withdraw(wallet_id, "1")
    move_operations([wallet_id, full], minutes(since, 1, 2, 3))
    figures = report_of_hour(since)
    assert figures.refusals is not None
    assert figures.refusals.reasons == [("insufficient_funds", 2), ("balance_limit_exceeded", 1)]
    assert figures.busiest is not None
    assert [
        (str(wallet.id), wallet.operations, wallet.volume) for wallet in figures.busiest.by_operations
    ] == [
        (wallet_id, 2, Decimal(0)),
        (full, 1, Decimal(0)),
    ]
    assert figures.busiest.by_volume == []


def test_only_the_busiest_wallets_are_listed(api: Api) -> None:
    since = quiet_day()
    wallet_ids = [api.open(currency="EUR") for _ in range(report.MAX_BUSIEST_WALLETS + 1)]
    for number, wallet_id in enumerate(wallet_ids):
        api.deposit(wallet_id, 100 - number)
    api.deposit(wallet_ids[-1], "0.01")
    move_operations(wallet_ids, [since + timedelta(seconds=number) for number in range(len(wallet_ids) + 1)])
    busiest = report_of_hour(since).busiest
    assert busiest is not None
    assert len(busiest.by_operations) == report.MAX_BUSIEST_WALLETS
    assert str(busiest.by_operations[0].id) == wallet_ids[-1]
    assert [str(wallet.id) for wallet in busiest.by_volume] == wallet_ids[: report.MAX_BUSIEST_OF_CURRENCY]


# --- Periods ----------------------------------------------------------------------------------------
def test_period_includes_its_begin_and_excludes_its_end(api: Api) -> None:
    since = quiet_day()
    wallet_id = api.open(currency="EUR")
    for amount in (1, 2, 4, 8, 16):
        api.deposit(wallet_id, amount)
    tick = timedelta(microseconds=1)
    edges = [since - tick, since, since + MINUTE - tick, since + HOUR - tick, since + HOUR]
    move_operations([wallet_id], edges)
    figures = report_of_hour(since)
    assert figures.movements is not None
    assert figures.movements.volumes == [Volume("EUR", "DEPOSIT", 3, Decimal(14))]
    assert figures.movements.steps == [2] + [0] * 58 + [1]


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
def test_period_is_divided_into_steps(span: timedelta, step: timedelta, number: int) -> None:
    since = quiet_day()
    period = Period(since, since + span)
    slices = period.slices()
    assert (period.step, len(slices)) == (step, number)
    assert (slices[0][0], slices[-1][1]) == (since, since + span)
    assert all(one[1] == other[0] for one, other in pairwise(slices))


# --- Samples ----------------------------------------------------------------------------------------
@pytest.fixture
def busy_hour(api: Api) -> datetime:
    """Make 300 operations at an even rate: a third in a busy wallet, one in a hundred refused."""
    since = quiet_day()
    hot, cold = api.open(currency="EUR"), api.open(currency="EUR")
    for number in range(300):
        if number % 100 == 50:
            api.withdraw(hot, "1000000")
        else:
            api.deposit(cold if number % 3 else hot, "2")
    move_operations([hot, cold], [since + 12 * timedelta(seconds=number) for number in range(300)])
    return since


@pytest.mark.parametrize("counted", [300, 1000], ids=["by their rate", "all counted"])
@pytest.mark.slow
def test_figures_of_many_operations_are_estimated_from_a_sample(
    busy_hour: datetime, monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", 120)
    monkeypatch.setattr(report, "MAX_COUNTED_OPERATIONS", counted)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 60)
    figures = report_of_hour(busy_hour)
    assert figures.is_estimate
    assert figures.movements is not None
    assert sum(figures.movements.steps) == pytest.approx(297, rel=0.1)
    [volume] = figures.movements.volumes
    assert volume.amount == pytest.approx(Decimal(594), rel=Decimal("0.1"))
    assert figures.refusals is not None
    assert not figures.refusals.is_estimate
    assert figures.refusals.reasons == [("insufficient_funds", 3)]
    assert figures.busiest is not None
    assert [wallet.operations for wallet in figures.busiest.by_operations] == pytest.approx(
        [200, 100], rel=0.2
    )


@pytest.mark.slow
def test_wallet_with_few_sample_hits_is_not_listed(
    busy_hour: datetime, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = api.open(currency="EUR")
    api.deposit(rare, "1000")
    move_operations([rare], [busy_hour + HOUR - MINUTE / 60])
    everything = report_of_hour(busy_hour).busiest
    assert everything is not None
    assert str(everything.by_volume[0].id) == rare
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", 120)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 60)
    sampled = report_of_hour(busy_hour).busiest
    assert sampled is not None
    assert rare not in {str(wallet.id) for wallet in (*sampled.by_volume, *sampled.by_operations)}


@pytest.mark.parametrize("max_read", [report.MAX_READ_OPERATIONS, 120], ids=["all", "a sample"])
@pytest.mark.slow
def test_every_query_finds_operations_with_a_time_index(
    busy_hour: datetime, monkeypatch: pytest.MonkeyPatch, max_read: int
) -> None:
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", max_read)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 60)
    with CaptureQueriesContext(connection) as captured:
        report_of_hour(busy_hour)
    plans = [
        plan_of(query["sql"], "seqscan")
        for query in captured.captured_queries
        if "WHERE created_at >=" in query["sql"]
    ]
    assert len(plans) == 5 + (max_read == 120)
    for plan in plans:
        assert "Index Cond: ((created_at >=" in plan, plan


# --- Slow queries -----------------------------------------------------------------------------------
@pytest.mark.parametrize("deadline_seconds", [60.0, 0.1], ids=["locked table", "deadline"])
def test_slow_figures_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, deadline_seconds: float
) -> None:
    monkeypatch.setattr(report, "QUERY_DEADLINE_SECONDS", deadline_seconds)
    with locked("operation"):
        figures = report_of_hour(quiet_day())
    assert (figures.movements, figures.refusals, figures.busiest) == (None, None, None)
    assert {"operations", "refusals", "wallets"} <= set(figures.left_out)
    assert figures.inbox is not None


def test_one_slow_figure_does_not_affect_the_others() -> None:
    with locked("inbox"):
        figures = report_of_hour(quiet_day())
    assert figures.left_out == ["inbox"]
    assert figures.movements is not None


# --- manage.py ledger_report ------------------------------------------------------------------------
def run(*arguments: str) -> str:
    output = StringIO()
    call_command("ledger_report", *arguments, stdout=output)
    return output.getvalue()


def report_json(*arguments: str) -> Any:
    return json.loads(run("--json", *arguments))


def written(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.000000Z"


@pytest.fixture
def own_day(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Let the command report a past day that no other test uses."""
    since = quiet_day()
    monkeypatch.setattr(report, "last_period", lambda span: Period(since, since + span))
    return since


def test_json_output_contains_all_figures(api: Api, own_day: datetime) -> None:
    wallet_id = api.open(currency="EUR", label="till 7")
    api.deposit(wallet_id, "1234.5")
    api.withdraw(wallet_id, "5000")
    move_operations([wallet_id], minutes(own_day, 1, 2))
    LedgerCheck.objects.create(began_at=own_day, wallets=7, differences=2)
    busy = {"walletId": wallet_id, "label": "till 7", "currency": "EUR", "operations": 2, "volume": "1234.50"}
    with subscribed("http://127.0.0.1:1/", is_enabled=False) as subscriber:
        body = report_json("--since", "1h")
    assert body.pop("inbox").keys() == {"entries", "oldestSeconds", "setAside"}
    [state] = [it for it in body.pop("subscribers") if it["name"] == subscriber.name]
    assert state.keys() == {"name", "isEnabled", "lagSeconds", "parked", "dead"}
    assert (state["isEnabled"], state["parked"], state["dead"]) == (False, 0, 0)
    assert isinstance(body["lastCheck"].pop("endedAt"), str)
    assert body.pop("lastCheck") == {"beganAt": written(own_day), "wallets": 7, "differences": 2}
    assert body == {
        "from": written(own_day),
        "to": written(own_day + HOUR),
        "isEstimate": False,
        "leftOut": [],
        "completed": 1,
        "rejected": 1,
        "volume": [{"currency": "EUR", "operationType": "DEPOSIT", "count": 1, "amount": "1234.50"}],
        "refusals": [{"reason": "insufficient_funds", "count": 1}],
        "hotWallets": [busy],
        "topWallets": [busy],
    }


def test_text_output_contains_all_figures(api: Api, own_day: datetime) -> None:
    wallet_id = api.open(currency="JPY", label="till 7")
    api.deposit(wallet_id, "12345")
    api.withdraw(wallet_id, "99999")
    move_operations([wallet_id], minutes(own_day, 1, 2))
    LedgerCheck.objects.create(began_at=own_day, wallets=7, differences=2)
    with subscribed("http://127.0.0.1:1/") as subscriber:
        lines = run().splitlines()
    assert lines[0] == f"The ledger from {written(own_day)} to {written(own_day + 24 * HOUR)}"
    rows = [line.split() for line in lines]
    assert ["completed", "1"] in rows
    assert ["rejected", "1"] in rows
    assert any(re.match("last verification  .*Z, 2 differences in 7 wallets$", line) for line in lines)
    assert ["JPY", "DEPOSIT", "1", "12345"] in rows
    assert ["insufficient_funds", "1"] in rows
    assert rows.count([wallet_id, "till", "7", "JPY", "2", "12345"]) == 2
    assert any(line.startswith(subscriber.name) for line in lines)


def test_text_output_omits_empty_tables(own_day: datetime) -> None:
    shown = run()
    assert "completed          0\n" in shown
    assert not {"VOLUME", "REFUSALS", "BUSIEST WALLETS, BY OPERATIONS"} & set(shown.splitlines())


def test_default_period_is_the_last_day(api: Api) -> None:
    api.open(deposit="1")
    body = report_json()
    begin, end = (datetime.fromisoformat(body[name]) for name in ("from", "to"))
    assert end - begin == timedelta(days=1)
    before = report_json("--since", "31d")["completed"]
    api.open(deposit="1")
    assert report_json("--since", "31d")["completed"] == before + 1


def test_control_characters_of_a_label_are_replaced(api: Api, own_day: datetime) -> None:
    wallet_id = api.open(deposit="1", currency="EUR", label="\x1b[2Jgone\u202e\nVOLUME")
    move_operations([wallet_id], minutes(own_day, 1))
    assert "?[2Jgone??VOLUME" in run()


def test_command_names_left_out_figures(own_day: datetime) -> None:
    with locked("operation"):
        shown, body = run(), report_json()
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
def test_invalid_span_is_refused(since: str) -> None:
    with pytest.raises(CommandError, match="must have the format 90m, 24h or 7d|must be at most 31d"):
        run(f"--since={since}")


@pytest.mark.parametrize("since", ["1m", "44640m", "744h", "31d"])
def test_span_of_up_to_31_days_is_accepted(since: str) -> None:
    assert report_json("--since", since)["leftOut"] == []
