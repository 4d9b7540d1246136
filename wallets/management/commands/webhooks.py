"""manage.py webhooks: list and manage webhooks."""

import argparse
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db.models import Q

from wallets.contract.fields import Id, Limit
from wallets.contract.request_schemas import (
    DEFAULT_FORMER_SECRET_HOURS,
    MAX_FORMER_SECRET_HOURS,
    WebhookName,
    WebhookUrl,
)
from wallets.database_retry import retry_until_deadline
from wallets.events import webhook_registry
from wallets.events.cloudevents import TYPES
from wallets.events.delivery_state import DeliveryState, standings
from wallets.management.arguments import Command as Base
from wallets.management.arguments import argument
from wallets.management.commands.relay_events import in_words
from wallets.models import Subscriber
from wallets.problems import Problem

ACTOR: Final = "command:webhooks"


class Command(Base):
    help = "Manage webhooks. What happens is posted to them, signed with a secret that is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        deeds = parser.add_subparsers(dest="deed", required=True, metavar="DEED")
        self._add_deed(deeds, "list", "show all of them, the broker as well, and how they fare")
        add = self._add_deed(deeds, "add", "register one, print its id and its secret")
        add.add_argument("name", type=argument(WebhookName))
        add.add_argument("url", type=argument(WebhookUrl))
        add.add_argument("--type", nargs="+", action="extend", choices=TYPES, default=[], dest="types")
        add.add_argument("--batch", type=argument(Limit), default=1, help="up to so many events in a request")
        add.add_argument(
            "--from-beginning",
            action="store_const",
            const="beginning",
            default="now",
            dest="begins",
            help="all that has ever happened first",
        )
        add.add_argument("--id", type=argument(Id), help="of your choice: then it is safe to repeat")
        for deed, help in (
            ("remove", "end one, with what waits for it and its dead letters"),
            ("enable", "go on where it was; the broker as well"),
            ("disable", "tell it nothing, until it is enabled; the broker as well"),
            ("test", "send it an event that means nothing; exit 1 where it is not taken"),
            ("replay", "try its dead letters again"),
            ("forget", "forget its dead letters, for good"),
            ("rotate", "print a new secret; the former one signs as well for a while"),
        ):
            named = self._add_deed(deeds, deed, help)
            named.add_argument("webhook", metavar="NAME-OR-ID")
        named.add_argument(
            "--former-valid-hours",
            type=int,
            default=DEFAULT_FORMER_SECRET_HOURS,
            help="how long that is (default: %(default)s)",
        )

    def _add_deed(self, deeds: "argparse._SubParsersAction[Any]", name: str, help: str) -> Any:
        return self.silenced(deeds.add_parser(name, help=help))

    def handle(self, **options: Any) -> None:
        try:
            getattr(self, f"_{options['deed']}")(options)
        except Problem as problem:
            self.refuse(problem.detail)

    def _list(self, options: dict[str, Any]) -> None:
        rows = {row.name: row for row in retry_until_deadline(lambda: list(Subscriber.objects.all()))}
        for standing in retry_until_deadline(standings):
            if row := rows.get(standing.name):
                self.stdout.write(line_of(row, standing))

    def _add(self, options: dict[str, Any]) -> None:
        names = ("name", "url", "types", "batch", "begins", "id")
        registered = webhook_registry.register(
            webhook_registry.Registration(**{name: options[name] for name in names}), ACTOR
        )
        if registered.secret is None:
            self.refuse("it was registered before, and its secret is not shown again: rotate it")
        self.stdout.write(f"{registered.webhook.id}\n{registered.secret}")

    def _remove(self, options: dict[str, Any]) -> None:
        webhook = self._webhook(options)
        webhook_registry.remove(webhook.id, ACTOR)
        self.stdout.write(f"Removed {webhook.name}")

    def _enable(self, options: dict[str, Any]) -> None:
        self._switch(options, is_enabled=True)

    def _disable(self, options: dict[str, Any]) -> None:
        self._switch(options, is_enabled=False)

    def _switch(self, options: dict[str, Any], *, is_enabled: bool) -> None:
        subscriber = self._subscriber(options["webhook"])
        webhook_registry.switch(subscriber, is_enabled, ACTOR)
        self.stdout.write(f"{'Enabled' if is_enabled else 'Disabled'} {subscriber.name}")

    def _rotate(self, options: dict[str, Any]) -> None:
        hours = options["former_valid_hours"]
        if not 0 <= hours <= MAX_FORMER_SECRET_HOURS:
            self.refuse(f"--former-valid-hours must be from 0 to {MAX_FORMER_SECRET_HOURS}")
        webhook = self._webhook(options)
        rotated = webhook_registry.rotate(webhook.id, ACTOR, former_valid=timedelta(hours=hours))
        self.stdout.write(rotated.webhook.secret)

    def _test(self, options: dict[str, Any]) -> None:
        delivery = webhook_registry.try_out(self._webhook(options).id)
        took = f"after {delivery.duration.total_seconds() * 1000:.0f} ms"
        if delivery.error:
            raise CommandError(f"not taken: {delivery.error}, {took}", returncode=1)
        self.stdout.write(f"taken: it answered {delivery.status_code} {took}")

    def _replay(self, options: dict[str, Any]) -> None:
        found = webhook_registry.replay(self._webhook(options).id, ACTOR)
        self.stdout.write(f"{found} dead letters are tried again")

    def _forget(self, options: dict[str, Any]) -> None:
        found = webhook_registry.forget(self._webhook(options).id, ACTOR)
        self.stdout.write(f"{found} dead letters are forgotten")

    def _webhook(self, options: dict[str, Any]) -> Subscriber:
        subscriber = self._subscriber(options["webhook"])
        if subscriber.kind != Subscriber.Kind.WEBHOOK:
            self.refuse(f"{subscriber.name} is no webhook, but the broker")
        return subscriber

    def _subscriber(self, text: str) -> Subscriber:
        found = retry_until_deadline(Subscriber.objects.filter(_named(text)).first)
        if found is None:
            self.refuse(f"there is no webhook {text}")
        return found


def _named(text: str) -> Q:
    try:
        return Q(name=text) | Q(id=UUID(text))
    except ValueError:
        return Q(name=text)


def line_of(row: Subscriber, standing: DeliveryState) -> str:
    state = "" if row.is_enabled else f"disabled: {row.disabled_because} "
    error = f", failing: {row.last_error}" if row.failures else ""
    return (
        f"{row.id}  {row.name}  {row.url or 'the broker'}  {', '.join(row.types) or 'all events'}  "
        f"{state}{in_words(standing)}{error}"
    )
