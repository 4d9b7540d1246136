"""A campaign: every fault is felt and mended, a round decides, and a seed makes the same choices again."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from unittest import mock

import orjson
import pytest

from local import LocalError
from tests.support.campaign import faults, report, rounds
from tests.support.campaign.adversary import SequentialAdversary, plan, plan_each
from tests.support.campaign.faults import FAULTS, Fault
from tests.support.campaign.rounds import Size
from tests.support.campaign.system import System
from tests.support.client import Api, OverHttp

SMALL = Size(seconds=4, rate=60, clients=10)
POSSIBLE = [fault for fault in FAULTS.values() if fault.is_possible()]


@pytest.mark.slow
def test_system_recovers_from_each_fault_under_load() -> None:
    """Each possible fault once, one after the other; the checker decides at the end."""
    result = rounds.run_each(2, SMALL, check_recovery)
    assert result.violations == [], report.of_round(result)
    assert [each.name for each in result.happened] == [fault.name for fault in POSSIBLE]
    assert result.operations > 0


def check_recovery(system: System) -> None:
    """The service answers and moves money, and no relay or inbox worker has ended by itself."""
    host, port = system.address
    sender = OverHttp(f"http://{host}:{port}")
    with closing(sender.connection):
        api = Api(sender)
        wallet = api.open(deposit="1")
        assert api.balance(wallet) == "1.00"
    assert [part.name for part in (system.relay, *system.inboxes) if part.deaths] == []


def test_a_seed_makes_the_same_choices_again() -> None:
    assert plan(7, 50) == plan(7, 50) != plan(8, 50)
    assert {each.fault.name for seed in range(50) for each in plan(seed, 50)} == {
        fault.name for fault in POSSIBLE
    }


def test_fault_without_recovery_is_named_and_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    planted: dict[str, Fault] = {}
    monkeypatch.setattr("tests.support.campaign.faults.FAULTS", planted)
    monkeypatch.setattr("tests.support.campaign.adversary.FAULTS", planted)

    for name in ("first", "second", "third"):
        planted[name] = Fault(name, "database", (0, 0), lambda *_: nullcontext("nothing"), lambda: True)
    check_recovery = mock.Mock(side_effect=[None, AssertionError("no answer")])
    system = mock.create_autospec(System, instance=True)
    adversary = SequentialAdversary(system, plan_each(1), check_recovery)
    with pytest.raises(LocalError, match=r"after second: .*no answer"):
        adversary.run()
    assert [each.name for each in adversary.happened] == ["first", "second"]


@pytest.mark.slow
def test_a_short_round_of_the_command_finds_nothing_wrong(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    # This seed chooses six short faults in five lanes, a failover among them.
    options = ["--seed", "555", "--minutes", "0", "--round", "4", "--rate", "60", "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.campaign", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = orjson.loads(figures.read_bytes())
    assert (told["seeds"], told["rounds"], told["violations"]) == ([555], 1, 0)
    assert told["operations"] > 0
    assert sum(told["faults"].values()) == len(plan(555, 4))
    assert "SEED=555" in done.stdout


def books_cooked(system: System, dice: random.Random) -> Iterator[str]:
    yield "a balance is not what its ledger says"
    system.pair.primary.ask("UPDATE wallet SET balance = balance + 1 WHERE id = (SELECT min(id) FROM wallet)")


def asynchronous_failover(system: System, dice: random.Random) -> Iterator[str]:
    system.pair.primary.ask("ALTER SYSTEM SET synchronous_standby_names = ''")
    system.pair.primary.ask("SELECT pg_reload_conf()")
    system.pair.standby.crash()
    yield "what is answered from now on is lost"
    system.pair.primary.lose()
    system.pair.standby.ensure_started()
    system.fail_over(seconds=0)


@pytest.mark.parametrize(
    ("work", "found"), [(books_cooked, "balance"), (asynchronous_failover, "lost: wallet")]
)
@pytest.mark.slow
def test_a_round_that_goes_wrong_says_so_and_is_kept(
    monkeypatch: pytest.MonkeyPatch, work: Callable[..., Iterator[str]], found: str
) -> None:
    planted: dict[str, Fault] = {}
    monkeypatch.setattr("tests.support.campaign.faults.FAULTS", planted)
    monkeypatch.setattr("tests.support.campaign.adversary.FAULTS", planted)
    faults.fault("database", 2)(work)
    result = rounds.run(1, SMALL)
    assert result.kept
    try:
        assert [each.name for each in result.happened] == [work.__name__]
        assert any(found in violation for violation in result.violations), result.violations
        assert (result.kept / "journal").read_text().count("\n") > 10
        assert len(list((result.kept / "kept").iterdir())) == 2
    finally:
        shutil.rmtree(result.kept)
