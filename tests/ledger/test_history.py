"""Balances at a past time, statements, and the history by type."""

import csv
import io
import random
import re
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction

from tests.conftest import Books
from tests.support.client import UNKNOWN_ID, Answer, Api, OverHttp
from wallets.api.examples import STATEMENT_AS_CSV
from wallets.contract import statements
from wallets.contract.fields import format_time
from wallets.ledger import history
from wallets.ledger.commands import Deposit
from wallets.ledger.execute import execute
from wallets.ledger.tables import database_clock
from wallets.models import Hold

TICK = timedelta(microseconds=1)
LONG_AGO = "0001-01-01T00:00:00Z"
NEVER = "9999-12-31T23:59:59.999999Z"


def parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def now() -> datetime:
    return database_clock("default")


def balance(api: Api, wallet_id: str, at: datetime | str | None = None) -> Answer:
    if at is None:
        return api.get(f"/wallets/{wallet_id}/balance")
    return api.get(f"/wallets/{wallet_id}/balance?at={at if isinstance(at, str) else format_time(at)}")


def statement(api: Api, wallet_id: str, query: str = "", **headers: str) -> Answer:
    return api.get(f"/wallets/{wallet_id}/statement?{query}", **headers)


def rows_of(answer: Answer) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.content.decode(), newline=""), strict=True))


def deposit_many(api: Api, wallet_id: str, count: int) -> None:
    for _ in range(0, count, 1000):
        one = {"walletId": wallet_id, "operationType": "DEPOSIT", "amount": 1}
        assert api.post("/operations", {"operations": [one] * min(count, 1000)}).status == 200


def moved(entry: Any) -> Decimal:
    amount = Decimal(entry["amount"])
    return amount if entry["operationType"] in ("DEPOSIT", "TRANSFER_IN", "REVERSAL_IN") else -amount


def assert_adds_up(found: Any) -> None:
    entries = found["entries"]
    assert Decimal(found["openingBalance"]) + sum(map(moved, entries)) == Decimal(found["closingBalance"])
    sequences = [entry["sequence"] for entry in entries]
    assert sequences == list(range(sequences[0], sequences[0] + len(entries))) if entries else True
    assert all(found["from"] <= entry["createdAt"] < found["to"] for entry in entries)


# --- Balance at a time ------------------------------------------------------------------------------
@dataclass
class ExpectedBalances:
    """A model in plain Python, built from the responses."""

    moves: list[tuple[datetime, Decimal]] = field(default_factory=list)
    holds: dict[str, tuple[datetime, datetime, Decimal]] = field(default_factory=dict)

    def record(self, operation: Any) -> None:
        self.moves.append((parsed(operation["createdAt"]), moved(operation)))

    def record_hold(self, hold: Any) -> None:
        end = parsed(hold["endedAt"] or hold["expiresAt"] or NEVER)
        self.holds[hold["id"]] = (parsed(hold["createdAt"]), end, Decimal(hold["amount"]))

    def instants(self) -> set[datetime]:
        known = {at for at, _ in self.moves} | {
            at for begin, end, _ in self.holds.values() for at in (begin, end)
        }
        return {at + shift for at in known if at.year < 9999 for shift in (-TICK, timedelta(0), TICK)}

    def at(self, at: datetime) -> tuple[Decimal, Decimal, int]:
        done = [amount for when, amount in self.moves if when <= at]
        held = [amount for begin, end, amount in self.holds.values() if begin <= at < end]
        return sum(done, Decimal(0)), sum(held, Decimal(0)), len(done)


