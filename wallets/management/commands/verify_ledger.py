"""manage.py verify_ledger: recompute every balance and sequence from the ledger."""

import sys
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, Error
from tqdm import tqdm

from wallets.api.values import Id
from wallets.ledger.tables import database_clock
from wallets.ledger.verify import note_check, verify, wallet_batches
from wallets.management.arguments import Command as Base
from wallets.management.arguments import argument
from wallets.models import Wallet


class Command(Base):
    help = "Recompute every balance and sequence from the ledger; exit 1 and name what differs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wallet", type=argument(Id), action="append", help="only this one (repeatable)")
        parser.add_argument("--batch", type=int, default=1000, help="wallets a query (default: %(default)s)")

    def handle(self, **options: Any) -> None:
        if options["batch"] < 1:
            self.refuse("--batch must be at least 1")
        batches = (
            [self._existing(options["wallet"])] if options["wallet"] else wallet_batches(options["batch"])
        )
        total = len(options["wallet"]) if options["wallet"] else Wallet.objects.count()
        began_at = database_clock(DEFAULT_DB_ALIAS)
        checked = wrong = 0
        with tqdm(total=total, unit=" wallets", file=sys.stderr, disable=None) as progress:
            for batch in batches:
                for difference in verify(batch):
                    wrong += 1
                    self.stdout.write(f"{difference.wallet_id} {difference.what}")
                checked += len(batch)
                progress.update(len(batch))
        if not options["wallet"]:
            self._note(began_at, checked, wrong)
        if wrong:
            raise CommandError(f"{wrong} differences in {checked} wallets", returncode=1)
        self.stdout.write(f"{checked} wallets verified, every balance equals its ledger")

    def _note(self, began_at: datetime, wallets: int, differences: int) -> None:
        """The verdict stands without its record: a copy of the database that is read-only can be verified."""
        try:
            note_check(began_at, wallets, differences)
        except Error as error:
            self.stderr.write(f"this check could not be recorded: {str(error).strip().splitlines()[0]}")

    def _existing(self, wallet_ids: list[Any]) -> list[Any]:
        found = set(Wallet.objects.filter(id__in=wallet_ids).values_list("id", flat=True))
        for wallet_id in wallet_ids:
            if wallet_id not in found:
                self.refuse(f"there is no wallet {wallet_id}")
        return wallet_ids
