"""The start page of the admin: figures of the ledger for operators with the permissions."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.test import Client

from tests.admin.test_wallets_and_operations import logged_in, new_user, shown, text_of
from tests.management.test_report import HOUR, locked
from tests.support.client import Api
from tests.support.events import subscribed
from tests.support.past import move_operations, quiet_day
from wallets import report
from wallets.admin import columns, start
from wallets.events.delivery_state import DeliveryState
from wallets.models import LedgerCheck
from wallets.report import Movements, Period, Refusals

pytestmark = pytest.mark.usefixtures("long_report_timeout")

START = "/admin/"
FIGURES = 'id="figures"'


@pytest.fixture
def client() -> Client:
    return logged_in(new_user("view_wallet", "view_operation"))


@pytest.fixture
def own_day(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Let the page show a past day that no other test uses."""
    since = quiet_day()
    monkeypatch.setattr(report, "last_period", lambda span: Period(since, since + span))
    return since


def tile(html: str, title: str) -> list[str]:
    """Return the figure and the remark of a tile."""
    found = re.search(rf"<h2>{title}</h2>\s*<p[^>]*>(.*?)</p>\s*<p[^>]*>(.*?)</p>", html, re.DOTALL)
    assert found
    return list(found.groups())


def bars(html: str, title: str) -> list[tuple[str, str, str]]:
    """Return label, figure and length of each bar."""
    _, _, after = html.partition(f">{title}</h2>")
    inside, _, _ = after.partition("</ul>")
    found = re.findall(
        r'truncate">(.*?)</span>.*?nowrap">(.*?)</span>.*?<rect width="([\d.]+)%" height="100%" rx="3" />',
        inside,
        re.DOTALL,
    )
    return [(re.sub("<[^>]+>", "", label), figure, length) for label, figure, length in found]


# --- Figures ----------------------------------------------------------------------------------------
def test_start_page_shows_the_operations_of_the_period(api: Api, client: Client, own_day: datetime) -> None:
    till, bank = api.open(currency="EUR", label="till"), api.open(currency="EUR", label="bank")
    api.deposit(till, "1000.50")
    api.deposit(till, "200")
    api.withdraw(till, "9999")
    api.transfer(till, bank, "300.12")
    move_operations([till, bank], [own_day + HOUR * number for number in (1, 1.5, 2, 23)])
    html = shown(client, START)
    assert tile(html, "Completed") == ["4", ""]
    assert tile(html, "Rejected") == ["1", "20.0% of all operations"]
    assert "Operations per hour</h2>" in html
    assert f"<title>from {own_day + HOUR:%m-%d} 01:00: 2 completed, 0 rejected</title>" in html
    assert f"<title>from {own_day + HOUR:%m-%d} 02:00: 0 completed, 1 rejected</title>" in html
    assert bars(html, "Volume by currency") == [
        ("Deposit, 2", "1,200.50 EUR", "100.00"),
        ("Transfer in, 1", "300.12 EUR", "25.00"),
        ("Transfer out, 1", "300.12 EUR", "25.00"),
    ]
    assert bars(html, "Refusals by reason") == [("insufficient_funds", "1", "100.00")]
    assert bars(html, "Busiest wallets, by operations") == [("till", "4", "100.00"), ("bank", "1", "25.00")]
    assert bars(html, "Busiest wallets, by volume") == [
        ("till", "1,500.62 EUR", "100.00"),
        ("bank", "300.12 EUR", "20.00"),
    ]
    assert html.count(f'href="/admin/wallets/wallet/{till}/change/"') == 2


def test_period_without_operations_is_shown_as_empty(client: Client, own_day: datetime) -> None:
    html = shown(client, START)
    assert tile(html, "Completed") == tile(html, "Rejected") == ["0", ""]
    assert html.count("None in this period.") == 4
    assert "estimated" not in html
    assert "Left out" not in html


@pytest.mark.parametrize(
    ("query", "chosen", "unit"),
    [
        ({}, "day", "hour"),
        ({"period": "hour"}, "hour", "minute"),
        ({"period": "day"}, "day", "hour"),
        ({"period": "week"}, "week", "6 hours"),
        ({"period": "century"}, "day", "hour"),
        ({"period": "<script>\x00"}, "day", "hour"),
    ],
    ids=ascii,
)
def test_period_is_chosen_by_links(client: Client, query: dict[str, str], chosen: str, unit: str) -> None:
    html = shown(client, START, **query)
    assert re.findall(r'href="\?period=(\w+)"', html) == ["hour", "day", "week"]
    assert re.findall(r'href="\?period=(\w+)" aria-current="true"', html) == [chosen]
    assert f"Operations per {unit}</h2>" in html


def test_label_is_escaped(api: Api, client: Client, own_day: datetime) -> None:
    wallet_id = api.open(deposit="1", currency="EUR", label="<script>alert(1)</script>")
    move_operations([wallet_id], [own_day])
    html = shown(client, START)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script>alert" not in html


def test_wallet_without_a_label_is_shown_by_its_id(api: Api, client: Client, own_day: datetime) -> None:
    wallet_id = api.open(deposit="1", currency="EUR")
    move_operations([wallet_id], [own_day])
    assert bars(shown(client, START), "Busiest wallets, by operations") == [
        (f"…{wallet_id[-12:]}", "1", "100.00")
    ]


