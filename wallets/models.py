"""The tables as Python sees them. Liquibase makes them (liquibase/changes); nothing here moves money."""

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
    """pg_snapshot: which transactions were done at a moment."""

    def db_type(self, connection: Any) -> str:
        return "pg_snapshot"


class CurrentTransactionId(models.Func):
    function = "pg_current_xact_id"
    arity = 0
    output_field = TransactionId()


class Users(UserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> "User":
        """Who logs in with this name, however it is capitalised."""
        return self.get(username__iexact=username)

    def by_email(self, email: str) -> models.QuerySet["User"]:
        """At most one; in the words of the index."""
        return self.exclude(email="").filter(email__iexact=email)

    def by_verified_email(self, email: str) -> models.QuerySet["User"]:
        """At most one: the active account whose owner has shown that they receive mail at this address."""
        return self.by_email(email).filter(verified_email=F("email"), is_active=True)


class User(AbstractUser):
    """Who logs in: a person who signed up, by e-mail address, or an operator (`is_staff`), by name.

    A person's username is their e-mail address, in lower case. No two names differ by case alone, nor do two
    addresses.
    """

    username = models.CharField(
        max_length=254, unique=True, error_messages={"unique": "Somebody has this name already."}
    )
    # The address that was verified. It counts while it equals `email`: a changed address is unverified.
    verified_email = models.CharField(max_length=254, blank=True, default="", db_default="")

    objects = Users()  # type: ignore[misc]

    class Meta(AbstractUser.Meta):
        db_table = "wallet_user"

    @property
    def has_verified_email(self) -> bool:
        """Whether money can be sent to this account by its e-mail address."""
        return bool(self.email) and self.verified_email == self.email

    @property
    def name(self) -> str:
        """What they are called, where they said; who signs up does."""
        return self.get_full_name()


def subquery_of(wallet_id: UUID) -> models.QuerySet[Any, Any]:
    """The wallet's id as a subquery, so that PostgreSQL plans as for any wallet.

    Knowing that this one has much of a table, it walks the newest rows of all wallets instead, and far: the
    wallet may have slept since.
    """
    return Wallet.objects.filter(id=wallet_id).values("id")[:1]


class WalletQuerySet(models.QuerySet["Wallet"]):
    """Every query for wallets knows what has expired of their holds and is still counted in `held`."""

    def with_expired(self) -> "WalletQuerySet":
        """Adds `expired`: held for holds whose time has come, until somebody has the lock to write it down.

        In one statement with the wallet, so that both are of one moment.
        """
        due = Hold.objects.filter(wallet=OuterRef("id"), status=Hold.Status.ACTIVE, expires_at__lte=Now())
        amounts = due.values("wallet").annotate(sum=Sum("amount")).values("sum")
        nothing = Value(0, output_field=Money())
        # The subquery runs for those wallets alone that may have something due.
        expired = Case(When(next_expiry_at__lte=Now(), then=Coalesce(amounts, nothing)), default=nothing)
        return self.annotate(expired=expired)


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
    # The time of the newest operation (a refused one too), change or expiry that was written down; the next
    # operation comes after it.
    updated_at = models.DateTimeField(db_default=Now())
    next_expiry_at = models.DateTimeField(null=True)  # no active hold expires before
    hash = models.BinaryField(db_default=b"")  # of the last operation; empty before the first

    objects = WalletQuerySet.as_manager()

    class Meta:
        db_table = "wallet"
        permissions = (("adjust_wallet", "Can adjust the balance of a wallet"),)

    def __str__(self) -> str:
        return f"{self.label or self.id} ({self.currency})"

    @property
    def held_now(self) -> Decimal:
        """What active holds set aside, at the time of a query `with_expired`."""
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
        """What a statement would have. Holding and voiding only set money aside and free it."""
        return self.exclude(type__in=WITHOUT_SEQUENCE)


class Operation(models.Model):
    """One line of the ledger. Append-only: the application's role may not change or delete it."""

    class Status(models.TextChoices):
        COMPLETED = "COMPLETED"
        REJECTED = "REJECTED"  # history too: no sequence, no balance, but a reason

    id = models.UUIDField(primary_key=True)  # in the table (id, wallet_id): it can be distributed by wallet
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    sequence = models.BigIntegerField(null=True)  # 1, 2, 3, … in the wallet, without gaps
    type = models.CharField(max_length=16, choices=OPERATION_CHOICES)
    amount = Money()
    balance_after = Money(null=True)
    status = models.CharField(max_length=16, choices=Status.choices)
    reason = models.CharField(max_length=64, null=True)  # the code of the problem that refused it
    idempotency_key = models.CharField(max_length=300, null=True)  # as wallets/ledger/keys.py stores it
    transfer_id = models.UUIDField(null=True)  # on both sides; the id of the operation that was asked for
    counterparty = models.ForeignKey(  # the other side's wallet
        Wallet, null=True, on_delete=models.PROTECT, db_index=False, db_constraint=False, related_name="+"
    )
    hold_id = models.UUIDField(null=True)  # what a CAPTURE or VOID ends
    reverses_id = models.UUIDField(null=True)
    expires_at = models.DateTimeField(null=True)  # of a HOLD
    takes_rest = models.BooleanField(null=True)  # whether it was left to us how much to capture or reverse
    description = models.CharField(max_length=500, db_default="")
    metadata = models.JSONField(db_default={})
    # Who asked: "operator:anna"; empty for an open API.
    actor = models.CharField(max_length=200, db_default="")
    accepted_at = models.DateTimeField(null=True)  # where it was accepted for later
    created_at = models.DateTimeField()  # taken under the wallet's lock, strictly rising within the wallet
    transaction_id = TransactionId(db_default=CurrentTransactionId(), editable=False)
    hash = models.BinaryField()  # SHA-256 of the one before it and of this one (wallets/ledger/chain.py)

    objects = OperationQuerySet.as_manager()

    class Meta:
        db_table = "operation"

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class Transfer(Operation):
    """A transfer as its operation on the source, whose id it shares. For the operators' pages."""

    class Meta:
        proxy = True
        default_permissions = ()  # who may view operations may view transfers

    def __str__(self) -> str:
        return f"transfer {self.id}"


class WalletChange(models.Model):
    """What happened to a wallet without an operation: what, by whom and why. Append-only."""

    class Type(models.TextChoices):
        OPENED = "OPENED"  # the wallet itself, by its id
        CHANGED = "CHANGED"
        HOLD_EXPIRED = "HOLD_EXPIRED"  # written down; nobody did it

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
        """Adds `status_now`, and filters by it: a hold expires at its time, not when somebody notes it."""
        is_due = When(status=Hold.Status.ACTIVE, expires_at__lte=Now(), then=Value(Hold.Status.EXPIRED))
        holds = self.annotate(status_now=Case(is_due, default=F("status")))
        return holds if status is None else holds.filter(Q(("status_now", status)))


class Hold(models.Model):
    """Money set aside in a wallet. It ends once: captured, voided, or at `expires_at`."""

    class Status(models.TextChoices):
        ACTIVE = "ACTIVE"
        CAPTURED = "CAPTURED"
        VOIDED = "VOIDED"
        EXPIRED = "EXPIRED"

    id = models.UUIDField(primary_key=True)  # in the table (id, wallet_id), as in operation
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_index=False)
    amount = Money()
    status = models.CharField(max_length=16, choices=Status.choices)
    expires_at = models.DateTimeField(null=True)
    captured_amount = Money(null=True)
    operation_id = models.UUIDField(null=True)  # what captured it
    description = models.CharField(max_length=500, db_default="")
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    objects = Holds.as_manager()

    class Meta:
        db_table = "hold"

    def __str__(self) -> str:
        return f"hold {self.id}"


