"""The start page of the admin: figures of the ledger, for operators with the permissions."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.test import Client

from tests.admin.test_wallets_and_operations import logged_in, new_user, shown, text_of
from tests.management.test_report import HOUR, locked
from tests.support.client import Api
from tests.support.events import subscribed
from tests.support.past import let_it_be, quiet_day
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
def on_a_day(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The page's day is one that this test has for itself."""
    since = quiet_day()
    monkeypatch.setattr(report, "last", lambda span: Period(since, since + span))
    return since


def tile(html: str, title: str) -> list[str]:
    """What it says, and its remark."""
    found = re.search(rf"<h2>{title}</h2>\s*<p[^>]*>(.*?)</p>\s*<p[^>]*>(.*?)</p>", html, re.DOTALL)
    assert found
    return list(found.groups())


def bars(html: str, title: str) -> list[tuple[str, str, str]]:
    """Label, figure and length of each."""
    _, _, after = html.partition(f">{title}</h2>")
    inside, _, _ = after.partition("</ul>")
    found = re.findall(
        r'truncate">(.*?)</span>.*?nowrap">(.*?)</span>.*?<rect width="([\d.]+)%" height="100%" rx="3" />',
        inside,
        re.DOTALL,
    )
    return [(re.sub("<[^>]+>", "", label), figure, length) for label, figure, length in found]


# --- What it shows ----------------------------------------------------------------------------------
def test_the_page_shows_what_was_done(api: Api, client: Client, on_a_day: datetime) -> None:
    till, bank = api.open(currency="EUR", label="till"), api.open(currency="EUR", label="bank")
    api.deposit(till, "1000.50")
    api.deposit(till, "200")
    api.withdraw(till, "9999")
    api.transfer(till, bank, "300.12")
    let_it_be([till, bank], [on_a_day + HOUR * number for number in (1, 1.5, 2, 23)])
    html = shown(client, START)
    assert tile(html, "Completed") == ["4", ""]
    assert tile(html, "Rejected") == ["1", "20.0% of all"]
    assert "Operations per hour</h2>" in html
    assert f"<title>from {on_a_day + HOUR:%m-%d} 01:00: 2 completed, 0 rejected</title>" in html
    assert f"<title>from {on_a_day + HOUR:%m-%d} 02:00: 0 completed, 1 rejected</title>" in html
    assert bars(html, "Volume by currency") == [
        ("Deposit, 2", "1,200.50 EUR", "100.00"),
        ("Transfer in, 1", "300.12 EUR", "25.00"),
        ("Transfer out, 1", "300.12 EUR", "25.00"),
    ]
    assert bars(html, "Refusals by reason") == [("insufficient_funds", "1", "100.00")]
    assert bars(html, "Hot wallets, by operations") == [("till", "4", "100.00"), ("bank", "1", "25.00")]
    assert bars(html, "Top wallets, by volume") == [
        ("till", "1,500.62 EUR", "100.00"),
        ("bank", "300.12 EUR", "20.00"),
    ]
    assert html.count(f'href="/admin/wallets/wallet/{till}/change/"') == 2


def test_where_nothing_was_done_the_page_says_so(client: Client, on_a_day: datetime) -> None:
    html = shown(client, START)
    assert tile(html, "Completed") == tile(html, "Rejected") == ["0", ""]
    assert html.count("Nothing in this time.") == 3
    assert "None in this time." in html
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
def test_the_period_is_picked_by_links(client: Client, query: dict[str, str], chosen: str, unit: str) -> None:
    html = shown(client, START, **query)
    assert re.findall(r'href="\?period=(\w+)"', html) == ["hour", "day", "week"]
    assert re.findall(r'href="\?period=(\w+)" aria-current="true"', html) == [chosen]
    assert f"Operations per {unit}</h2>" in html


def test_a_label_is_text_and_nothing_else(api: Api, client: Client, on_a_day: datetime) -> None:
    wallet_id = api.open(deposit="1", currency="EUR", label="<script>alert(1)</script>")
    let_it_be([wallet_id], [on_a_day])
    html = shown(client, START)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script>alert" not in html


def test_a_wallet_without_a_label_has_the_end_of_its_id(api: Api, client: Client, on_a_day: datetime) -> None:
    wallet_id = api.open(deposit="1", currency="EUR")
    let_it_be([wallet_id], [on_a_day])
    assert bars(shown(client, START), "Hot wallets, by operations") == [
        (f"…{wallet_id[-12:]}", "1", "100.00")
    ]


