"""The models of the tables that Liquibase creates (liquibase/changes). Nothing here moves money."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Case, F, OuterRef, Q, Sum, Value, When
from django.db.models.functions import Coalesce, Now

from wallets.operation_types import NAMES, WITHOUT_SEQUENCE

OPERATION_CHOICES = [(name, name.replace("_", " ").title()) for name in NAMES]  # for operators


class Money(models.DecimalField):  # type: ignore[type-arg]
    """numeric(28,4): four digits hold every ISO 4217 currency, twenty-four every sum of MAX_AMOUNT."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**(kwargs | {"max_digits": 28, "decimal_places": 4}))


class TransactionId(models.Field):  # type: ignore[type-arg]
    """xid8: the id of the transaction that wrote the row. It orders the log by commit."""

    def db_type(self, connection: Any) -> str:
        return "xid8"


class SnapshotField(models.Field):  # type: ignore[type-arg]
    """pg_snapshot: the transactions that had committed at a time."""

    def db_type(self, connection: Any) -> str:
        return "pg_snapshot"


class CurrentTransactionId(models.Func):
    function = "pg_current_xact_id"
    arity = 0
    output_field = TransactionId()


class Users(UserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the user with this name in any case."""
        return self.get(username__iexact=username)

    def by_email(self, email: str) -> models.QuerySet["User"]:
        """Filter by the name, in the form of the unique index."""
        return self.exclude(email="").filter(email__iexact=email)

    def by_verified_email(self, email: str) -> models.QuerySet["User"]:
        """Filter for the active account with this verified e-mail address: at most one."""
        return self.by_email(email).filter(verified_email=F("email"), is_active=True)


class User(AbstractUser):
    """A user who logs in with an e-mail address, or an operator (`is_staff`) who logs in with a name.

    A user's username is the e-mail address in lower case. Names and addresses are unique regardless of case.
    """

    username = models.CharField(max_length=254, unique=True, error_messages={"unique": "This name is taken."})
    # The address that was verified. It counts while it equals `email`: a changed address is unverified.
    verified_email = models.CharField(max_length=254, blank=True, default="", db_default="")

    objects = Users()  # type: ignore[misc]

    class Meta(AbstractUser.Meta):
        db_table = "wallet_user"

    @property
    def has_verified_email(self) -> bool:
        """Whether others can send money to this account by its e-mail address."""
        return bool(self.email) and self.verified_email == self.email

    @property
    def name(self) -> str:
        """The name of the user, or the username if there is none."""
        return self.get_full_name()


def subquery_of(wallet_id: UUID) -> models.QuerySet[Any, Any]:
    """Return the wallet id as a subquery, so that PostgreSQL plans for any wallet.

    If it knows that this wallet has many rows, it scans the newest rows of all wallets instead, and may scan
    far if the wallet was not used recently.
    """
    return Wallet.objects.filter(id=wallet_id).values("id")[:1]


class WalletQuerySet(models.QuerySet["Wallet"]):
    """Wallets, with the amounts of expired holds that `held` still includes."""

    def with_expired(self) -> "WalletQuerySet":
        """Add `expired`: the amounts of expired holds that no transaction has recorded yet.

        One statement reads both, so they are consistent.
        """
        due = Hold.objects.filter(wallet=OuterRef("id"), status=Hold.Status.ACTIVE, expires_at__lte=Now())
        amounts = due.values("wallet").annotate(sum=Sum("amount")).values("sum")
        nothing = Value(0, output_field=Money())
        # The subquery runs only for wallets with a hold that may have expired.
        expired = Case(When(next_expiry_at__lte=Now(), then=Coalesce(amounts, nothing)), default=nothing)
        return self.annotate(expired=expired)


class Wallet(models.Model):
    """One balance in one currency. `available` is `balance - held`."""

    class Status(models.TextChoices):
        ACTIVE = "ACTIVE"
        FROZEN = "FROZEN"  # moves no money until it is ACTIVE again
        CLOSED = "CLOSED"  # final, and empty

    id = models.UUIDField(primary_key=True)
    currency = models.CharField(max_length=3)
    balance = Money(db_default=0)
    held = Money(db_default=0)
    overdraft_limit = Money(db_default=0)
    max_balance = Money(null=True)
    sequence = models.BigIntegerField(db_default=0)  # the number of entries
    status = models.CharField(max_length=16, choices=Status.choices, db_default=Status.ACTIVE)
    external_id = models.CharField(max_length=255, null=True)  # the client's name; unique for each owner
    label = models.CharField(max_length=200, db_default="")
    metadata = models.JSONField(db_default={})
    owner = models.ForeignKey(User, null=True, on_delete=models.PROTECT, db_index=False)
    # The request, if the client chose the id: a replay must be equal to it.
    opened_with = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    # The time of the last recorded operation (also a refused one), change or expiry. The next operation has a
    # later time.
    updated_at = models.DateTimeField(db_default=Now())
    next_expiry_at = models.DateTimeField(null=True)  # no active hold expires before this time
    hash = models.BinaryField(db_default=b"")  # of the last operation; empty before the first one

    objects = WalletQuerySet.as_manager()

    class Meta:
        db_table = "wallet"
        permissions = (
            ("adjust_wallet", "Can adjust the balance of a wallet"),
            ("export_wallet", "Can export wallets, operations, transfers and holds as CSV"),
        )

    def __str__(self) -> str:
        return f"{self.label or self.id} ({self.currency})"

    @property
    def held_now(self) -> Decimal:
        """The amount of active holds at the time of the query, which must use `with_expired`."""
        expired: Decimal = getattr(self, "expired", Decimal(0))
        held: Decimal = self.held
        return held - expired

    @property
    def available_now(self) -> Decimal:
        balance: Decimal = self.balance
        return balance - self.held_now


class OperationQuerySet(models.QuerySet["Operation"]):
    def of_wallet(self, wallet_id: UUID) -> "OperationQuerySet":
        return self.filter(wallet_id=subquery_of(wallet_id))

    def that_move_money(self) -> "OperationQuerySet":
        """Filter for operations that move money, as a statement lists them: without holds and voids."""
        return self.exclude(type__in=WITHOUT_SEQUENCE)


class Operation(models.Model):
    """One operation in the ledger. Append-only: the application's role may not update or delete it."""

    class Status(models.TextChoices):
        COMPLETED = "COMPLETED"
        REJECTED = "REJECTED"  # recorded with a reason, without sequence and balance

    id = models.UUIDField(primary_key=True)  # in the table (id, wallet_id), for sharding
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    sequence = models.BigIntegerField(null=True)  # 1, 2, 3, … in the wallet, without gaps
    type = models.CharField(max_length=16, choices=OPERATION_CHOICES)
    amount = Money()
    balance_after = Money(null=True)
    status = models.CharField(max_length=16, choices=Status.choices)
    reason = models.CharField(max_length=64, null=True)  # the code of the problem that refused it
    idempotency_key = models.CharField(max_length=300, null=True)  # as wallets/ledger/keys.py stores it
    transfer_id = models.UUIDField(null=True)  # on both wallets; the id of the operation on the source
    counterparty = models.ForeignKey(  # the second wallet
        Wallet, null=True, on_delete=models.PROTECT, db_index=False, db_constraint=False, related_name="+"
    )
    hold_id = models.UUIDField(null=True)  # the hold that a CAPTURE or VOID ends
    reverses_id = models.UUIDField(null=True)
    expires_at = models.DateTimeField(null=True)  # of a HOLD
    takes_rest = models.BooleanField(null=True)  # the client left the amount of a capture or reversal open
    reference = models.CharField(max_length=255, db_default="")  # the client's name for the movement
    description = models.CharField(max_length=500, db_default="")
    metadata = models.JSONField(db_default={})
    # The actor, such as "operator:anna"; empty for an open API.
    actor = models.CharField(max_length=200, db_default="")
    accepted_at = models.DateTimeField(null=True)  # set if it was accepted asynchronously
    created_at = models.DateTimeField()  # read under the wallet's lock, strictly increasing in the wallet
    transaction_id = TransactionId(db_default=CurrentTransactionId(), editable=False)
    hash = models.BinaryField()  # wallets/ledger/chain.py

    objects = OperationQuerySet.as_manager()

    class Meta:
        db_table = "operation"

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class Transfer(Operation):
    """A transfer: its operation on the source, with the same id. For the admin."""

    class Meta:
        proxy = True
        default_permissions = ()  # the permission to view operations includes transfers

    def __str__(self) -> str:
        return f"transfer {self.id}"


class WalletChange(models.Model):
    """A change of a wallet that is no operation, with its actor and reason. Append-only."""

    class Type(models.TextChoices):
        OPENED = "OPENED"  # of the wallet
        CHANGED = "CHANGED"
        HOLD_EXPIRED = "HOLD_EXPIRED"  # recorded by the service, without an actor

    id = models.UUIDField(primary_key=True)
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    type = models.CharField(max_length=16, choices=Type.choices, db_default=Type.CHANGED)
    changes = models.JSONField()  # {"status": ["ACTIVE", "FROZEN"]}
    actor = models.CharField(max_length=200, db_default="")
    reason = models.CharField(max_length=500, db_default="")
    created_at = models.DateTimeField()
    transaction_id = TransactionId(db_default=CurrentTransactionId(), editable=False)

    class Meta:
        db_table = "wallet_change"

    def __str__(self) -> str:
        return f"{', '.join(self.changes)} of {self.wallet_id}"


class Holds(models.QuerySet["Hold"]):
    def of_wallet(self, wallet_id: UUID) -> "Holds":
        return self.filter(wallet_id=subquery_of(wallet_id))

    def as_of_now(self, status: str | None = None) -> "Holds":
        """Add `status_now` and filter by it: a hold expires at its time, before a transaction records it."""
        is_due = When(status=Hold.Status.ACTIVE, expires_at__lte=Now(), then=Value(Hold.Status.EXPIRED))
        holds = self.annotate(status_now=Case(is_due, default=F("status")))
        return holds if status is None else holds.filter(Q(("status_now", status)))


class Hold(models.Model):
    """A held amount of a wallet. A hold ends once: captured, voided, or expired at `expires_at`."""

    class Status(models.TextChoices):
        ACTIVE = "ACTIVE"
        CAPTURED = "CAPTURED"
        VOIDED = "VOIDED"
        EXPIRED = "EXPIRED"

    id = models.UUIDField(primary_key=True)  # the table's key is (id, wallet_id), as in operation
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    amount = Money()
    status = models.CharField(max_length=16, choices=Status.choices)
    expires_at = models.DateTimeField(null=True)
    captured_amount = Money(null=True)
    operation_id = models.UUIDField(null=True)  # the operation that captured it
    reference = models.CharField(max_length=255, db_default="")
    description = models.CharField(max_length=500, db_default="")
    metadata = models.JSONField(db_default={})
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    objects = Holds.as_manager()

    class Meta:
        db_table = "hold"

    def __str__(self) -> str:
        return f"hold {self.id}"


class InboxEntry(models.Model):
    """An operation that was accepted asynchronously. When it is decided, it moves to the ledger."""

    id = models.UUIDField(primary_key=True)  # of the operation
    position = models.BigIntegerField(editable=False)  # the order of acceptance
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    type = models.CharField(max_length=16, choices=OPERATION_CHOICES)
    amount = Money()
    idempotency_key = models.CharField(max_length=300, null=True)  # as wallets/ledger/keys.py stores it
    counterparty = models.ForeignKey(
        Wallet, null=True, on_delete=models.PROTECT, db_index=False, db_constraint=False, related_name="+"
    )
    hold_id = models.UUIDField(null=True)
    reverses_id = models.UUIDField(null=True)
    takes_rest = models.BooleanField(null=True)
    reference = models.CharField(max_length=255, db_default="")
    description = models.CharField(max_length=500, db_default="")
    metadata = models.JSONField(db_default={})
    actor = models.CharField(max_length=200, db_default="")
    created_at = models.DateTimeField()
    sees_target = models.BooleanField(null=True)  # whether the client may read the second wallet
    attempts = models.IntegerField(db_default=0)  # failed attempts
    last_error = models.CharField(max_length=500, db_default="")
    next_attempt_at = models.DateTimeField(null=True)  # null: now
    set_aside_at = models.DateTimeField(null=True)  # after the last attempt; an operator decides

    class Meta:
        db_table = "inbox"
        verbose_name_plural = "inbox"

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class OperationId(models.Model):
    """The id of an operation or inbox entry, with its wallet. A trigger of these tables writes it."""

    id = models.UUIDField(primary_key=True)
    wallet_id = models.UUIDField()

    class Meta:
        db_table = "operation_id"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.id} of {self.wallet_id}"