class InboxEntry(models.Model):
    """An operation that was accepted for later. Decided, it leaves for the ledger."""

    id = models.UUIDField(primary_key=True)  # the operation's
    position = models.BigIntegerField(editable=False)  # the order in which they came
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
    description = models.CharField(max_length=500, db_default="")
    metadata = models.JSONField(db_default={})
    actor = models.CharField(max_length=200, db_default="")
    created_at = models.DateTimeField()
    sees_target = models.BooleanField(null=True)  # whether its caller may read the other wallet
    attempts = models.IntegerField(db_default=0)  # that failed
    last_error = models.CharField(max_length=500, db_default="")
    next_attempt_at = models.DateTimeField(null=True)  # not before; null: at once
    set_aside_at = models.DateTimeField(null=True)  # the last attempt failed: an operator decides

    class Meta:
        db_table = "inbox"
        verbose_name_plural = "inbox"

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class OperationId(models.Model):
    """An id that names an operation or inbox entry, and its wallet. A trigger of these tables writes it."""

    id = models.UUIDField(primary_key=True)
    wallet_id = models.UUIDField()

    class Meta:
        db_table = "operation_id"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.id} of {self.wallet_id}"


class KeyedRequest(models.Model):
    """The first request under an Idempotency-Key, where no wallet's ledger remembers it. Append-only."""

    id = models.UUIDField(primary_key=True)  # also of what the request makes
    domain = models.CharField(max_length=64)  # whose key it is: Principal.key_domain
    key = models.CharField(max_length=255)
    digest = models.BinaryField()  # SHA-256 of the checked request (wallets/keyed_requests.py)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "keyed_request"
        default_permissions = ()

    def __str__(self) -> str:
        return self.key


