"""manage.py ledger_report: what the ledger did lately, in figures."""

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import orjson
from django.core.management.base import CommandParser

from wallets import money, report
from wallets.contract.fields import format_time
from wallets.management.arguments import Command as Base
from wallets.report import BusyWallet, Report

_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])", re.ASCII)
_NUMBERS: Final = {"count", "amount", "operations", "volume", "lagSeconds", "parked", "dead"}
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class Command(Base):
    help = (
        "Show what the ledger did lately: volume, refusals, the busiest wallets, what waits, the last check."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", type=span, default="24h", help="90m, 24h or 7d, at most 31d (default: %(default)s)"
        )
        parser.add_argument("--json", action="store_true", help="for programs; amounts are strings")

    def handle(self, **options: Any) -> None:
        made = report.make(report.last(options["since"]))
        if options["json"]:
            self.stdout.write(orjson.dumps(body(made), option=orjson.OPT_INDENT_2).decode())
        else:
            self.stdout.write("\n".join(lines(made)))


def span(text: str) -> timedelta:
    written = _SPAN.fullmatch(text)
    if not written:
        raise ArgumentTypeError("write it as 90m, 24h or 7d")
    found = int(written[1]) * _UNITS[written[2]]
    if found > report.MAX_PERIOD:
        raise ArgumentTypeError(f"at most {report.MAX_PERIOD.days}d")
    return found


# --- For programs -----------------------------------------------------------------------------------
def body(made: Report) -> dict[str, Any]:
    return {
        "from": format_time(made.period.since),
        "to": format_time(made.period.until),
        "isEstimate": made.is_estimate,
        "leftOut": made.left_out,
        "completed": sum(made.movements.steps) if made.movements else None,
        "rejected": sum(made.refusals.steps) if made.refusals else None,
        "volume": _volume_body(made),
        "refusals": _refusals_body(made),
        "hotWallets": [_busy_body(wallet) for wallet in made.busiest.hot] if made.busiest else None,
        "topWallets": [_busy_body(wallet) for wallet in made.busiest.top] if made.busiest else None,
        "inbox": _inbox_body(made),
        "subscribers": _subscribers_body(made),
        "lastCheck": _check_body(made),
    }


def _volume_body(made: Report) -> list[dict[str, Any]] | None:
    if made.movements is None:
        return None
    return [
        {
            "currency": volume.currency,
            "operationType": volume.type,
            "count": volume.count,
            "amount": money.format_amount(volume.amount, volume.currency),
        }
        for volume in made.movements.volumes
    ]


def _refusals_body(made: Report) -> list[dict[str, Any]] | None:
    if made.refusals is None:
        return None
    return [{"reason": reason, "count": count} for reason, count in made.refusals.reasons]


def _busy_body(wallet: BusyWallet) -> dict[str, Any]:
    return {
        "walletId": wallet.id,
        "label": wallet.label,
        "currency": wallet.currency,
        "operations": wallet.operations,
        "volume": money.format_amount(wallet.volume, wallet.currency),
    }


def _inbox_body(made: Report) -> dict[str, Any] | None:
    if made.inbox is None:
        return None
    oldest = made.inbox.oldest
    return {
        "entries": made.inbox.entries,
        "oldestSeconds": oldest.total_seconds() if oldest else None,
        "setAside": made.inbox.set_aside,
    }


def _subscribers_body(made: Report) -> list[dict[str, Any]] | None:
    if made.subscribers is None:
        return None
    return [
        {
            "name": standing.name,
            "isEnabled": standing.is_enabled,
            "lagSeconds": standing.lag,
            "parked": standing.parked,
            "dead": standing.dead,
        }
        for standing in made.subscribers
    ]


def _check_body(made: Report) -> dict[str, Any] | None:
    check = made.last_check
    if check is None:
        return None
    return {
        "beganAt": format_time(check.began_at),
        "endedAt": format_time(check.ended_at),
        "wallets": check.wallets,
        "differences": check.differences,
    }


# --- For people -------------------------------------------------------------------------------------
def lines(made: Report) -> list[str]:
    told = body(made)
    return [
        f"The ledger from {told['from']} to {told['to']}",
        *_remarks(made),
        "",
        f"completed          {_figure(told['completed'])}",
        f"rejected           {_figure(told['rejected'])}",
        f"inbox              {_inbox_line(told['inbox'])}",
        f"last verification  {_check_line(made)}",
        *_table("volume", told["volume"]),
        *_table("refusals", told["refusals"]),
        *_table("hot wallets, by operations", told["hotWallets"]),
        *_table("top wallets, by volume", told["topWallets"]),
        *_table("subscribers", told["subscribers"]),
    ]


def _remarks(made: Report) -> list[str]:
    estimate = (
        f"More than {report.MAX_READ_OPERATIONS:,} operations: the figures are estimated from a sample."
    )
    left_out = f"Left out, because it took too long: {', '.join(made.left_out)}."
    return [estimate] * made.is_estimate + [left_out] * bool(made.left_out)


def _figure(count: int | None) -> str:
    return "left out" if count is None else f"{count:,}"


def _inbox_line(told: dict[str, Any] | None) -> str:
    if told is None:
        return "left out"
    return f"{told['entries']:,}" + (
        (f", the oldest for {told['oldestSeconds']:.1f} s" if told["entries"] else "")
        + (f"; {told['setAside']:,} set aside" if told["setAside"] else "")
    )


def _check_line(made: Report) -> str:
    if report.LAST_CHECK in made.left_out:
        return "left out"
    if made.last_check is None:
        return "never"
    return f"{format_time(made.last_check.ended_at)}, {made.last_check}"


def _table(title: str, rows: Sequence[dict[str, Any]] | None) -> list[str]:
    """With numbers on the right; none where there is nothing."""
    if not rows:
        return []
    table = [[re.sub("[A-Z]", r" \g<0>", name).lower() for name in rows[0]]]
    table += [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    on_right = [name in _NUMBERS for name in rows[0]]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, on_right, strict=True)
        ).rstrip()
        for line in table
    ]
    return ["", title.upper(), *lines]


def _cell(value: Any) -> str:
    """Escape a text of a client, which may contain control sequences of terminals."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)