def operate_at_random(api: Api, wallet_id: str, dice: random.Random, times: int) -> ExpectedBalances:
    """Send random requests to the wallet. Return what the successful responses tell."""
    expected = ExpectedBalances()
    for _ in range(times):
        amount = f"{dice.randint(1, 5000) / 100:.2f}"
        active = [item["id"] for item in api.get(f"/wallets/{wallet_id}/holds?status=ACTIVE").json["items"]]
        match dice.choice(["deposit", "withdraw", "hold", "hold for a moment", "capture", "void"]):
            case "deposit":
                expected.record(api.deposit(wallet_id, amount).json)
            case "withdraw" if (answer := api.withdraw(wallet_id, amount)).status == 201:
                expected.record(answer.json)
            case "hold" | "hold for a moment" as kind:
                end = {"expiresAt": format_time(now() + timedelta(milliseconds=dice.randint(20, 80)))}
                body = {"amount": amount, **(end if kind == "hold for a moment" else {})}
                if (answer := api.post(f"/wallets/{wallet_id}/holds", body)).status == 201:
                    expected.record_hold(answer.json)
            case "capture" if active:
                answer = api.post(f"/holds/{dice.choice(active)}/capture", {"amount": "0.01"})
                if answer.status == 201:
                    expected.record(answer.json)
                    expected.record_hold(api.held(answer.json["holdId"]))
            case "void" if active:
                answer = api.post(f"/holds/{dice.choice(active)}/void", {})
                if answer.status == 200:
                    expected.record_hold(answer.json)
    return expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_balance_is_exact_at_every_instant(api: Api, seed: int) -> None:
    wallet_id = api.open(deposit="1000")
    expected = ExpectedBalances()
    expected.record(api.history(wallet_id)[0])
    more = operate_at_random(api, wallet_id, random.Random(seed), 60)  # noqa: S311
    expected.moves += more.moves
    expected.holds = more.holds
    assert len(expected.holds) > 5
    instants = expected.instants()
    while now() <= max(instants):
        time.sleep(0.01)
    for at in sorted(instants):
        found = balance(api, wallet_id, at).json
        money, held, sequence = expected.at(at)
        assert (found["balance"], found["held"], found["available"], found["sequence"]) == (
            f"{money:.2f}",
            f"{held:.2f}",
            f"{money - held:.2f}",
            sequence,
        ), at
        assert parsed(found["at"]) == at
    Books((wallet_id,)).verify()


