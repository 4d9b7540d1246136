"""`make loadtest`: runs Locust without its web page, judges the responses, and verifies the ledger.

PROFILE selects the load, HOST a running service. Without HOST a service is started.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from loadtest import report
from loadtest.answered import AnsweredOperations
from loadtest.profiles import DEFAULT, PROFILES, Profile
from loadtest.servers import SERVICE, running, scratch_cluster
from loadtest.verdict import Answers, differences, fetch_wallets, verdict
from local import ROOT, STATE, LocalError
from local.files import plain_errors
from local.processes import ending_with_parent
from local.service import environment, manage

FOLDER = STATE / "loadtest"
STOP_TIMEOUT_SECONDS = 60  # Locust waits so long for the last responses, which must be counted
MAX_SHOWN_DIFFERENCES = 10


def main() -> None:
    options = parse(sys.argv[1:])
    try:
        with plain_errors(), ExitStack() as stack:
            is_well = run(options, stack)
    except LocalError as error:
        sys.exit(f"loadtest: {error}")
    except KeyboardInterrupt:
        sys.exit("loadtest: stopped")
    sys.exit(not is_well)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest", description=__doc__)
    parser.add_argument("--profile", choices=list(PROFILES), default=os.environ.get("PROFILE") or DEFAULT)
    parser.add_argument("--host", default=os.environ.get("HOST"), help="such as http://127.0.0.1:8000")
    options = parser.parse_args(arguments)
    if options.profile not in PROFILES:  # argparse does not check the default
        parser.error(f"unknown profile {options.profile}: choose from {', '.join(PROFILES)}")
    return options


def run(options: argparse.Namespace, stack: ExitStack) -> bool:
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="walletsvc-loadtest-")))
    html = FOLDER / f"{options.profile}-{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}.html"
    profile = PROFILES[options.profile]
    host, env = (running_service(options.host), None) if options.host else start_service(stack)
    print(f"{options.profile}: {profile.requests:,} requests in {profile.seconds} s to {host}", flush=True)
    load(host, options.profile, html, results)
    is_well = judge(profile, Answers.load(results / "answers.json"))
    is_well &= audit(host, AnsweredOperations.load(results.glob("answered-*.json")))
    if env:
        print(manage(env, "verify_ledger").strip())  # raises LocalError if the ledger has a difference
    print(f"Report: {html}")
    return is_well


def running_service(host: str) -> str:
    host = host.rstrip("/")
    try:
        urllib.request.urlopen(f"{host}/readyz", timeout=10).close()  # noqa: S310
    except (OSError, ValueError) as error:
        raise LocalError(f"no service is ready at {host}: {error}") from error
    return host


def start_service(stack: ExitStack) -> tuple[str, dict[str, str]]:
    """Start a service. Return its URL, and the environment for its manage.py commands."""
    print("Starting a database and the service", flush=True)
    cluster = stack.enter_context(scratch_cluster(FOLDER / "postgres"))
    server = stack.enter_context(running(SERVICE, cluster.url()))
    return server.url, environment(cluster.url(), server.address)


def load(host: str, profile: str, html: Path, results: Path) -> None:
    locust = [
        *(sys.executable, "-m", "locust", "--locustfile", "loadtest/locustfile.py", "--headless"),
        *("--load", profile, "--profile", profile, "--host", host, "--only-summary", "--loglevel", "WARNING"),
        *("--html", str(html), "--json-file", str(results / "answers"), "--answered", str(results)),
        *("--stop-timeout", str(STOP_TIMEOUT_SECONDS), "--exit-code-on-error", "0"),
    ]
    done = subprocess.run(ending_with_parent(locust), cwd=ROOT, check=False)  # noqa: S603
    if done.returncode:
        raise LocalError(f"Locust failed with exit code {done.returncode}; see its output above")


def judge(profile: Profile, answers: Answers) -> bool:
    checks = verdict(profile, answers)
    print(f"\n{report.table(report.CHECK_HEAD, [report.check_row(check) for check in checks])}\n")
    return all(check.is_met for check in checks)


def audit(host: str, answered: AnsweredOperations) -> bool:
    """Compare the answered operations with the stored ones, by number and sum, in each wallet of the run."""
    found = list(differences(answered, fetch_wallets(host, set(answered.operations))))
    for difference in found[:MAX_SHOWN_DIFFERENCES]:
        print(difference)
    count = sum(answered.operations.values())
    outcome = (
        f"{len(found)} DIFFERENCES from the stored operations"
        if found
        else "as many are stored, with equal sums"
    )
    print(f"{count:,} operations answered in {len(answered.operations):,} wallets: {outcome}")
    return not found


if __name__ == "__main__":
    main()