def test_estimates_are_marked(
    api: Api, client: Client, own_day: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet_id = api.open(currency="EUR")
    for _ in range(40):
        api.deposit(wallet_id, 1)
    move_operations([wallet_id], [own_day + timedelta(seconds=number) for number in range(40)])
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", 24)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 24)
    html = shown(client, START)
    assert tile(html, "Completed") == ["≈ 40", ""]
    assert "More than 24 operations" in html


# --- State of the ledger ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("differences", "text", "colour"),
    [(0, "no differences", start.GOOD_COLOUR), (3, "3 differences", start.BAD_COLOUR)],
    ids=["good", "bad"],
)
def test_last_verification_is_green_or_red(
    client: Client, own_day: datetime, differences: int, text: str, colour: str
) -> None:
    LedgerCheck.objects.create(began_at=own_day, wallets=1234, differences=differences)
    html = shown(client, START)
    figure, remark = tile(html, "Last verification")
    assert figure == text
    assert re.fullmatch(r"\d+ s ago, 1,234 wallets", remark)
    assert f'{colour}">{text}</p>' in html


def test_missing_verification_names_the_command(own_day: datetime) -> None:
    figures = replace(report.make(Period(own_day, own_day + HOUR)), last_check=None)
    assert start._verification(figures).figure == "never"
    assert "verify_ledger" in start._verification(figures).remark


def test_subscribers_are_shown_with_their_lag(client: Client) -> None:
    with subscribed("http://127.0.0.1:1/", is_enabled=False) as subscriber:
        html = shown(client, START)
    [(_, figure, _)] = [bar for bar in bars(html, "Subscribers, by lag") if bar[0] == subscriber.name]
    assert figure == "disabled, 0.0 s"


@pytest.mark.parametrize(
    ("state", "text", "colour"),
    [
        (DeliveryState("a", True, 0.25, 0, 0), "0.2 s", start.GOOD_COLOUR),
        (DeliveryState("a", True, 3600, 0, 0), "1\xa0hour", start.WARNING_COLOUR),
        (DeliveryState("a", True, 1, 1200, 0), "1.0 s, 1,200 parked wallets", start.WARNING_COLOUR),
        (DeliveryState("a", True, 1, 0, 2), "1.0 s, 2 dead letters", start.BAD_COLOUR),
        (DeliveryState("a", False, 1, 0, 0), "disabled, 1.0 s", start.BAD_COLOUR),
    ],
    ids=["healthy", "late", "parked", "dead", "disabled"],
)
def test_subscriber_is_shown_with_its_faults(state: DeliveryState, text: str, colour: str) -> None:
    [bar] = start._subscribers([state]).bars
    assert (bar.figure, bar.colour) == (text, colour)


# --- Chart ------------------------------------------------------------------------------------------
def test_stacked_columns_fill_the_picture() -> None:
    since = quiet_day()
    period = Period(since, since + timedelta(minutes=2))
    drawn = columns.draw(period, Movements([], [60, 0], False), Refusals([], [40, 10], False))
    first, second = drawn.columns
    assert (first.completed, first.rejected, first.boundary, first.top) == (600, 400, 400, 0)
    assert (second.completed, second.rejected, second.boundary, second.top) == (0, 100, 1000, 900)
    assert (first.x, second.x, drawn.width) == (50, 550, 400)
    assert [mark.text for mark in drawn.marks] == ["0", "50", "100"]
    assert drawn.summary.startswith("60 operations completed, 50 rejected, from ")


# --- Permissions and slow queries -------------------------------------------------------------------
@pytest.mark.parametrize(
    "permissions", [(), ("view_wallet",), ("view_operation",), ("view_hold", "change_wallet")], ids=" ".join
)
def test_figures_need_the_view_permissions(permissions: tuple[str, ...]) -> None:
    html = shown(logged_in(new_user(*permissions)), START, period="week")
    assert FIGURES not in html
    assert "Site administration" in html


def test_figures_are_for_operators_only() -> None:
    assert FIGURES in shown(logged_in(new_user(is_superuser=True)), START)
    for client in (Client(), logged_in(new_user("view_wallet", "view_operation", is_staff=False))):
        response = client.get(START)
        assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/")


def test_slow_figures_are_left_out_and_named(client: Client) -> None:
    with locked("operation"):
        response = client.get(START)
    assert response.status_code == 200
    html = text_of(response)
    assert "Left out, because it took too long: subscribers, operations, refusals, wallets." in html
    assert tile(html, "Completed") == tile(html, "Rejected") == ["left out", ""]
    assert tile(html, "Inbox")[0] != "left out"
    assert "Operations per" not in html


def test_locked_verification_is_left_out(client: Client) -> None:
    with locked("ledger_check"):
        assert tile(shown(client, START), "Last verification") == ["left out", ""]


def test_figures_contain_no_script_and_no_external_resource(client: Client) -> None:
    _, _, figures = shown(client, START).partition(FIGURES)
    figures, _, _ = figures.partition("</section>")
    assert "<svg" in figures
    assert not re.search(r"<script|\son\w+=|x-data|javascript:|https?://", figures)