def test_present_balance_names_its_time(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    api.post(f"/wallets/{wallet_id}/holds", {"amount": "30"})
    api.withdraw(wallet_id, 500)
    found = balance(api, wallet_id).json
    assert found == {
        "walletId": wallet_id,
        "currency": "RUB",
        "balance": "100.00",
        "held": "30.00",
        "available": "70.00",
        "sequence": 1,
        "at": api.wallet(wallet_id)["updatedAt"],
    }
    assert balance(api, wallet_id, found["at"]).json == found
    assert balance(api, wallet_id, now()).json | {"at": found["at"]} == found


def hold_for_a_moment(api: Api, wallet_id: str, amount: str) -> datetime:
    """Place a hold, wait until it has expired, and return its expiry time."""
    end = now() + timedelta(milliseconds=50)
    answer = api.post(f"/wallets/{wallet_id}/holds", {"amount": amount, "expiresAt": format_time(end)})
    assert answer.status == 201
    assert balance(api, wallet_id, answer.json["createdAt"]).json["held"] == f"{Decimal(amount):.2f}"
    while now() <= end:
        time.sleep(0.01)
    return end


def test_present_balance_excludes_an_unrecorded_expired_hold(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    end = hold_for_a_moment(api, wallet_id, "30")
    assert Hold.objects.get(wallet_id=wallet_id).status == "ACTIVE"  # the expiry is not recorded yet
    found = balance(api, wallet_id).json
    assert (found["held"], found["available"]) == ("0.00", "100.00")
    assert parsed(found["at"]) >= end
    assert balance(api, wallet_id, found["at"]).json == found
    assert balance(api, wallet_id, end).json["held"] == "0.00"
    assert balance(api, wallet_id, end - TICK).json["held"] == "30.00"


def test_present_balance_includes_an_expiry_recorded_by_a_replay(api: Api) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, 100, key="first")
    end = hold_for_a_moment(api, wallet_id, "30")
    assert api.deposit(wallet_id, 100, key="first").headers["idempotent-replayed"] == "true"
    assert Hold.objects.get(wallet_id=wallet_id).status == "EXPIRED"
    found = balance(api, wallet_id).json
    assert (found["held"], parsed(found["at"])) == ("0.00", end)
    assert balance(api, wallet_id, found["at"]).json == found
    Books((wallet_id,)).verify()


def test_if_match_holds_while_an_expiry_is_recorded(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_for_a_moment(api, wallet_id, "30")
    tag = api.get(f"/wallets/{wallet_id}").headers["etag"]
    answer = api.patch(f"/wallets/{wallet_id}", {"label": "new"}, If_Match=tag)
    assert (answer.status, answer.json["held"], answer.json["label"]) == (200, "0.00", "new")


def test_balance_is_zero_after_opening_and_not_found_before(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    opened = parsed(api.wallet(wallet_id)["createdAt"])
    found = balance(api, wallet_id, opened).json
    assert (found["balance"], found["held"], found["sequence"]) == ("0.00", "0.00", 0)
    for at in (opened - TICK, LONG_AGO):
        answer = balance(api, wallet_id, at)
        assert (answer.status, answer.code) == (404, "wallet_not_found")


@pytest.mark.parametrize("path", ["balance", "balance?at=2026-01-01T00:00:00Z", "statement"])
@pytest.mark.parametrize("wallet_id", [UNKNOWN_ID, "x"])
def test_unknown_wallet_has_no_past(api: Api, wallet_id: str, path: str) -> None:
    assert api.get(f"/wallets/{wallet_id}/{path}").code == "wallet_not_found"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *((f"balance?at={at}", "at") for at in ("yesterday", "", "2026-01-01", "1700000000")),
        *((f"statement?from={at}", "from") for at in ("yesterday", "2026-01-01T00:00:00")),
        ("statement?to=2026-13-01T00:00:00Z", "to"),
        ("statement?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("statement?at=2026-01-02T00:00:00Z", "at"),
        ("balance?at=2026-01-01T00:00:00Z&at=2026-01-01T00:00:00Z", "at"),
    ],
)
def test_invalid_time_is_refused_by_parameter_name(api: Api, path: str, name: str) -> None:
    answer = api.get(f"/wallets/{api.open()}/{path}")
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [error["field"] for error in answer.json["errors"]] == [name]


@pytest.mark.parametrize("at", ["in a minute", NEVER])
def test_balance_in_the_future_is_the_present_one(api: Api, at: str) -> None:
    wallet_id = api.open(deposit="1")
    before = now()
    found = balance(api, wallet_id, at if at == NEVER else before + timedelta(minutes=1)).json
    assert found["balance"] == "1.00"
    assert before <= parsed(found["at"]) <= now()
    assert balance(api, wallet_id, found["at"]).json == found


@pytest.mark.parametrize("begin", ["", NEVER], ids=["from the opening", "from the future"])
def test_statement_of_the_future_ends_now(api: Api, begin: str) -> None:
    wallet_id = api.open(deposit="1")
    before = now()
    found = statement(api, wallet_id, f"{f'from={begin}&' if begin else ''}to={NEVER}").json
    assert before <= parsed(found["to"]) <= now()
    assert len(found["entries"]) == (0 if begin else 1)
    assert found["closingBalance"] == "1.00"
    assert found["from"] <= found["to"]


# --- Uncommitted operations -------------------------------------------------------------------------
@contextmanager
def uncommitted_deposit(wallet_id: str) -> Iterator[threading.Event]:
    """Hold the wallet's lock in another transaction with a deposit of 5; commit when the event is set."""
    written, commit = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with transaction.atomic():
                execute([Deposit(wallet_id=UUID(wallet_id), amount=Decimal(5))])
                written.set()
                assert commit.wait(30)
        finally:
            written.set()
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            assert written.wait(30)
            yield commit
        finally:
            commit.set()
            writer.result()


def wait_for_blocked_reader() -> None:
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'"
            )
            if cursor.fetchone()[0]:
                return
    raise AssertionError("no reader waits for the lock")


def test_present_balance_and_statement_wait_for_a_writer(api: Api) -> None:
    wallet_id = api.open(deposit="100")

    def read(at: datetime) -> tuple[Answer, Answer]:
        try:
            until = f"to={format_time(at)}"
            return balance(Api(), wallet_id, at), statement(Api(), wallet_id, until)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, uncommitted_deposit(wallet_id) as commit:
        reading = pool.submit(read, now())
        wait_for_blocked_reader()
        assert not reading.done()
        commit.set()
        found, listed = reading.result()
    assert (found.json["balance"], found.json["sequence"]) == ("105.00", 2)
    assert listed.json["closingBalance"] == "105.00"


def test_past_balance_does_not_wait_for_a_writer(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    last = api.wallet(wallet_id)["updatedAt"]
    with uncommitted_deposit(wallet_id):
        assert balance(api, wallet_id, last).json["balance"] == "100.00"
        assert balance(api, wallet_id).json["balance"] == "100.00"
        assert statement(api, wallet_id, f"to={last}").json["closingBalance"] == "0.00"
    assert balance(api, wallet_id).json["balance"] == "105.00"


def test_wallet_locked_past_the_deadline_is_busy(api: Api, settings: Any) -> None:
    settings.OPERATION_DEADLINE = 1
    wallet_id = api.open(deposit="100")
    with uncommitted_deposit(wallet_id):
        answer = balance(api, wallet_id, now())
    assert (answer.status, answer.code) == (429, "too_many_requests")


# --- Statements -------------------------------------------------------------------------------------
def test_statement_leads_from_opening_to_closing_balance(api: Api) -> None:
    wallet_id, other = api.open(deposit="100"), api.open()
    api.withdraw(wallet_id, 500)
    api.post("/transfers", {"sourceWalletId": wallet_id, "targetWalletId": other, "amount": "30"})
    hold = api.post(f"/wallets/{wallet_id}/holds", {"amount": "20"}).json
    api.post(f"/holds/{hold['id']}/capture", {"amount": "15"})
    api.post(f"/wallets/{wallet_id}/holds", {"amount": "20"})
    found = statement(api, wallet_id).json
    kinds = [(entry["operationType"], entry["balance"]) for entry in found["entries"]]
    assert kinds == [("DEPOSIT", "100.00"), ("TRANSFER_OUT", "70.00"), ("CAPTURE", "55.00")]
    assert (found["walletId"], found["currency"]) == (wallet_id, "RUB")
    assert (found["openingBalance"], found["closingBalance"]) == ("0.00", "55.00")
    assert found["from"] == api.wallet(wallet_id)["createdAt"]
    assert found["entries"] == [item for item in api.history(wallet_id)[::-1] if item["sequence"]]
    assert_adds_up(found)


def test_statement_includes_its_beginning_and_excludes_its_end(api: Api) -> None:
    wallet_id = api.open()
    times = [api.deposit(wallet_id, amount).json["createdAt"] for amount in (1, 2, 4, 8)]
    found = statement(api, wallet_id, f"from={times[1]}&to={times[3]}").json
    assert [entry["amount"] for entry in found["entries"]] == ["2.00", "4.00"]
    assert (found["openingBalance"], found["closingBalance"]) == ("1.00", "7.00")
    assert (found["from"], found["to"]) == (times[1], times[3])
    rest = statement(api, wallet_id, f"from={times[3]}").json
    assert (rest["openingBalance"], rest["closingBalance"]) == ("7.00", "15.00")
    nothing = statement(api, wallet_id, f"from={times[2]}&to={times[2]}").json
    assert (nothing["openingBalance"], nothing["entries"], nothing["closingBalance"]) == ("3.00", [], "3.00")


def test_statement_before_the_wallet_existed_is_empty(api: Api) -> None:
    wallet_id = api.open(deposit="1")
    for query in (f"from={LONG_AGO}&to=2001-01-01T00:00:00Z", "to=2001-01-01T00:00:00Z", f"to={LONG_AGO}"):
        found = statement(api, wallet_id, query).json
        assert (found["openingBalance"], found["entries"], found["closingBalance"]) == ("0.00", [], "0.00")
    assert len(statement(api, wallet_id, f"from={LONG_AGO}").json["entries"]) == 1


@pytest.mark.slow
def test_statements_add_up_while_operations_are_posted(live_api: Api, service: str) -> None:
    wallet_id = live_api.open(deposit="1000")
    done = threading.Event()

    def write(number: int) -> None:
        sender, dice = OverHttp(service), random.Random(number)  # noqa: S311
        with closing(sender.connection):
            while not done.is_set():
                Api(sender).operate(wallet_id, dice.choice(["DEPOSIT", "WITHDRAW"]), dice.randint(1, 100))

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, number) for number in range(3)]
        try:
            found = [statement(live_api, wallet_id).json]
            deadline = time.monotonic() + 60
            while len(found[-1]["entries"]) < 100 and time.monotonic() < deadline:
                found.append(statement(live_api, wallet_id).json)
        finally:
            done.set()
        for writer in writers:
            writer.result()
    for one in found:
        assert_adds_up(one)
    # Each statement is still the same: no later entry lies in its period.
    assert len(found[-1]["entries"]) >= 100
    for one in found:
        assert statement(live_api, wallet_id, f"from={one['from']}&to={one['to']}").json == one


