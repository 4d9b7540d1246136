"""manage.py checkpoint: write a signed file with the state of all hash chains."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from wallets.ledger import checkpoints
from wallets.management.arguments import Command as Base


class Command(Base):
    help = (
        "Sign the state of the ledger. The file lets verify_ledger prove that nothing before it has changed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="path of the new file")
        parser.add_argument(
            "--key",
            type=Path,
            required=True,
            metavar="FILE",
            help="Ed25519 private key for the signature (PEM)",
        )

    def handle(self, **options: Any) -> None:
        try:
            key = checkpoints.private_key(options["key"].read_bytes())
            checkpoint = checkpoints.make()
            with options["file"].open("xb") as file:
                file.write(checkpoints.signed(checkpoint, key))
        except (OSError, checkpoints.CheckpointError) as error:
            self.refuse(str(error))
        self.stdout.write(
            f"{checkpoint.wallets} chains with {checkpoint.entries} entries signed at"
            f" {checkpoint.made_at:%Y-%m-%d %H:%M:%SZ}"
        )
