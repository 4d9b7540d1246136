"""manage.py verify_ledger: recompute hashes, balances and sequences from the ledger."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db import Error, connection
from tqdm import tqdm

from wallets.contract.fields import Id
from wallets.ledger import checkpoints, consistent_read, verify
from wallets.management.arguments import Command as Base
from wallets.management.arguments import argument
from wallets.models import LedgerCheck, Wallet

MAX_WALLETS_PER_QUERY: Final = 100_000

# The estimated number of operations, for the progress bar: from the last ANALYZE, or from the wallets.
_ESTIMATE = """
    SELECT greatest(
        (SELECT reltuples FROM pg_class WHERE oid = 'operation'::regclass),
        (SELECT sum(sequence) FROM wallet)
    )::float8
"""


class Command(Base):
    help = "Recompute every hash, balance and sequence from the ledger; print differences and exit 1, if any."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--wallet", type=argument(Id), action="append", help="verify only this wallet (repeatable)"
        )
        parser.add_argument(
            "--incremental",
            action="store_true",
            help="verify only operations after the last check, which must have found no difference",
        )
        parser.add_argument(
            "--checkpoint",
            type=Path,
            metavar="FILE",
            help="prove that nothing before this checkpoint has changed",
        )
        parser.add_argument(
            "--public-key",
            type=Path,
            metavar="FILE",
            help="Ed25519 public key of the checkpoint's signature (PEM)",
        )
        parser.add_argument(
            "--batch", type=int, default=1000, help="wallets in one query (default: %(default)s)"
        )

    def handle(self, **options: Any) -> None:
        self._refuse_contradictory_options(options)
        comparison = self._comparison(options["checkpoint"], options["public_key"])
        if tables := verify.inconsistent_tables():
            self.refuse(f"{tables}: no plain tables; rules or policies may show other rows to the service")
        began_at, snapshot = verify.now()
        since = self._last_check(snapshot) if options["incremental"] else consistent_read.NOTHING
        total = None if options["wallet"] or options["incremental"] else _estimate()
        wallet_count = difference_count = 0
        with tqdm(
            total=total, unit=" operations", unit_scale=True, file=sys.stderr, disable=None
        ) as progress:
            is_whole = not options["wallet"] and since == consistent_read.NOTHING
            verification = verify.Verification(since, comparison, progress.update, is_whole)
            for batch in self._batches(options, since):
                difference_count += self._print_differences(verification.check(batch))
                wallet_count += len(batch)
            difference_count += self._print_differences(verification.finish())
        operations = verification.operations
        if not options["wallet"]:
            self._record(
                LedgerCheck(
                    began_at=began_at,
                    wallets=wallet_count,
                    operations=operations,
                    differences=difference_count,
                    snapshot=str(snapshot),
                    is_incremental=since != consistent_read.NOTHING,
                )
            )
        scope = f"{operations} operations of {wallet_count} wallets"
        if difference_count:
            raise CommandError(f"{difference_count} differences in {scope}", returncode=1)
        self.stdout.write(f"{scope} verified: every hash chain is intact, every balance equals its ledger")
        if comparison:
            self.stdout.write(
                f"nothing before the checkpoint of {comparison.made_at:%Y-%m-%d %H:%M:%SZ} has changed"
            )

    def _refuse_contradictory_options(self, options: dict[str, Any]) -> None:
        if not 1 <= options["batch"] <= MAX_WALLETS_PER_QUERY:
            self.refuse(f"--batch must be between 1 and {MAX_WALLETS_PER_QUERY}")
        if sum(bool(options[name]) for name in ("wallet", "incremental", "checkpoint")) > 1:
            self.refuse("--wallet, --incremental and --checkpoint exclude each other")
        if bool(options["checkpoint"]) != bool(options["public_key"]):
            self.refuse("--checkpoint and --public-key need each other")

    def _comparison(self, file: Path | None, key: Path | None) -> checkpoints.Comparison | None:
        if not file or not key:
            return None
        try:
            return checkpoints.Comparison(
                checkpoints.read(file.read_bytes(), checkpoints.public_key(key.read_bytes()))
            )
        except (OSError, checkpoints.CheckpointError) as error:
            self.refuse(str(error))

    def _last_check(self, now: consistent_read.Snapshot) -> consistent_read.Snapshot:
        last = verify.last_check()
        if last is None or last.snapshot is None:
            return consistent_read.NOTHING
        if last.differences:
            self.refuse("the last check found differences: verify all of the ledger")
        since = consistent_read.Snapshot(last.snapshot)
        if since.end > now.end:  # no operation would count as newer
            self.refuse("the last check was of another database: verify all of the ledger")
        return since

    def _batches(self, options: dict[str, Any], since: consistent_read.Snapshot) -> Iterator[list[UUID]]:
        if options["wallet"]:
            return iter([self._existing(sorted(set(options["wallet"])))])
        if since != consistent_read.NOTHING:
            return verify.changed_batches(since, options["batch"])
        return verify.wallet_batches(options["batch"])

    def _print_differences(self, differences: Iterator[verify.Difference]) -> int:
        count = 0
        for count, difference in enumerate(differences, 1):  # noqa: B007
            self.stdout.write(f"{difference.wallet_id} {difference.what}")
        return count

    def _record(self, check: LedgerCheck) -> None:
        """Record the result if the database is writable: a read-only replica can be verified too."""
        try:
            check.save(force_insert=True)
        except Error as error:
            self.stderr.write(f"this check could not be recorded: {str(error).strip().splitlines()[0]}")

    def _existing(self, wallet_ids: list[Any]) -> list[Any]:
        found = set(Wallet.objects.filter(id__in=wallet_ids).values_list("id", flat=True))
        for wallet_id in wallet_ids:
            if wallet_id not in found:
                self.refuse(f"there is no wallet {wallet_id}")
        return wallet_ids


def _estimate() -> float | None:
    with connection.cursor() as cursor:
        cursor.execute(_ESTIMATE)
        estimate: float | None = cursor.fetchone()[0]
        return estimate
