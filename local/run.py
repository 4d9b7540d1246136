"""`make run`: starts a database, the changelogs and the service in the foreground, until a signal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import FrameType

from local import STATE, LocalError, database
from local.files import plain_errors
from local.postgres import Cluster
from local.service import Address, InboxProcess, RelayProcess, Service, environment
from local.steps import step

START_TIMEOUT_SECONDS = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Processes = Mapping[str, "subprocess.Popen[bytes] | None"]


class Stopped(BaseException):
    """A signal asked the supervisor to stop."""


def main() -> None:
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # not under nohup
            signal.signal(number, on_signal)
    try:
        with plain_errors(), ExitStack() as stack:
            try:
                serve(stack)
            except Stopped:
                print("\nStopping", flush=True)
                raise
    except Stopped:
        print("Stopped.", flush=True)
    except LocalError as error:
        sys.exit(f"walletsvc: {error}")


def on_signal(_number: int, _frame: FrameType | None) -> None:
    for number in SIGNALS:  # a second Ctrl-C must not interrupt the shutdown
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


def serve(stack: ExitStack) -> None:
    address = Address.from_environment()
    processes: dict[str, subprocess.Popen[bytes] | None] = {}
    cluster: Cluster | None = None
    sources: str | None = None
    if url := os.environ.get("DATABASE_URL"):
        address.require_free()
        env = environment(url, address)
        database.update_external(env)
    else:
        cluster = start_cluster(stack, address)
        processes["PostgreSQL"] = cluster.process
        env = environment(cluster.url(), address)
        sources = database.update_embedded(cluster)
    env.setdefault("LOG_LEVEL", "WARNING")  # so that the steps stay readable
    service = Service(address, env)
    stack.callback(service.stop)
    processes["the service"] = service.process
    # In parallel with the start of the service.
    wallet = database.seed(env, permissions=cluster is None or sources is not None)
    if cluster and sources:
        database.mark_current(cluster, sources)
    with step("Service"):
        watch(processes, until=service.is_ready, timeout_seconds=START_TIMEOUT_SECONDS)
    # Only now: their imports would compete for CPU with the start of the service.
    for name, process in (("the inbox", InboxProcess(env)), ("the relay", RelayProcess(env))):
        stack.callback(process.stop)
        processes[name] = process.process
    print(banner(f"http://{address.reachable}", wallet), flush=True)
    watch(processes)


def start_cluster(stack: ExitStack, address: Address) -> Cluster:
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # they are meant for another server
    cluster = Cluster(STATE / "postgres")
    cluster.claim()
    address.require_free()
    with step("PostgreSQL 18, with its data in .local/postgres"):
        if not cluster.data.exists():
            cluster.create()
        stack.callback(cluster.stop)
        cluster.start()
    return cluster


def watch(
    processes: Processes, until: Callable[[], bool] = lambda: False, timeout_seconds: float = float("inf")
) -> None:
    """Wait until the condition holds. Raises LocalError if a process ends, or after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not until():
        for name, process in processes.items():
            if process and process.poll() is not None:
                raise LocalError(f"{name} ended unexpectedly ({outcome(process.returncode)})")
        if time.monotonic() > deadline:
            raise LocalError(f"the service is not ready after {timeout_seconds:.0f} s")
        time.sleep(0.1)


def outcome(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def banner(url: str, wallet: str) -> str:
    wallets = f"{url}/api/v1/wallets"
    deposit = """-H 'Content-Type: application/json' -d '{"operationType":"DEPOSIT","amount":"10"}'"""
    return f"""
  wallet  {url}/   (sign up to get one)
  API     {wallets}
  docs    {url}/api/docs
  admin   {url}/admin/

Mails, such as the link that verifies an e-mail address, are printed here.

Try it on the demo wallet:

  curl {wallets}/{wallet}/operation {deposit}
  curl {wallets}/{wallet}
  curl {wallets}/{wallet}/operations

Ctrl-C stops everything; the data is kept.
"""


if __name__ == "__main__":
    main()