# --- CSV --------------------------------------------------------------------------------------------
def test_csv_statement_has_balances_and_signed_amounts(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    paid = api.withdraw(wallet_id, "30.5", key="order-1", description='Ёлка, "large"\r\nand green').json
    answer = statement(api, wallet_id, Accept="text/csv")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    day = datetime.now(UTC).date()
    name = f"statement-{wallet_id}-{parsed(api.wallet(wallet_id)['createdAt']).date()}-{day}.csv"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["vary"] == "Accept"
    assert answer.content.startswith(b"time,sequence,operationType,amount,balance,currency,")
    rows = rows_of(answer)
    assert [(row["operationType"], row["amount"], row["balance"]) for row in rows] == [
        ("OPENING_BALANCE", "", "0.00"),
        ("DEPOSIT", "100.00", "100.00"),
        ("WITHDRAW", "-30.50", "69.50"),
        ("CLOSING_BALANCE", "", "69.50"),
    ]
    assert (rows[2]["time"], rows[2]["operationId"]) == (paid["createdAt"], paid["id"])
    assert (rows[2]["description"], rows[2]["idempotencyKey"]) == (paid["description"], "order-1")
    assert answer.content.count(b"\r\n") == 6  # header, four rows, and one in the description


def test_csv_columns_are_documented(api: Api) -> None:
    answer = statement(api, api.open(), Accept="text/csv")
    assert answer.content.splitlines()[0] == STATEMENT_AS_CSV.encode().splitlines()[0]
    documented = list(csv.reader(io.StringIO(STATEMENT_AS_CSV, newline="")))
    assert {len(row) for row in documented} == {len(statements.COLUMNS)}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *((text, f"'{text}") for text in ("=1+1", "+1", "-1", "@SUM(A1)", " =1", "＝1", '"=1"')),
        *((f"{space}=1", f"'{space}'=1") for space in "\t\r\n"),
        ("x;=cmd|' /C calc'!A0", "x;'=cmd|' /C calc'!A0"),
        ("x,=1", "x,'=1"),
        ("x\t@A1", "x\t'@A1"),
        ("x\r\n-1", "x\r\n'-1"),
        ('x; "+1"', 'x;\' "+1"'),
        ("x;＝1;－2", "x;'＝1;'－2"),
        ("a-b; c, d=e", "a-b; c, d=e"),
        ("'=1", "'=1"),
    ],
)
def test_csv_text_never_becomes_a_formula(api: Api, text: str, cell: str) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, 1, description=text)
    row = rows_of(statement(api, wallet_id, Accept="text/csv"))[1]
    assert (row["description"], row["amount"]) == (cell, "1.00")