class KeyedRequest(models.Model):
    """The first request under an Idempotency-Key that no operation records. Append-only."""

    id = models.UUIDField(primary_key=True)  # also the id of the object that the request creates
    domain = models.CharField(max_length=64)  # the key namespace (Principal.key_domain)
    key = models.CharField(max_length=255)
    digest = models.BinaryField()  # SHA-256 of the checked request (wallets/keyed_requests.py)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "keyed_request"
        default_permissions = ()

    def __str__(self) -> str:
        return self.key


class ApiKey(models.Model):
    """An API key. The table has the hash of its secret, not the secret."""

    prefix = models.CharField(primary_key=True, max_length=8)
    digest = models.BinaryField()  # SHA-256 of the secret
    name = models.CharField(max_length=200)
    owner = models.ForeignKey(User, null=True, on_delete=models.PROTECT, db_index=False)
    is_restricted_to_owner = models.BooleanField(db_default=False)  # to the wallets of the owner
    scopes = ArrayField(models.TextField())
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)  # at most a minute late

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"


class Subscriber(models.Model):
    """A subscriber to events: its destination, its event types, and its position in the log."""

    class Kind(models.TextChoices):
        WEBHOOK = "WEBHOOK"
        BROKER = "BROKER"  # of EVENTS_BROKER_URL

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=100, unique=True)
    url = models.CharField(max_length=2000, db_default="")
    types = ArrayField(models.CharField(max_length=64), db_default=[])  # empty: all types
    batch = models.IntegerField(db_default=1)  # events in one request
    is_enabled = models.BooleanField(db_default=True)
    disabled_because = models.CharField(max_length=500, db_default="")
    secret = models.CharField(max_length=100, db_default="")
    secret_at = models.DateTimeField(db_default=Now())  # when it was created: it is shown for an hour
    former_secret = models.CharField(max_length=100, db_default="")  # still signs after a rotation
    former_secret_until = models.DateTimeField(null=True)
    rotation_id = models.UUIDField(null=True)  # of the last rotation: a retry is a replay
    registered_with = models.JSONField(null=True)  # the request; a replay must be equal to it
    begin_xid = TransactionId()
    end_xid = TransactionId(null=True)
    after_at = models.DateTimeField(null=True)
    after_id = models.UUIDField(null=True)
    failures = models.IntegerField(db_default=0)  # consecutive failures
    failing_since = models.DateTimeField(null=True)
    retry_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, db_default="")
    delivered_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "subscriber"

    def __str__(self) -> str:
        return self.name


