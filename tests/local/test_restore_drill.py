"""The restore drill restores to the recovery point, and fails on a restore to another point."""

import sys
from pathlib import Path

import pytest

from local import LocalError, drill, template
from local.drill import Drill, RecoveryPoint, compare

pytestmark = pytest.mark.slow

POINT = RecoveryPoint("2026-11-26", answered=frozenset("ab"), sent=frozenset("abc"))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Drill, RecoveryPoint]:
    """A drill after the accident, and its recovery point."""
    damaged = Drill(tmp_path_factory.mktemp("drill"))
    return damaged, damaged.back_up_under_load(operations=40)


@pytest.mark.parametrize("name", ["the time", "the restore point"])
def test_ledger_is_restored_to_the_recovery_point(damaged: tuple[Drill, RecoveryPoint], name: str) -> None:
    subject, point = damaged
    with subject.restored(name, point.targets[name]) as restored:
        drill.check(restored, point)
    assert len(point.answered) >= 80


def test_restore_beyond_the_point_is_detected(damaged: tuple[Drill, RecoveryPoint]) -> None:
    subject, point = damaged
    with subject.restored("the end", {}) as restored:
        drill.require_detected(restored)
        with pytest.raises(LocalError, match=drill.DIFFERENCE_TEXT):
            drill.check(restored, point)


def test_restore_before_the_point_is_detected(damaged: tuple[Drill, RecoveryPoint]) -> None:
    subject, point = damaged
    with (
        subject.restored("the backup alone", {"recovery_target": "immediate"}) as restored,
        pytest.raises(LocalError, match="that were answered before the recovery point are missing"),
    ):
        drill.check(restored, point)


def test_point_beyond_the_log_is_an_error(damaged: tuple[Drill, RecoveryPoint]) -> None:
    subject, _ = damaged
    with (
        pytest.raises(LocalError, match="ended before configured recovery target was reached"),
        subject.restored("tomorrow", {"recovery_target_time": "2100-01-01"}),
    ):
        pass


@pytest.mark.parametrize("found", ["ab", "abc"])
def test_operations_in_flight_at_the_point_are_optional(found: str) -> None:
    compare(set(found), POINT)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("a", "1 operations that were answered before the recovery point are missing"),
        ("abd", "1 operations exist that were sent after"),
    ],
)
def test_missing_and_later_operations_are_errors(found: str, message: str) -> None:
    with pytest.raises(LocalError, match=message):
        compare(set(found), POINT)


def test_failed_drill_exits_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_drill: Drill, _operations: int) -> None:
        raise LocalError("the tape is blank")

    monkeypatch.setattr(Drill, "run", fail)
    monkeypatch.setattr(sys, "argv", ["drill"])
    with pytest.raises(SystemExit, match="restore-drill: the tape is blank"):
        drill.main()


def test_undamaged_ledger_is_an_error(tmp_path: Path) -> None:
    with template.copy(tmp_path / "cluster") as cluster, pytest.raises(LocalError, match="not detected"):
        drill.require_detected(cluster)