def test_estimates_are_told_as_such(
    api: Api, client: Client, on_a_day: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet_id = api.open(currency="EUR")
    for _ in range(40):
        api.deposit(wallet_id, 1)
    let_it_be([wallet_id], [on_a_day + timedelta(seconds=number) for number in range(40)])
    monkeypatch.setattr(report, "MAX_READ_OPERATIONS", 24)
    monkeypatch.setattr(report, "MAX_SAMPLE_SLICES", 24)
    html = shown(client, START)
    assert tile(html, "Completed") == ["≈ 40", ""]
    assert "More than 24 operations" in html


# --- How the ledger fares ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("differences", "said", "colour"),
    [(0, "all is right", start.GOOD), (3, "3 differences", start.BAD)],
    ids=["good", "bad"],
)
def test_the_last_verification_is_green_or_red(
    client: Client, on_a_day: datetime, differences: int, said: str, colour: str
) -> None:
    LedgerCheck.objects.create(began_at=on_a_day, wallets=1234, differences=differences)
    html = shown(client, START)
    figure, remark = tile(html, "Last verification")
    assert figure == said
    assert re.fullmatch(r"\d+ s ago, 1,234 wallets", remark)
    assert f'{colour}">{said}</p>' in html


def test_who_never_verified_is_told_how(on_a_day: datetime) -> None:
    made = replace(report.make(Period(on_a_day, on_a_day + HOUR)), last_check=None)
    assert start._verification(made).figure == "never"
    assert "verify_ledger" in start._verification(made).remark


def test_subscribers_are_shown_with_how_far_they_are_behind(client: Client) -> None:
    with subscribed("http://127.0.0.1:1/", is_enabled=False) as subscriber:
        html = shown(client, START)
    [(_, figure, _)] = [
        bar for bar in bars(html, "Subscribers, by how far they are behind") if bar[0] == subscriber.name
    ]
    assert figure == "disabled, 0.0 s"


@pytest.mark.parametrize(
    ("standing", "said", "colour"),
    [
        (DeliveryState("a", True, 0.25, 0, 0), "0.2 s", start.GOOD),
        (DeliveryState("a", True, 3600, 0, 0), "1\xa0hour", start.DOUBTFUL),
        (DeliveryState("a", True, 1, 1200, 0), "1.0 s, 1,200 wallets wait", start.DOUBTFUL),
        (DeliveryState("a", True, 1, 0, 2), "1.0 s, 2 dead letters", start.BAD),
        (DeliveryState("a", False, 1, 0, 0), "disabled, 1.0 s", start.BAD),
    ],
    ids=["well", "behind", "parked", "dead", "disabled"],
)
def test_a_subscriber_is_told_by_what_is_wrong_with_it(
    standing: DeliveryState, said: str, colour: str
) -> None:
    [bar] = start._subscribers([standing]).bars
    assert (bar.figure, bar.colour) == (said, colour)


# --- The picture ------------------------------------------------------------------------------------
def test_columns_stand_on_each_other_and_fill_the_picture() -> None:
    since = quiet_day()
    period = Period(since, since + timedelta(minutes=2))
    drawn = columns.draw(period, Movements([], [60, 0], False), Refusals([], [40, 10], False))
    first, second = drawn.columns
    assert (first.completed, first.rejected, first.boundary, first.top) == (600, 400, 400, 0)
    assert (second.completed, second.rejected, second.boundary, second.top) == (0, 100, 1000, 900)
    assert (first.x, second.x, drawn.width) == (50, 550, 400)
    assert [mark.text for mark in drawn.marks] == ["0", "50", "100"]
    assert drawn.summary.startswith("60 operations completed, 50 rejected, from ")


# --- Who sees it, and what if it takes long ---------------------------------------------------------
@pytest.mark.parametrize(
    "permissions", [(), ("view_wallet",), ("view_operation",), ("view_hold", "change_wallet")], ids=" ".join
)
def test_who_may_not_look_at_the_ledger_sees_the_page_without_figures(permissions: tuple[str, ...]) -> None:
    html = shown(logged_in(new_user(*permissions)), START, period="week")
    assert FIGURES not in html
    assert "Site administration" in html


def test_a_superuser_sees_the_figures_and_others_the_login() -> None:
    assert FIGURES in shown(logged_in(new_user(is_superuser=True)), START)
    for client in (Client(), logged_in(new_user("view_wallet", "view_operation", is_staff=False))):
        response = client.get(START)
        assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/")


def test_what_takes_too_long_is_left_out_with_a_word_about_it(client: Client) -> None:
    with locked("operation"):
        response = client.get(START)
    assert response.status_code == 200
    html = text_of(response)
    assert "Left out, because it took too long: subscribers, operations, refusals, wallets." in html
    assert tile(html, "Completed") == tile(html, "Rejected") == ["left out", ""]
    assert tile(html, "Inbox")[0] != "left out"
    assert "Operations per" not in html


def test_a_verification_that_cannot_be_read_is_left_out(client: Client) -> None:
    with locked("ledger_check"):
        assert tile(shown(client, START), "Last verification") == ["left out", ""]


def test_the_figures_bring_no_script_and_nothing_from_elsewhere(client: Client) -> None:
    _, _, figures = shown(client, START).partition(FIGURES)
    figures, _, _ = figures.partition("</section>")
    assert "<svg" in figures
    assert not re.search(r"<script|\son\w+=|x-data|javascript:|https?://", figures)