class ParkedEvent(models.Model):
    """An event that was not delivered to a subscriber.

    With a position (entry_at, entry_id) it represents all later events of its wallet too, up to the
    subscriber's position in the log: one row for each waiting wallet. Without a position it represents only
    itself: a dead letter, a replayed one, or an event that code before version 7 parked.
    """

    class Status(models.TextChoices):
        WAITING = "WAITING"
        DEAD = "DEAD"

    subscriber = models.ForeignKey(Subscriber, on_delete=models.CASCADE, db_index=False)
    event_id = models.CharField(max_length=64)
    type = models.CharField(max_length=64)
    wallet_id = models.UUIDField()
    entry_at = models.DateTimeField(null=True)  # the position: the log entry of the event
    entry_id = models.UUIDField(null=True)
    event = models.TextField(null=True)  # unused: only code before version 7 stored the event here
    status = models.CharField(max_length=16, choices=Status.choices, db_default=Status.WAITING)
    attempts = models.IntegerField(db_default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    last_error = models.CharField(max_length=500, db_default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "parked_event"
        default_permissions = ()  # the permission to view the subscriber includes them

    def __str__(self) -> str:
        return self.event_id


class Delivery(models.Model):
    """One attempt to deliver to a webhook. Only the newest are kept."""

    subscriber = models.ForeignKey(Subscriber, on_delete=models.CASCADE, db_index=False)
    event_id = models.CharField(max_length=64)  # of the first event
    events = models.IntegerField()
    at = models.DateTimeField()
    duration = models.DurationField()
    status_code = models.IntegerField(null=True)  # null: no response
    error = models.CharField(max_length=500, db_default="")
    response = models.CharField(max_length=500, db_default="")

    class Meta:
        db_table = "delivery"
        default_permissions = ()
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"{self.event_id} at {self.at}"


class LedgerCheck(models.Model):
    """The result of one verification of the whole ledger. Append-only."""

    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(db_default=Now())
    wallets = models.BigIntegerField()
    differences = models.BigIntegerField()
    operations = models.BigIntegerField(db_default=0)
    snapshot = SnapshotField(null=True)  # the verification covered at least this snapshot
    is_incremental = models.BooleanField(db_default=False)  # only what followed the previous one

    class Meta:
        db_table = "ledger_check"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.differences} differences in {self.wallets} wallets"


class RateLimit(models.Model):
    """The number of requests of a caller in a window of a rate limit (wallets/access/limits.py)."""

    # The limit and its subject: "login:127.0.0.1".
    subject = models.CharField(primary_key=True, max_length=300)
    began_at = models.DateTimeField()
    hits = models.BigIntegerField()

    class Meta:
        db_table = "rate_limit"
        default_permissions = ()

    def __str__(self) -> str:
        return self.subject
