"""The tables as Python sees them. Liquibase makes them (liquibase/changes); nothing here moves money."""

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Now


class Money(models.DecimalField):  # type: ignore[type-arg]
    """numeric(28,4): four digits hold every ISO 4217 currency, twenty-four every sum of MAX_AMOUNT."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**(kwargs | {"max_digits": 28, "decimal_places": 4}))


class TransactionId(models.Field):  # type: ignore[type-arg]
    """xid8: the id of the transaction that wrote the row. It orders the log by commit."""

    def db_type(self, connection: Any) -> str:
        return "xid8"


class CurrentTransactionId(models.Func):
    function = "pg_current_xact_id"
    arity = 0
    output_field = TransactionId()


class User(AbstractUser):
    """Who logs in: an operator today. Our own class, because Django cannot swap it in later."""

    class Meta(AbstractUser.Meta):
        db_table = "wallet_user"


class Wallet(models.Model):
    """One balance in one currency. `available` is `balance - held`."""

    class Status(models.TextChoices):
        ACTIVE = "ACTIVE"
        FROZEN = "FROZEN"  # moves no money until thawed
        CLOSED = "CLOSED"  # for ever, and empty

    id = models.UUIDField(primary_key=True)
    currency = models.CharField(max_length=3)
    balance = Money(db_default=0)
    held = Money(db_default=0)
    overdraft_limit = Money(db_default=0)
    max_balance = Money(null=True)
    sequence = models.BigIntegerField(db_default=0)  # entries so far
    status = models.CharField(max_length=16, choices=Status.choices, db_default=Status.ACTIVE)
    label = models.CharField(max_length=200, db_default="")
    metadata = models.JSONField(db_default={})
    owner = models.ForeignKey(User, null=True, on_delete=models.PROTECT, db_index=False)
    # What the client asked for when it chose the id itself: a repeat is held to it.
    opened_with = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    # The time of the newest operation (a refused one too) or change; the next operation comes after it.
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "wallet"
        permissions = (("adjust_wallet", "Can adjust the balance of a wallet"),)

    def __str__(self) -> str:
        return f"{self.label or self.id} ({self.currency})"


class Operation(models.Model):
    """One line of the ledger. Append-only: the application's role may not change or delete it."""

    class Type(models.TextChoices):
        DEPOSIT = "DEPOSIT"
        WITHDRAW = "WITHDRAW"

    class Status(models.TextChoices):
        COMPLETED = "COMPLETED"
        REJECTED = "REJECTED"  # history too: no sequence, no balance, but a reason

    id = models.UUIDField(primary_key=True)  # in the table (id, wallet_id): it can be distributed by wallet
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    sequence = models.BigIntegerField(null=True)  # 1, 2, 3, … in the wallet, without gaps
    type = models.CharField(max_length=16, choices=Type.choices)
    amount = Money()
    balance_after = Money(null=True)
    status = models.CharField(max_length=16, choices=Status.choices)
    reason = models.CharField(max_length=64, null=True)  # the code of the problem that refused it
    idempotency_key = models.CharField(max_length=255, null=True)
    description = models.CharField(max_length=500, db_default="")
    metadata = models.JSONField(db_default={})
    actor = models.CharField(
        max_length=200, db_default=""
    )  # who asked: "operator:anna"; empty for an open API
    created_at = models.DateTimeField()  # taken under the wallet's lock, strictly rising within the wallet
    transaction_id = TransactionId(db_default=CurrentTransactionId(), editable=False)

    class Meta:
        db_table = "operation"

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class WalletChange(models.Model):
    """A change of a wallet that moved no money: what, by whom and why. Append-only."""

    id = models.UUIDField(primary_key=True)
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    changes = models.JSONField()  # {"status": ["ACTIVE", "FROZEN"]}
    actor = models.CharField(max_length=200, db_default="")
    reason = models.CharField(max_length=500, db_default="")
    created_at = models.DateTimeField()
    transaction_id = TransactionId(db_default=CurrentTransactionId(), editable=False)

    class Meta:
        db_table = "wallet_change"

    def __str__(self) -> str:
        return f"{', '.join(self.changes)} of {self.wallet_id}"
