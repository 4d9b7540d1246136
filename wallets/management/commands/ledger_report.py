"""manage.py ledger_report: figures of the ledger for a recent period."""

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
_NUMERIC_FIELDS: Final = {"count", "amount", "operations", "volume", "lagSeconds", "parked", "dead"}
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class Command(Base):
    help = (
        "Show figures of a recent period: volumes, refusals, busiest wallets, inbox, subscribers,"
        " last verification."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since",
            type=parse_span,
            default="24h",
            help="90m, 24h or 7d, at most 31d (default: %(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON; amounts are strings")

    def handle(self, **options: Any) -> None:
        figures = report.make(report.last_period(options["since"]))
        if options["json"]:
            self.stdout.write(orjson.dumps(body(figures), option=orjson.OPT_INDENT_2).decode())
        else:
            self.stdout.write("\n".join(lines(figures)))


def parse_span(text: str) -> timedelta:
    match = _SPAN.fullmatch(text)
    if not match:
        raise ArgumentTypeError("must have the format 90m, 24h or 7d")
    span = int(match[1]) * _UNITS[match[2]]
    if span > report.MAX_PERIOD:
        raise ArgumentTypeError(f"must be at most {report.MAX_PERIOD.days}d")
    return span


# --- JSON -------------------------------------------------------------------------------------------
def body(figures: Report) -> dict[str, Any]:
    busiest = figures.busiest
    return {
        "from": format_time(figures.period.since),
        "to": format_time(figures.period.until),
        "isEstimate": figures.is_estimate,
        "leftOut": figures.left_out,
        "completed": sum(figures.movements.steps) if figures.movements else None,
        "rejected": sum(figures.refusals.steps) if figures.refusals else None,
        "volume": _volume_body(figures),
        "refusals": _refusals_body(figures),
        "hotWallets": [_busy_body(wallet) for wallet in busiest.by_operations] if busiest else None,
        "topWallets": [_busy_body(wallet) for wallet in busiest.by_volume] if busiest else None,
        "inbox": _inbox_body(figures),
        "subscribers": _subscribers_body(figures),
        "lastCheck": _check_body(figures),
    }


def _volume_body(figures: Report) -> list[dict[str, Any]] | None:
    if figures.movements is None:
        return None
    return [
        {
            "currency": volume.currency,
            "operationType": volume.type,
            "count": volume.count,
            "amount": money.format_amount(volume.amount, volume.currency),
        }
        for volume in figures.movements.volumes
    ]


def _refusals_body(figures: Report) -> list[dict[str, Any]] | None:
    if figures.refusals is None:
        return None
    return [{"reason": reason, "count": count} for reason, count in figures.refusals.reasons]


def _busy_body(wallet: BusyWallet) -> dict[str, Any]:
    return {
        "walletId": wallet.id,
        "label": wallet.label,
        "currency": wallet.currency,
        "operations": wallet.operations,
        "volume": money.format_amount(wallet.volume, wallet.currency),
    }


def _inbox_body(figures: Report) -> dict[str, Any] | None:
    if figures.inbox is None:
        return None
    oldest = figures.inbox.oldest
    return {
        "entries": figures.inbox.entries,
        "oldestSeconds": oldest.total_seconds() if oldest else None,
        "setAside": figures.inbox.set_aside,
    }


def _subscribers_body(figures: Report) -> list[dict[str, Any]] | None:
    if figures.subscribers is None:
        return None
    return [
        {
            "name": state.name,
            "isEnabled": state.is_enabled,
            "lagSeconds": state.lag,
            "parked": state.parked,
            "dead": state.dead,
        }
        for state in figures.subscribers
    ]


def _check_body(figures: Report) -> dict[str, Any] | None:
    check = figures.last_check
    if check is None:
        return None
    return {
        "beganAt": format_time(check.began_at),
        "endedAt": format_time(check.ended_at),
        "wallets": check.wallets,
        "differences": check.differences,
    }


# --- Text -------------------------------------------------------------------------------------------
def lines(figures: Report) -> list[str]:
    data = body(figures)
    return [
        f"The ledger from {data['from']} to {data['to']}",
        *_remarks(figures),
        "",
        f"completed          {_figure(data['completed'])}",
        f"rejected           {_figure(data['rejected'])}",
        f"inbox              {_inbox_line(data['inbox'])}",
        f"last verification  {_check_line(figures)}",
        *_table("volume", data["volume"]),
        *_table("refusals", data["refusals"]),
        *_table("busiest wallets, by operations", data["hotWallets"]),
        *_table("busiest wallets, by volume", data["topWallets"]),
        *_table("subscribers", data["subscribers"]),
    ]


def _remarks(figures: Report) -> list[str]:
    estimate = (
        f"More than {report.MAX_READ_OPERATIONS:,} operations: the figures are estimated from a sample."
    )
    left_out = f"Left out, because it took too long: {', '.join(figures.left_out)}."
    return [estimate] * figures.is_estimate + [left_out] * bool(figures.left_out)


def _figure(count: int | None) -> str:
    return "left out" if count is None else f"{count:,}"


def _inbox_line(data: dict[str, Any] | None) -> str:
    if data is None:
        return "left out"
    return f"{data['entries']:,}" + (
        (f", the oldest for {data['oldestSeconds']:.1f} s" if data["entries"] else "")
        + (f"; {data['setAside']:,} set aside" if data["setAside"] else "")
    )


def _check_line(figures: Report) -> str:
    if report.LAST_CHECK in figures.left_out:
        return "left out"
    if figures.last_check is None:
        return "never"
    return f"{format_time(figures.last_check.ended_at)}, {figures.last_check}"


def _table(title: str, rows: Sequence[dict[str, Any]] | None) -> list[str]:
    """Return the lines of a table with numbers aligned to the right, or no lines if there are no rows."""
    if not rows:
        return []
    table = [[re.sub("[A-Z]", r" \g<0>", name).lower() for name in rows[0]]]
    table += [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    are_numbers = [name in _NUMERIC_FIELDS for name in rows[0]]
    lines = [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, are_numbers, strict=True)
        ).rstrip()
        for line in table
    ]
    return ["", title.upper(), *lines]


def _cell(value: Any) -> str:
    """Replace control characters: a label, which a client chooses, may contain terminal commands."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)