def test_no_csv_cell_is_a_formula_in_any_locale(api: Api) -> None:
    wallet_id = api.open(deposit="5")
    api.withdraw(wallet_id, "2", key='"k;=1"', description='x;=1,"=2"\t+3')
    lines = statement(api, wallet_id, Accept="text/csv").content.decode().splitlines()
    cells = [cell.strip('" ') for line in lines for cell in re.split("[,;\t]", line)]
    assert [cell for cell in cells if cell.startswith(("=", "+", "@"))] == []
    assert [cell for cell in cells if cell.startswith("-")] == ["-2.00"]  # an amount stays a number


def test_csv_text_with_a_separator_of_any_locale_is_quoted(api: Api) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, 1, key="k;1", description='a\t"b"')
    line = statement(api, wallet_id, Accept="text/csv").content.decode().splitlines()[2]
    assert '"a\t""b"""' in line
    assert line.endswith(',"k;1",,')


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("text/csv, application/json;q=0.5", "text/csv; charset=utf-8"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv, application/json", "text/csv; charset=utf-8"),
        ("*/*;q=0.9, text/csv", "text/csv; charset=utf-8"),
        ("text/csv, */*;q=0.1", "text/csv; charset=utf-8"),
        ("text/csv;q=0, */*", "application/json"),
        ("text/*;q=0.9, text/csv;q=0.1, application/json;q=0.5", "application/json"),
        ("text/csv; charset=utf-8", "text/csv; charset=utf-8"),
        ('text/csv; header="a, b"; charset=utf-8, application/json;q=0.5', "text/csv; charset=utf-8"),
        ("TEXT/CSV;charset=windows-1251", "text/csv; charset=utf-8"),
        ("", "application/json"),
    ],
)
def test_accept_header_chooses_the_format(api: Api, accept: str, kind: str) -> None:
    answer = statement(api, api.open(), Accept=accept)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)


