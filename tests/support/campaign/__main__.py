"""`make campaign`: repeated rounds of load and faults, until a round fails or the time is over.

All random choices follow from the seed. The first round uses the seed, each further round the next number.
The seed of a failed round reproduces its choices.
"""

import argparse
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import orjson

from local import LocalError
from tests.support.campaign import report, rounds
from tests.support.campaign.faults import FAULTS
from tests.support.campaign.rounds import Result, Size


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: end all started processes
    size = Size(options.round, options.rate, options.clients)
    try:
        results = campaign(options.seed, options.minutes * 60, size, options.fault)
    except LocalError as error:
        sys.exit(f"campaign: {error}")
    except KeyboardInterrupt:
        sys.exit("campaign: stopped")
    print(report.table(results))
    if options.json:
        options.json.write_bytes(orjson.dumps(report.figures(results), option=orjson.OPT_INDENT_2))
    return 1 if results[-1].violations else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    size = {field.name: field.default for field in fields(Size)}
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the first round")
    parser.add_argument(
        "--minutes", type=float, default=10, help="no round begins later (default: %(default)s)"
    )
    parser.add_argument("--round", type=float, default=size["seconds"], help="seconds of faults in each")
    parser.add_argument("--rate", type=float, default=size["rate"], help="requests a second")
    parser.add_argument("--clients", type=int, default=size["clients"], help="that ask for them")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this one (repeatable)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for the figures of the table")
    return parser.parse_args(arguments)


def campaign(seed: int, seconds: float, size: Size, names: Sequence[str] | None) -> list[Result]:
    for fault in FAULTS.values():
        if not fault.is_possible():
            print(f"Left out, as it cannot be done here: {fault.name}", flush=True)
    results: list[Result] = []
    began = time.monotonic()
    while not results or (time.monotonic() - began < seconds and not results[-1].violations):
        print(f"Round {len(results) + 1}, SEED={seed + len(results)}", flush=True)
        results.append(rounds.run(seed + len(results), size, names or ()))
        print(report.of_round(results[-1]), flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
