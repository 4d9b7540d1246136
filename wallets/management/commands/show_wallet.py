"""manage.py show_wallet: print a wallet and its newest operations."""

from typing import Any

from django.core.management.base import CommandParser

from wallets.contract.fields import Id
from wallets.contract.responses import operation_body, wallet_body
from wallets.management.arguments import Command as Base
from wallets.management.arguments import argument
from wallets.models import Operation, Wallet

NEWEST_OPERATIONS = 10


class Command(Base):
    help = f"Print a wallet and its {NEWEST_OPERATIONS} newest operations."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=argument(Id))

    def handle(self, **options: Any) -> None:
        wallet = Wallet.objects.filter(id=options["id"]).first()
        if wallet is None:
            self.refuse(f"there is no wallet {options['id']}")
        for name, value in wallet_body(wallet).items():
            self.stdout.write(f"{name:<15} {value}")
        self.stdout.write("")
        for operation in Operation.objects.filter(wallet=wallet).order_by("-created_at")[:NEWEST_OPERATIONS]:
            line = operation_body(operation, wallet.currency)
            self.stdout.write(
                f"{line['createdAt']}  {line['sequence'] or '-':>8}  {line['operationType']:<9}"
                f"{line['amount']:>20}{line['balance'] or line['reason']:>22}  {line['description']}".rstrip()
            )
