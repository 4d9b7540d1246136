"""The machine of a measurement, its load, and the CPU time and memory of processes."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg

from local import ROOT


def describe(database_url: str) -> dict[str, Any]:
    return {
        "cpu": _named("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(_named("/proc/meminfo", "MemTotal").split()[0]) / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
        **_database(database_url),
    }


def one_line(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']} GB, "
        f"Linux {machine['kernel']}; "
        f"PostgreSQL {machine['postgresql']}, fsync {machine['fsync']}, synchronous_commit "
        f"{machine['synchronous_commit']}, wal_sync_method {machine['wal_sync_method']}, "
        f"one commit {machine['commit_ms']} ms; Python {machine['python']}; "
        f"commit {machine['commit']}"
    )


def cpu_usage(seconds: float = 0.5) -> float:
    """Return the share of CPU time in use, over `seconds`. Between two rows this is the work of others."""
    before = _jiffies()
    time.sleep(seconds)
    total, idle = (after - first for after, first in zip(_jiffies(), before, strict=True))
    return 1 - idle / total


def _jiffies() -> tuple[int, int]:
    """Return all jiffies, and the idle ones. Order: user, nice, system, idle, iowait, irq, softirq, steal."""
    counted = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(counted), counted[3] + counted[4]


def _database(url: str) -> dict[str, Any]:
    names = ("server_version", "fsync", "synchronous_commit", "wal_sync_method", "shared_buffers")
    with psycopg.connect(url, autocommit=True) as db:
        shown = {name: db.execute(f"SHOW {name}").fetchone()[0] for name in names}  # type: ignore[index]
        db.execute("CREATE TABLE commit_probe (n int)")
        durations = []
        for n in range(100):
            started = time.perf_counter()
            db.execute("INSERT INTO commit_probe VALUES (%s)", [n])
            durations.append(time.perf_counter() - started)
        db.execute("DROP TABLE commit_probe")
    shown["postgresql"] = shown.pop("server_version")
    return {**shown, "commit_ms": round(statistics.median(durations) * 1000, 2)}


def _named(file: str, name: str) -> str:
    lines = Path(file).read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "unknown")


def _commit() -> str:
    git = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or "unknown"


# --- Processes --------------------------------------------------------------------------------------
def memory(parent: int) -> float:
    """Return the resident megabytes of the largest child process."""
    pages = [int((child / "statm").read_text().split()[1]) for child in _children(parent)]
    return max(pages) * os.sysconf("SC_PAGE_SIZE") / 1024**2


def cpu_seconds(parent: int) -> float:
    """Return the CPU time of the process and all its children, including those that have ended."""
    own, ended = _cpu(Path(f"/proc/{parent}"))
    return own + ended + sum(_cpu(child)[0] for child in _children(parent))


def _children(parent: int) -> list[Path]:
    processes = (path for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [path for path in processes if _stat(path)[1:2] == [str(parent)]]


def _cpu(process: Path) -> tuple[float, float]:
    ticks = [int(word) for word in _stat(process)[11:15]] or [0] * 4
    second = os.sysconf("SC_CLK_TCK")
    return sum(ticks[:2]) / second, sum(ticks[2:]) / second


def _stat(process: Path) -> list[str]:
    """Return the fields after the name: state, parent and so on. Empty if the process has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