class ApiKey(models.Model):
    """What a program calls the API with. Its secret is not here: only what it hashes to."""

    prefix = models.CharField(primary_key=True, max_length=8)
    digest = models.BinaryField()  # SHA-256 of the secret
    name = models.CharField(max_length=200)
    owner = models.ForeignKey(User, null=True, on_delete=models.PROTECT, db_index=False)
    is_restricted_to_owner = models.BooleanField(db_default=False)  # to the wallets that the owner owns
    scopes = ArrayField(models.TextField())
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)  # at most a minute ago, where it is in use

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"


class Subscriber(models.Model):
    """Who is told what happens: where, of what, and how far they are in the log."""

    class Kind(models.TextChoices):
        WEBHOOK = "WEBHOOK"
        BROKER = "BROKER"  # of EVENTS_BROKER_URL

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=100, unique=True)
    url = models.CharField(max_length=2000, db_default="")
    types = ArrayField(models.CharField(max_length=64), db_default=[])  # none: all
    batch = models.IntegerField(db_default=1)  # events in one request
    is_enabled = models.BooleanField(db_default=True)
    disabled_because = models.CharField(max_length=500, db_default="")
    secret = models.CharField(max_length=100, db_default="")
    secret_at = models.DateTimeField(db_default=Now())  # when it was made: it is shown for an hour
    former_secret = models.CharField(max_length=100, db_default="")  # signs as well, after a rotation
    former_secret_until = models.DateTimeField(null=True)
    rotation_id = models.UUIDField(null=True)  # the request for the newest secret: its repeat is a replay
    registered_with = models.JSONField(null=True)  # what was asked for: a repeat is held to it
    begin_xid = TransactionId()
    end_xid = TransactionId(null=True)
    after_at = models.DateTimeField(null=True)
    after_id = models.UUIDField(null=True)
    failures = models.IntegerField(db_default=0)  # one after the other, up to now
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
    """An event that a subscriber has not taken.

    With a position (entry_at, entry_id) it stands for all later events of its wallet as well, up to the
    subscriber's position in the log: one row for each wallet that waits. Without one it stands for itself:
    DEAD, or replayed, or parked by code before version 7.
    """

    class Status(models.TextChoices):
        WAITING = "WAITING"
        DEAD = "DEAD"

    subscriber = models.ForeignKey(Subscriber, on_delete=models.CASCADE, db_index=False)
    event_id = models.CharField(max_length=64)
    type = models.CharField(max_length=64)
    wallet_id = models.UUIDField()
    entry_at = models.DateTimeField(null=True)  # the position: the log's entry that has the event
    entry_id = models.UUIDField(null=True)
    event = models.TextField(null=True)  # not used: only code before version 7 stored the event's text
    status = models.CharField(max_length=16, choices=Status.choices, db_default=Status.WAITING)
    attempts = models.IntegerField(db_default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    last_error = models.CharField(max_length=500, db_default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "parked_event"
        default_permissions = ()  # they are looked at with their subscriber

    def __str__(self) -> str:
        return self.event_id


class Delivery(models.Model):
    """One attempt to deliver to a webhook. The newest are kept."""

    subscriber = models.ForeignKey(Subscriber, on_delete=models.CASCADE, db_index=False)
    event_id = models.CharField(max_length=64)  # the first of them
    events = models.IntegerField()
    at = models.DateTimeField()
    duration = models.DurationField()
    status_code = models.IntegerField(null=True)  # none: there was no answer
    error = models.CharField(max_length=500, db_default="")
    response = models.CharField(max_length=500, db_default="")

    class Meta:
        db_table = "delivery"
        default_permissions = ()
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"{self.event_id} at {self.at}"


class LedgerCheck(models.Model):
    """Once the whole ledger was verified. Append-only: nobody takes back what was found."""

    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(db_default=Now())
    wallets = models.BigIntegerField()
    differences = models.BigIntegerField()
    operations = models.BigIntegerField(db_default=0)
    snapshot = SnapshotField(null=True)  # what it has seen of the ledger at least
    is_incremental = models.BooleanField(db_default=False)  # it has seen only what came after the one before

    class Meta:
        db_table = "ledger_check"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.differences} differences in {self.wallets} wallets"


class RateLimit(models.Model):
    """How often somebody has asked in the window that began then (wallets/access/limits.py)."""

    subject = models.CharField(
        primary_key=True, max_length=300
    )  # the limit and whom it is for: "login:127.0.0.1"
    began_at = models.DateTimeField()
    hits = models.BigIntegerField()

    class Meta:
        db_table = "rate_limit"
        default_permissions = ()

    def __str__(self) -> str:
        return self.subject
