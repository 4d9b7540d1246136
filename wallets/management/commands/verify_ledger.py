"""manage.py verify_ledger: hashes, balances and sequences, recomputed from the ledger."""

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

MAX_WALLETS_PER_QUERY: Final = 100_000  # wallets a query

# About how many operations there are, for the progress: what ANALYZE last saw, or what the wallets count.
_ESTIMATE = """
    SELECT greatest(
        (SELECT reltuples FROM pg_class WHERE oid = 'operation'::regclass),
        (SELECT sum(sequence) FROM wallet)
    )::float8
"""


class Command(Base):
    help = "Recompute every hash, balance and sequence from the ledger; exit 1 and name what differs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wallet", type=argument(Id), action="append", help="only this one (repeatable)")
        parser.add_argument(
            "--incremental", action="store_true", help="only what came after the last check, which was right"
        )
        parser.add_argument(
            "--checkpoint", type=Path, metavar="FILE", help="prove that nothing before it was changed since"
        )
        parser.add_argument(
            "--public-key", type=Path, metavar="FILE", help="of the checkpoint's signature (Ed25519, PEM)"
        )
        parser.add_argument("--batch", type=int, default=1000, help="wallets a query (default: %(default)s)")

    def handle(self, **options: Any) -> None:
        self._refuse_what_contradicts(options)
        comparison = self._comparison(options["checkpoint"], options["public_key"])
        if deceptive := verify.inconsistent_tables():
            self.refuse(
                f"{deceptive}: no plain tables; rules or policies may show the service something else"
            )
        began_at, snapshot = verify.now()
        since = self._last_check(snapshot) if options["incremental"] else consistent_read.NOTHING
        total = None if options["wallet"] or options["incremental"] else _estimate()
        checked = wrong = 0
        with tqdm(
            total=total, unit=" operations", unit_scale=True, file=sys.stderr, disable=None
        ) as progress:
            is_whole = not options["wallet"] and since == consistent_read.NOTHING
            verification = verify.Verification(since, comparison, progress.update, is_whole)
            for batch in self._batches(options, since):
                wrong += self._tell(verification.check(batch))
                checked += len(batch)
            wrong += self._tell(verification.finish())
        operations = verification.operations
        if not options["wallet"]:
            self._note(
                LedgerCheck(
                    began_at=began_at,
                    wallets=checked,
                    operations=operations,
                    differences=wrong,
                    snapshot=str(snapshot),
                    is_incremental=since != consistent_read.NOTHING,
                )
            )
        what = f"{operations} operations of {checked} wallets"
        if wrong:
            raise CommandError(f"{wrong} differences in {what}", returncode=1)
        self.stdout.write(f"{what} verified: every hash follows, every balance equals its ledger")
        if comparison:
            self.stdout.write(
                f"nothing before the checkpoint of {comparison.made_at:%Y-%m-%d %H:%M:%SZ} has changed"
            )

    def _refuse_what_contradicts(self, options: dict[str, Any]) -> None:
        if not 1 <= options["batch"] <= MAX_WALLETS_PER_QUERY:
            self.refuse(f"--batch must be between 1 and {MAX_WALLETS_PER_QUERY}")
        if sum(bool(options[name]) for name in ("wallet", "incremental", "checkpoint")) > 1:
            self.refuse("--wallet, --incremental and --checkpoint exclude each other")
        if bool(options["checkpoint"]) != bool(options["public_key"]):
            self.refuse("--checkpoint needs --public-key, and the other way round")

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
        if since.end > now.end:  # nothing would ever come after it
            self.refuse("the last check was of another database: verify all of the ledger")
        return since

    def _batches(self, options: dict[str, Any], since: consistent_read.Snapshot) -> Iterator[list[UUID]]:
        if options["wallet"]:
            return iter([self._existing(sorted(set(options["wallet"])))])
        if since != consistent_read.NOTHING:
            return verify.changed_batches(since, options["batch"])
        return verify.wallet_batches(options["batch"])

    def _tell(self, differences: Iterator[verify.Difference]) -> int:
        told = 0
        for told, difference in enumerate(differences, 1):  # noqa: B007
            self.stdout.write(f"{difference.wallet_id} {difference.what}")
        return told

    def _note(self, check: LedgerCheck) -> None:
        """Record the result if the database is writable: a read-only copy can be verified too."""
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
