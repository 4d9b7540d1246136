"""A campaign: every fault is felt and mended, a round decides, and a seed makes the same choices again."""

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.support.campaign import faults, rounds
from tests.support.campaign.adversary import plan
from tests.support.campaign.faults import FAULTS, Fault
from tests.support.campaign.rounds import Size
from tests.support.campaign.system import System
from tests.support.client import Api, OverHttp

SMALL = Size(seconds=4, rate=60, clients=10)
POSSIBLE = [fault for fault in FAULTS.values() if fault.is_possible()]


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with tempfile.TemporaryDirectory(prefix="walletsvc-campaign-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with System(folder) as system:
            yield system


@pytest.mark.parametrize("fault", POSSIBLE, ids=lambda fault: fault.name)
@pytest.mark.slow
def test_after_each_fault_everything_comes_back(system: System, fault: Fault) -> None:
    with fault.work(system, random.Random(1)):  # noqa: S311
        system.look_after()
    system.settle()
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


@pytest.mark.slow
def test_a_short_round_of_the_command_finds_nothing_wrong(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--seed", "3", "--minutes", "0", "--round", "12", "--rate", "100", "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.campaign", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = orjson.loads(figures.read_bytes())
    assert (told["seeds"], told["rounds"], told["violations"]) == ([3], 1, 0)
    assert told["operations"] > 0
    assert sum(told["faults"].values()) == len(plan(3, 12))
    assert "SEED=3" in done.stdout


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