def test_csv_has_the_form_that_a_spreadsheet_program_expects(api: Api) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, 1, description="Я; a, b")
    plain, marked, semicolons = (
        statement(api, wallet_id, query, Accept="text/csv").content.decode()
        for query in ("bom=false&separator=comma", "bom=true", "separator=semicolon")
    )
    assert plain.startswith("time,sequence,")
    assert marked.startswith("\ufefftime,sequence,")
    rows = [
        list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        for text, delimiter in ((plain, ","), (marked.removeprefix("\ufeff"), ","), (semicolons, ";"))
    ]
    entries = [found[2] for found in rows]
    assert entries[0] == entries[1] == entries[2]
    assert entries[0][6] == "Я; a, b"
    assert semicolons.startswith("time;sequence;")


@pytest.mark.parametrize("query", ["bom=1", "bom=", "bom=True", "separator=;", "separator=%3B", "separator="])
def test_unknown_form_of_csv_is_refused_with_the_valid_ones(api: Api, query: str) -> None:
    refused = statement(api, api.open(), query, Accept="text/csv")
    name = query.partition("=")[0]
    (error,) = refused.json["errors"]
    assert (refused.status, error["field"]) == (400, name)
    assert (
        error["detail"]
        == {"bom": "must be true or false", "separator": "must be 'comma' or 'semicolon'"}[name]
    )


def test_other_formats_are_not_acceptable(api: Api) -> None:
    wallet_id = api.open()
    for accept in ("text/html", "application/xml", "text/csv;q=0"):
        answer = statement(api, wallet_id, Accept=accept)
        assert (answer.status, answer.code) == (406, "not_acceptable")
    assert balance(api, wallet_id).status == 200
    assert api.get(f"/wallets/{wallet_id}/balance", Accept="text/csv").code == "not_acceptable"
    assert statement(api, wallet_id, "from=x", Accept="text/csv").code == "validation_error"
    assert statement(api, str(uuid4()), Accept="text/csv").code == "wallet_not_found"


