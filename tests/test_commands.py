"""The manage.py commands: what they print, and one line with exit code 2 for wrong input."""

import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from uuid import UUID, uuid4

import psycopg
import pytest
from django.core.management import CommandError, call_command

from tests.client import Api
from tests.cluster import cluster
from wallets.management.commands import wait_for_db
from wallets.models import Operation, Wallet


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


def test_create_wallet_refuses_an_id_that_is_taken_by_another(api: Api) -> None:
    with pytest.raises(CommandError, match="different request") as error:
        run("create_wallet", "--id", api.open())
    assert error.value.returncode == 2


def test_show_wallet_shows_the_wallet_and_its_newest_operations(api: Api) -> None:
    wallet_id = api.open(deposit="10", label="till 7")
    api.withdraw(wallet_id, "99", description="too much")
    shown = run("show_wallet", wallet_id)
    for text in (wallet_id, "till 7", "10.00", "insufficient_funds", "too much"):
        assert text in shown


def test_verify_ledger_finds_nothing_wrong(api: Api) -> None:
    one, other = api.open(deposit="10"), api.open()
    assert "2 wallets verified" in run("verify_ledger", "--wallet", one, "--wallet", other)
    assert "every balance equals its ledger" in run("verify_ledger", "--batch", "3")


@pytest.fixture
def tampered(api: Api) -> Iterator[str]:
    """A wallet that somebody with all rights has changed by hand."""
    wallet_id = api.open(deposit="10")
    api.withdraw(wallet_id, "3")
    yield wallet_id
    with psycopg.connect(cluster.url("postgres")) as database:
        database.execute("DELETE FROM operation WHERE wallet_id = %s", [wallet_id])
        database.execute("DELETE FROM wallet WHERE id = %s", [wallet_id])


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE wallet SET balance = 8 WHERE id = %s", "balance 8.0000, the ledger says 7.0000"),
        ("UPDATE wallet SET sequence = 3 WHERE id = %s", "sequence 3, the ledger says 2"),
        ("UPDATE wallet SET held = 1 WHERE id = %s", "held 1.0000, but nothing holds"),
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
            "before its predecessor",
        ),
    ],
)
def test_verify_ledger_names_what_differs(tampered: str, statement: str, finding: str) -> None:
    with psycopg.connect(cluster.url("postgres")) as database:
        database.execute(statement, [tampered])
    output = StringIO()
    with pytest.raises(CommandError) as error:
        call_command("verify_ledger", "--wallet", tampered, stdout=output)
    assert error.value.returncode == 1
    assert finding in output.getvalue()
    assert all(line.startswith(tampered) for line in output.getvalue().splitlines())


def test_wait_for_db_returns_when_the_schema_is_there() -> None:
    assert run("wait_for_db", "--timeout", "0") == ""


def test_wait_for_db_gives_up_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_for_db, "EXPECTED_TAG", "v999")
    with pytest.raises(CommandError, match="not at v999") as error:
        run("wait_for_db", "--timeout", "0.1")
    assert error.value.returncode == 1


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
        ["create_wallet", "--count", "2", "--id", str(uuid4())],
        ["create_wallet", "--label", "x" * 201],
        ["create_wallet", "--nonsense"],
        ["show_wallet"],
        ["show_wallet", "x"],
        ["show_wallet", str(uuid4())],
        ["verify_ledger", "--wallet", str(uuid4())],
        ["verify_ledger", "--batch", "0"],
        ["wait_for_db", "--timeout", "-1"],
        ["wait_for_db", "--timeout", "soon"],
    ],
    ids=" ".join,
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    before = Wallet.objects.count()
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert Wallet.objects.count() == before
