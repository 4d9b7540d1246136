"""manage.py create_wallet: open wallets and print their ids."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from wallets import ledger, money
from wallets.contract.fields import CurrencyCode, Id, Label, PositiveAmount
from wallets.ledger import Deposit, Opening, open_wallet
from wallets.management.arguments import Command as Base
from wallets.management.arguments import argument
from wallets.problems import Problem


class Command(Base):
    help = "Open wallets and print their ids, one on each line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--currency", type=argument(CurrencyCode), default=settings.DEFAULT_CURRENCY)
        parser.add_argument("--label", type=argument(Label), default="")
        parser.add_argument(
            "--id", type=argument(Id), help="UUID of the new wallet; makes the command safe to repeat"
        )
        parser.add_argument("--count", type=int, default=1)
        parser.add_argument(
            "--deposit", type=argument(PositiveAmount), help="amount to deposit in each wallet"
        )

    def handle(self, **options: Any) -> None:
        if options["count"] < 1:
            self.refuse("--count must be at least 1")
        if options["id"] and options["count"] > 1:
            self.refuse("--id and --count exclude each other: an id names one wallet")
        if options["deposit"] and not money.fits(options["deposit"], options["currency"]):
            self.refuse(f"--deposit has more fraction digits than {options['currency']}")
        opening = Opening(currency=options["currency"], label=options["label"], id=options["id"])
        for _ in range(options["count"]):
            try:
                self.stdout.write(str(self._open(opening, options["deposit"])))
            except Problem as problem:
                self.refuse(problem.detail)

    def _open(self, opening: Opening, deposit: Any) -> Any:
        wallet = open_wallet(opening).wallet
        if deposit:
            # With --id the command may be a repetition: then the key prevents a second deposit.
            key = "create_wallet" if opening.id else None
            ledger.submit(
                Deposit(wallet_id=wallet.id, amount=deposit, key=key, actor="command:create_wallet")
            )
        return wallet.id
