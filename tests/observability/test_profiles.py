"""A running worker shows what it spends its time with."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import running_master
from tests.support.client import Api, OverHttp
from tests.support.faults.database import children
from wallets.management.commands.profile_worker import workers
from wallets.observability.profiles import IDLE, flame_graph, folder_of

OF_AN_OPERATION = {
    "walletsvc.worker.Worker.handle_request",
    "wallets.api.operations.WalletOperation.post",
    "wallets.ledger.committer.Committer.run",
}
SVG = "{http://www.w3.org/2000/svg}"


def profile(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "manage.py", "profile_worker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@contextmanager
def service_with_worker() -> Iterator[tuple[str, int]]:
    with running_master(WORKERS="1") as (address, master):
        [worker] = children(master)
        yield address, worker


@contextmanager
def busy(address: str) -> Iterator[None]:
    is_over = threading.Event()

    def send() -> None:
        sender = OverHttp(address)
        with closing(sender.connection):
            api = Api(sender)
            wallet = api.open()
            while not is_over.is_set():
                assert api.deposit(wallet, "1").status == 201

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, int]]:
    with service_with_worker() as found:
        yield found


def shares(svg: str) -> dict[str, float]:
    """The largest share of each name, in percent."""
    titles = [str(title.text) for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]  # noqa: S314
    found: dict[str, float] = {}
    for title in titles:
        match = re.fullmatch(r"(.+): ([0-9.]+)% \(\d+\)", title)
        assert match, title
        found[match[1]] = max(found.get(match[1], 0), float(match[2]))
    return found


def test_a_busy_worker_names_our_functions_and_goes_on(running: tuple[str, int], tmp_path: Path) -> None:
    address, worker = running
    file, found = tmp_path / "flame.svg", set[str]()
    with busy(address):
        for _ in range(20):  # a sample sees what it sees: on a machine that has much to do, little
            done = profile("--pid", str(worker), "--seconds", "2", "--output", str(file))
            assert done.returncode == 0, done.stderr
            found |= set(shares(file.read_text()))
            if found >= OF_AN_OPERATION:
                break
    assert found >= OF_AN_OPERATION
    assert worker in workers()
    assert not folder_of(worker).exists()


def test_a_worker_with_nothing_to_do_idles(running: tuple[str, int]) -> None:
    done = profile("--pid", str(running[1]), "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert shares(done.stdout)[IDLE] > 50


def test_what_is_no_worker_of_ours_is_left_alone(running: tuple[str, int]) -> None:
    for pid in (os.getpid(), parent_of(running[1]), 1):
        done = profile("--pid", str(pid), "--seconds", "1")
        assert (done.returncode, done.stdout) == (2, "")
        assert "that is no worker of this user's" in done.stderr
    assert running[1] in workers()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_one_watches_at_a_time(running: tuple[str, int]) -> None:
    folder = folder_of(running[1])
    folder.mkdir()
    try:
        done = profile("--pid", str(running[1]), "--seconds", "1")
    finally:
        folder.rmdir()
    assert done.returncode == 2
    assert f"worker {running[1]} is being watched already" in done.stderr


def test_a_signal_without_a_question_does_nothing(running: tuple[str, int]) -> None:
    os.kill(running[1], signal.SIGPROF)
    done = profile("--pid", str(running[1]), "--seconds", "1")
    assert done.returncode == 0


@pytest.mark.parametrize("seconds", ["0", "601", "x", "-1"])
def test_the_time_is_bounded(seconds: str) -> None:
    done = profile(f"--seconds={seconds}")
    assert done.returncode == 2
    assert "must be 1 to 600" in done.stderr


def test_the_picture_is_as_wide_as_the_shares_and_escapes_names() -> None:
    seen = Counter({("a", "b<lambda>"): 3, ("a",): 1, (IDLE,): 4})
    assert shares(flame_graph(seen, "t")) == {"a": 50.0, "b<lambda>": 37.5, IDLE: 50.0}
    assert "<script" not in flame_graph(seen, "t")


def test_no_samples_are_a_picture_too() -> None:
    assert shares(flame_graph(Counter(), "t")) == {}
