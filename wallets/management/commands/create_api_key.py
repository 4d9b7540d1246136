"""manage.py create_api_key: create an API key and print it once."""

import os
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandParser

from wallets.access import keys
from wallets.access.rights import SCOPES
from wallets.contract.fields import Label, TimeInBody
from wallets.management.arguments import Command as Base
from wallets.management.arguments import argument
from wallets.models import User


class Command(Base):
    help = "Create an API key and print it. It is not shown again, because only its hash is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", type=argument(Label), required=True, help="the purpose of the key")
        parser.add_argument(
            "--scope", nargs="+", action="extend", choices=SCOPES, required=True, dest="scopes"
        )
        parser.add_argument(
            "--owner", metavar="USERNAME", help="if the owner is inactive, the key is refused"
        )
        parser.add_argument(
            "--restricted", action="store_true", help="restrict the key to the wallets of the owner"
        )
        parser.add_argument(
            "--expires", type=argument(TimeInBody), metavar="TIME", help="such as 2027-01-01T00:00:00Z"
        )
        parser.add_argument(
            "--from-environment",
            metavar="VARIABLE",
            help="read the key from a variable and print nothing; safe to repeat; if empty, create no key",
        )

    def handle(self, **options: Any) -> None:
        if not options["name"].strip():
            self.refuse("--name must not be empty")
        if options["restricted"] and not options["owner"]:
            self.refuse("--restricted needs an --owner")
        if options["expires"] and options["expires"] <= datetime.now(UTC):
            self.refuse("--expires must be in the future")
        variable = options["from_environment"]
        text = os.environ.get(variable, "") if variable else keys.new_text()
        if not text:
            return
        try:
            key, is_new = keys.make(
                text,
                name=options["name"],
                scopes=options["scopes"],
                owner=self._owner(options["owner"]),
                is_restricted=options["restricted"],
                expires_at=options["expires"],
            )
        except ValueError as error:
            self.refuse(f"{variable}: {error}")
        if not variable:
            self.stdout.write(text)
        elif is_new:
            self.stdout.write(f"Created the API key {key.prefix} from {variable}")

    def _owner(self, username: str | None) -> User | None:
        if username is None:
            return None
        owner = User.objects.filter(username__iexact=username).first()
        if owner is None:
            self.refuse(f"there is no user {username}")
        return owner
