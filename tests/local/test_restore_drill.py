"""The restore drill: it restores to the moment, and it would notice another one."""

import sys
from pathlib import Path

import pytest

from local import LocalError, drill, template
from local.drill import Drill, RecoveryPoint, compare

pytestmark = pytest.mark.slow

MOMENT = RecoveryPoint("2026-11-26", answered=frozenset("ab"), sent=frozenset("abc"))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Drill, RecoveryPoint]:
    """A backup, a moment, an accident."""
    lived = Drill(tmp_path_factory.mktemp("drill"))
    return lived, lived.live(operations=40)


@pytest.mark.parametrize("name", ["the time", "the restore point"])
def test_the_ledger_is_restored_to_the_moment(lived: tuple[Drill, RecoveryPoint], name: str) -> None:
    drilled, moment = lived
    with drilled.restored(name, moment.targets[name]) as restored:
        drill.check(restored, moment)
    assert len(moment.answered) >= 80


def test_a_restore_that_goes_too_far_has_the_accident(lived: tuple[Drill, RecoveryPoint]) -> None:
    drilled, moment = lived
    with drilled.restored("the end", {}) as restored:
        drill.require_noticed(restored)
        with pytest.raises(LocalError, match=drill.FOUND):
            drill.check(restored, moment)


def test_a_restore_that_stops_too_early_lacks_what_was_answered(lived: tuple[Drill, RecoveryPoint]) -> None:
    drilled, moment = lived
    with (
        drilled.restored("the backup alone", {"recovery_target": "immediate"}) as restored,
        pytest.raises(LocalError, match="that were answered before the moment are missing"),
    ):
        drill.check(restored, moment)


def test_a_moment_that_the_log_does_not_reach_is_an_error(lived: tuple[Drill, RecoveryPoint]) -> None:
    drilled, _ = lived
    with (
        pytest.raises(LocalError, match="ended before configured recovery target was reached"),
        drilled.restored("tomorrow", {"recovery_target_time": "2100-01-01"}),
    ):
        pass


@pytest.mark.parametrize("found", ["ab", "abc"])
def test_what_was_in_flight_at_the_moment_may_be_there_or_not(found: str) -> None:
    compare(set(found), MOMENT)


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ("a", "1 operations that were answered before the moment are missing"),
        ("abd", "1 operations are there"),
    ],
)
def test_what_is_missing_and_what_came_later_is_a_failure(found: str, complaint: str) -> None:
    with pytest.raises(LocalError, match=complaint):
        compare(set(found), MOMENT)


def test_a_drill_that_fails_says_why_and_exits_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_drill: Drill, _operations: int) -> None:
        raise LocalError("the tape is blank")

    monkeypatch.setattr(Drill, "run", fail)
    monkeypatch.setattr(sys, "argv", ["drill"])
    with pytest.raises(SystemExit, match="restore-drill: the tape is blank"):
        drill.main()


def test_a_ledger_without_a_fault_has_no_accident_to_notice(tmp_path: Path) -> None:
    with template.copy(tmp_path / "cluster") as cluster, pytest.raises(LocalError, match="not noticed"):
        drill.require_noticed(cluster)
