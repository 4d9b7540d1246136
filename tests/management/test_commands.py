"""The manage.py commands: what they print, and one line with exit code 2 for wrong input."""

import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import nullcontext
from io import StringIO
from uuid import UUID, uuid4

import psycopg
import pytest
from django.core.management import CommandError, call_command, execute_from_command_line
from django.utils import timezone

from local.postgres import free_port
from tests.support.chains import superuser
from tests.support.client import UNKNOWN_ID, Api
from tests.support.cluster import cluster
from wallets import health
from wallets.models import LedgerCheck, Operation, Wallet


def run(command: str, *arguments: str) -> str:
    output = StringIO()
    call_command(command, *arguments, stdout=output)
    return output.getvalue()


def test_create_wallet_prints_ids_one_a_line() -> None:
    ids = run(
        "create_wallet", "--count", "3", "--currency", "EUR", "--label", "till", "--deposit", "12.50"
    ).split()
    wallets = Wallet.objects.filter(id__in=[UUID(line) for line in ids])
    assert len(ids) == 3
    assert {(str(wallet.balance), wallet.currency, wallet.label) for wallet in wallets} == {
        ("12.5000", "EUR", "till")
    }


def test_create_wallet_with_an_id_is_safe_to_repeat() -> None:
    wallet_id = str(uuid4())
    for _ in range(2):
        assert run("create_wallet", "--id", wallet_id, "--deposit", "5").strip() == wallet_id
    assert Wallet.objects.get(id=wallet_id).balance == 5
    assert Operation.objects.get(wallet_id=wallet_id).actor == "command:create_wallet"


def test_create_wallet_refuses_the_id_of_another_wallet(api: Api) -> None:
    with pytest.raises(CommandError, match="different request") as error:
        run("create_wallet", "--id", api.open())
    assert error.value.returncode == 2


def test_show_wallet_prints_the_wallet_and_its_newest_operations(api: Api) -> None:
    wallet_id = api.open(deposit="10", label="till 7")
    api.withdraw(wallet_id, "99", description="too much")
    shown = run("show_wallet", wallet_id)
    for text in (wallet_id, "till 7", "10.00", "insufficient_funds", "too much"):
        assert text in shown


def test_verify_ledger_accepts_an_unchanged_ledger(api: Api) -> None:
    one, other = api.open(deposit="10"), api.open()
    assert "2 wallets verified" in run("verify_ledger", "--wallet", one, "--wallet", other)
    assert "every balance equals its ledger" in run("verify_ledger", "--batch", "3")


def test_check_of_the_whole_ledger_is_recorded(api: Api) -> None:
    api.open(deposit="10")
    before = timezone.now()
    run("verify_ledger")
    check = LedgerCheck.objects.latest("id")
    assert before <= check.began_at < check.ended_at <= timezone.now()
    assert check.wallets == Wallet.objects.count()
    assert check.differences == 0


def test_check_of_some_wallets_is_not_recorded(api: Api) -> None:
    before = LedgerCheck.objects.count()
    run("verify_ledger", "--wallet", api.open())
    assert LedgerCheck.objects.count() == before


def test_check_is_recorded_with_its_number_of_differences(tampered: str) -> None:
    with psycopg.connect(cluster.url("postgres")) as database:
        database.execute("UPDATE wallet SET balance = 8, sequence = 3 WHERE id = %s", [tampered])
    with pytest.raises(CommandError):
        run("verify_ledger")
    assert LedgerCheck.objects.latest("id").differences == 2


