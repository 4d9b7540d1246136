"""manage.py checkpoint: sign the state of all chains into a file that is kept elsewhere."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from wallets.ledger import checkpoints
from wallets.management.arguments import Command as Base


class Command(Base):
    help = "Sign the state of the ledger into a file, by which verify_ledger proves that nothing has changed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="to write; it must not exist yet")
        parser.add_argument(
            "--key", type=Path, required=True, metavar="FILE", help="to sign with (Ed25519 private key, PEM)"
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