# --- Long statements --------------------------------------------------------------------------------
@pytest.mark.slow
def test_long_statement_is_streamed_completely(live_api: Api) -> None:
    wallet_id = live_api.open()
    deposit_many(live_api, wallet_id, 3000)
    answer = statement(live_api, wallet_id)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["x-request-id"]
    assert (len(answer.json["entries"]), answer.json["closingBalance"]) == (3000, "3000.00")
    assert_adds_up(answer.json)
    rows = rows_of(statement(live_api, wallet_id, Accept="text/csv"))
    assert [row["balance"] for row in rows[1:-1]] == [f"{n}.00" for n in range(1, 3001)]
    head = live_api.sender.send("HEAD", f"/api/v1/wallets/{wallet_id}/statement")
    assert (head.status, head.content) == (200, b"")
    assert live_api.wallet(wallet_id)["sequence"] == 3000  # on the same connection


@pytest.mark.slow
def test_streaming_holds_one_page_and_no_connection(api: Api) -> None:
    def peak(entries: int) -> int:
        wallet_id = api.open()
        deposit_many(api, wallet_id, entries)
        found = history.statement(UUID(wallet_id), None, None)
        tracemalloc.start()
        chunks = 0
        for _ in statements.as_csv(found):
            chunks += 1
            assert chunks == 1 or connection.connection is None
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert chunks == 2 + -(-entries // history.STATEMENT_PAGE_SIZE)
        return highest

    peak(2 * history.STATEMENT_PAGE_SIZE)  # warm up: allocate what is allocated once
    # Five times the entries need less than 2.5 times the memory; some garbage is not collected yet.
    assert peak(10 * history.STATEMENT_PAGE_SIZE) < 2.5 * peak(2 * history.STATEMENT_PAGE_SIZE)


# --- History by type --------------------------------------------------------------------------------
def test_history_by_type_includes_types_that_move_no_money(api: Api) -> None:
    wallet_id, other = api.open(deposit="100"), api.open()
    api.withdraw(wallet_id, 1)
    sent = api.post("/transfers", {"sourceWalletId": wallet_id, "targetWalletId": other, "amount": 10}).json
    api.post("/transfers", {"sourceWalletId": other, "targetWalletId": wallet_id, "amount": 4})
    captured, voided = (api.post(f"/wallets/{wallet_id}/holds", {"amount": 5}).json["id"] for _ in range(2))
    api.post(f"/holds/{captured}/capture", {})
    api.post(f"/holds/{voided}/void", {})
    api.post(f"/operations/{sent['source']['id']}/reversal", {"amount": 2})
    api.post(f"/operations/{api.history(wallet_id, 'type=DEPOSIT')[0]['id']}/reversal", {"amount": 1})
    types = ("DEPOSIT", "WITHDRAW", "TRANSFER_IN", "TRANSFER_OUT", "HOLD", "CAPTURE", "VOID")
    by_type = {
        kind: api.history(wallet_id, f"type={kind}") for kind in (*types, "REVERSAL_IN", "REVERSAL_OUT")
    }
    assert {kind: len(items) for kind, items in by_type.items()} == dict.fromkeys(by_type, 1) | {"HOLD": 2}
    for kind, items in by_type.items():
        assert {item["operationType"] for item in items} == {kind}
    together = [item for kind in by_type for item in by_type[kind] if kind not in ("HOLD", "VOID")]
    assert api.history(wallet_id) == sorted(together, key=lambda item: item["createdAt"], reverse=True)


def test_cursor_keeps_the_type_and_time_filters(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    path = f"/wallets/{wallet_id}/operations"
    holds = [api.post(f"/wallets/{wallet_id}/holds", {"amount": 1}).json for _ in range(5)]
    page = api.get(f"{path}?type=HOLD&from={holds[1]['createdAt']}&limit=2").json
    seen = [item["id"] for item in page["items"]]
    while page["nextCursor"]:
        api.post(f"/wallets/{wallet_id}/holds", {"amount": 1})
        api.withdraw(wallet_id, 1)
        page = api.get(f"{path}?limit=2&cursor={page['nextCursor']}").json
        seen += [item["id"] for item in page["items"]]
    assert seen == [hold["id"] for hold in holds[:0:-1]]
