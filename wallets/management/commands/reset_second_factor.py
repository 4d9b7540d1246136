"""manage.py reset_second_factor: for an operator who has lost the phone and the recovery codes."""

from typing import Any

from django.core.management.base import CommandParser

from wallets.access import devices
from wallets.management.arguments import Command as Base
from wallets.models import User


class Command(Base):
    help = "Remove an operator's second factor: the next login requires only the password."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, **options: Any) -> None:
        user = User.objects.filter(username__iexact=options["username"]).first()
        if user is None:
            self.refuse(f"there is no user {options['username']}")
        name = user.get_username()
        done = devices.remove(user)
        self.stdout.write(f"Removed the second factor of {name}" if done else f"{name} has no second factor")