@pytest.fixture
def no_recording() -> Iterator[None]:
    """Forbid the service to record a check, as on a read-only replica."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute("REVOKE INSERT ON ledger_check FROM walletsvc_app")
        yield
        database.execute("GRANT INSERT ON ledger_check TO walletsvc_app")


@pytest.mark.parametrize("balance", [7, 8])
@pytest.mark.usefixtures("no_recording")
def test_result_is_printed_even_if_it_cannot_be_recorded(tampered: str, balance: int) -> None:
    before = LedgerCheck.objects.count()
    with psycopg.connect(cluster.url("postgres")) as database:
        database.execute("UPDATE wallet SET balance = %s WHERE id = %s", [balance, tampered])
    output, errors = StringIO(), StringIO()
    with nullcontext() if balance == 7 else pytest.raises(CommandError, match="1 differences"):
        call_command("verify_ledger", stdout=output, stderr=errors)
    assert ("every balance equals its ledger" in output.getvalue()) == (balance == 7)
    assert errors.getvalue() == (
        "this check could not be recorded: permission denied for table ledger_check\n"
    )
    assert LedgerCheck.objects.count() == before


@pytest.fixture
def tampered(api: Api) -> Iterator[str]:
    """Yield a wallet for a superuser of the database to change; delete it afterwards."""
    wallet_id = api.open(deposit="10")
    api.withdraw(wallet_id, "3")
    yield wallet_id
    with psycopg.connect(cluster.url("postgres")) as database:
        for table in ("operation", "wallet_change"):
            database.execute(f"DELETE FROM {table} WHERE wallet_id = %s", [wallet_id])
        database.execute("DELETE FROM wallet WHERE id = %s", [wallet_id])


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE wallet SET balance = 8 WHERE id = %s", "balance 8.0000, the ledger says 7.0000"),
        ("UPDATE wallet SET sequence = 3 WHERE id = %s", "sequence 3, the ledger says 2"),
        ("UPDATE wallet SET held = 1 WHERE id = %s", "held 1.0000, active holds say 0"),
        (
            "DELETE FROM operation WHERE wallet_id = %s AND sequence = 2",
            "balance 7.0000, the ledger says 10.0000",
        ),
        ("DELETE FROM operation WHERE wallet_id = %s AND sequence = 1", "operation 2: sequence 2, not 1"),
        ("DELETE FROM operation WHERE wallet_id = %s", "balance 7.0000, the ledger says 0"),
        (
            "UPDATE operation SET amount = 4 WHERE wallet_id = %s AND sequence = 2",
            "operation 2: balance 7.0000, not 6.0000",
        ),
        (
            "UPDATE operation SET balance_after = 9 WHERE wallet_id = %s AND sequence = 1",
            "operation 1: balance 9.0000, not 10.0000",
        ),
        (
            "UPDATE operation SET type = 'WITHDRAW' WHERE wallet_id = %s AND sequence = 1",
            "operation 1: balance 10.0000, not -10.0000",
        ),
        (
            "UPDATE operation SET created_at = 'epoch' WHERE wallet_id = %s AND sequence = 2",
            "operation 2: sequence 2, not 1",
        ),
    ],
)
def test_verify_ledger_names_each_difference(tampered: str, statement: str, finding: str) -> None:
    with psycopg.connect(cluster.url("postgres")) as database:
        database.execute(statement, [tampered])
    output = StringIO()
    with pytest.raises(CommandError) as error:
        call_command("verify_ledger", "--wallet", tampered, stdout=output)
    assert error.value.returncode == 1
    assert finding in output.getvalue()
    assert all(line.startswith(tampered) for line in output.getvalue().splitlines())


@pytest.fixture
def related_wallets(api: Api) -> Iterator[tuple[str, str]]:
    """Yield two wallets with all types of operations, for a superuser of the database to change."""
    one, other = api.open(deposit="100"), api.open(deposit="100")
    api.transfer(one, other, "10", description="transfer")
    api.capture(api.hold(one, "20", description="captured").json["id"], "15")
    api.void(api.hold(one, "30", description="voided").json["id"])
    api.hold(one, "5", description="active", expiresAt="2100-01-01T00:00:00Z")
    api.reverse(api.deposit(one, "7", description="deposit").json["id"], "4")
    assert "2 wallets verified" in run("verify_ledger", "--wallet", one, "--wallet", other)
    yield one, other
    with superuser() as database:
        for table in ("operation", "hold", "wallet_change"):
            database.execute(f"DELETE FROM {table} WHERE wallet_id IN (%s, %s)", [one, other])
        database.execute("DELETE FROM wallet WHERE id IN (%s, %s)", [one, other])


OF_ONE = "wallet_id = %(one)s AND"


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE wallet SET held = 4 WHERE id = %(one)s", "held 4.0000, active holds say 5.0000"),
        (
            "UPDATE wallet SET next_expiry_at = NULL WHERE id = %(one)s",
            "expires at 2100-01-01 00:00:00+00, the wallet looks first at",
        ),
        (
            "UPDATE wallet SET next_expiry_at = '2101-01-01' WHERE id = %(one)s",
            "expires at 2100-01-01 00:00:00+00, the wallet looks first at 2101-01-01 00:00:00+00",
        ),
        ("DELETE FROM operation WHERE wallet_id = %(other)s AND type = 'TRANSFER_IN'", "has no counterpart"),
        (
            "UPDATE operation SET amount = 11 WHERE type = 'TRANSFER_IN' AND wallet_id = %(other)s",
            "no counterpart",
        ),
        (
            f"UPDATE operation SET transfer_id = gen_random_uuid() WHERE {OF_ONE} type = 'TRANSFER_OUT'",
            "has no counterpart",
        ),
        (
            f"UPDATE operation SET counterparty_id = gen_random_uuid() WHERE {OF_ONE} type = 'TRANSFER_OUT'",
            "has no counterpart",
        ),
        (
            f"UPDATE operation SET type = 'TRANSFER_IN' WHERE {OF_ONE} type = 'TRANSFER_OUT'",
            "has no counterpart",
        ),
        (
            "UPDATE operation SET created_at = now() WHERE type = 'TRANSFER_IN' AND wallet_id = %(other)s",
            "has no counterpart",
        ),
        (
            f"UPDATE hold SET captured_amount = 14 WHERE {OF_ONE} status = 'CAPTURED'",
            "is CAPTURED, the ledger says HOLD 20.0000, CAPTURE 15.0000",
        ),
        (
            f"UPDATE hold SET amount = 21 WHERE {OF_ONE} status = 'CAPTURED'",
            "is CAPTURED, the ledger says HOLD 20.0000, CAPTURE 15.0000",
        ),
        (
            f"UPDATE hold SET status = 'ACTIVE', ended_at = NULL WHERE {OF_ONE} status = 'VOIDED'",
            "is ACTIVE, the ledger says HOLD 30.0000, VOID 30.0000",
        ),
        (
            f"UPDATE hold SET status = 'VOIDED', ended_at = now() WHERE {OF_ONE} status = 'ACTIVE'",
            "is VOIDED, the ledger says HOLD 5.0000",
        ),
        (
            f"DELETE FROM operation WHERE {OF_ONE} type = 'VOID'",
            "is VOIDED, the ledger says HOLD 30.0000",
        ),
        (
            f"DELETE FROM operation WHERE {OF_ONE} description = 'active'",
            "is ACTIVE, the ledger says nothing",
        ),
        (f"DELETE FROM hold WHERE {OF_ONE} description = 'active'", "but there is none"),
        (f"DELETE FROM hold WHERE {OF_ONE} description = 'captured'", "CAPTURE"),
        (
            f"UPDATE operation SET amount = 3 WHERE {OF_ONE} type = 'DEPOSIT' AND description = 'deposit'",
            "of 3.0000 was reversed by 4.0000",
        ),
        (
            f"UPDATE operation SET status = 'REJECTED', reason = 'x', sequence = NULL, balance_after = NULL"
            f" WHERE {OF_ONE} type = 'DEPOSIT' AND description = 'deposit'",
            "of 7.0000 was reversed by 4.0000",
        ),
        (
            f"UPDATE operation SET reverses_id = wallet_id WHERE {OF_ONE} type = 'REVERSAL_OUT'",
            "but there is none",
        ),
    ],
)
def test_verify_ledger_names_differences_between_operations_and_holds(
    related_wallets: tuple[str, str], statement: str, finding: str
) -> None:
    one, other = related_wallets
    with superuser() as database:
        changed = database.execute(statement, {"one": one, "other": other})
        assert changed.rowcount == 1
    output = StringIO()
    with pytest.raises(CommandError) as error:
        call_command("verify_ledger", "--wallet", one, "--wallet", other, stdout=output)
    assert error.value.returncode == 1
    assert finding in output.getvalue()


def test_wait_for_db_returns_if_the_schema_exists() -> None:
    assert run("wait_for_db", "--timeout", "0") == ""


def test_wait_for_db_prints_the_reason_once_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "EXPECTED_TAG", "v999")
    stderr = StringIO()
    with pytest.raises(CommandError, match="needs v999") as error:
        call_command("wait_for_db", "--timeout", "1", stderr=stderr)
    assert error.value.returncode == 1
    assert stderr.getvalue().count("needs v999") == 1


@pytest.mark.slow
def test_verify_ledger_shows_progress_in_a_terminal(api: Api) -> None:
    wallet = api.open(deposit="1")
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with open(controller, "rb", buffering=0) as screen, open(terminal, "wb") as stderr:
        command = [sys.executable, "manage.py", "verify_ledger", "--wallet", wallet]
        subprocess.run(command, stderr=stderr, check=True)
        assert b" operations/s]" in screen.read(65536)


@pytest.mark.parametrize("command", ["verify_ledger", "ledger_report"])
@pytest.mark.slow
def test_unavailable_database_is_one_line_and_exit_code_2(command: str) -> None:
    unavailable = cluster.url().replace(f":{cluster.port}/", f":{free_port()}/")
    result = subprocess.run(
        [sys.executable, "manage.py", command],
        env=os.environ | {"DATABASE_URL": unavailable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("CommandError: database error: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["create_wallet", "--currency", "RUR!"],
        ["create_wallet", "--id", "x"],
        ["create_wallet", "--deposit", "-1"],
        ["create_wallet", "--deposit", "1e3"],
        ["create_wallet", "--deposit", "0.001"],
        ["create_wallet", "--count", "0"],
        ["create_wallet", "--count", "many"],
        ["create_wallet", "--count", "2", "--id", UNKNOWN_ID],
        ["create_wallet", "--label", "x" * 201],
        ["create_wallet", "--nonsense"],
        ["show_wallet"],
        ["show_wallet", "x"],
        ["show_wallet", UNKNOWN_ID],
        ["verify_ledger", "--wallet", UNKNOWN_ID],
        ["verify_ledger", "--batch", "0"],
        ["verify_ledger", "--batch", "9223372036854775808"],
        ["ledger_report", "--since", "yesterday"],
        ["ledger_report", "--since", "32d"],
        ["process_inbox", "--batch", "0"],
        ["process_inbox", "--status", "--until-empty"],
        ["create_api_key", "--name", "x", "--scope", "everything"],
        ["create_api_key", "--name", "x", "--scope", "admin", "--restricted"],
        ["revoke_api_key", "x"],
        ["wait_for_db", "--timeout", "-1"],
        ["wait_for_db", "--timeout", "soon"],
    ],
    ids=" ".join,
)
def test_wrong_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    before = Wallet.objects.count()
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1
    assert Wallet.objects.count() == before


def test_manage_py_returns_the_exit_code_of_its_command() -> None:
    done = subprocess.run([sys.executable, "manage.py", "show_wallet", "x"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.splitlines()) == 1
