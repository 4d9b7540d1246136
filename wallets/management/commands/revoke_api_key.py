"""manage.py revoke_api_key: revoke an API key permanently."""

from typing import Any

from django.core.management.base import CommandParser

from wallets.access import keys
from wallets.management.arguments import Command as Base


class Command(Base):
    help = "Revoke an API key permanently. After five seconds no process accepts it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prefix", help="the 8 characters after wk_")

    def handle(self, **options: Any) -> None:
        if not keys.revoke(options["prefix"]):
            self.refuse(f"no key with the prefix {options['prefix']} can be revoked")
        self.stdout.write(f"Revoked {options['prefix']}")
