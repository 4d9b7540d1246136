"""Request schemas. The OpenAPI document is built from them.

pydantic instead of REST framework's serializers: the same checks and schemas take half the time of a request.
"""

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Self, cast

from django.conf import settings
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import CoreSchema, PydanticCustomError
from typing_extensions import TypeAliasType

from wallets.contract.fields import (
    Amount,
    AmountParameter,
    CsvSeparator,
    CurrencyCode,
    CurrencyFilter,
    DecidedStatus,
    DepositOrWithdraw,
    Description,
    Email,
    EventType,
    ExternalId,
    Flag,
    HoldStatus,
    Id,
    Key,
    Label,
    Limit,
    Login,
    Metadata,
    MetadataFilters,
    MetadataPatch,
    Name,
    Password,
    PositiveAmount,
    PrintableText,
    Reference,
    Schema,
    Seconds,
    TimeInBody,
    TimeParameter,
    Types,
    WalletStatus,
    WebhookStart,
    text_of,
    whole_number,
)
from wallets.events.target_policy import MAX_URL_LENGTH, NotAllowed, check_url

MAX_BULK_ITEMS: Final = 1000
MAX_BULK_KEY_LENGTH: Final = 251  # with the number of an item, such as "/999", it has 255 characters
MAX_EVENTS_PER_REQUEST: Final = 500  # in one request to a webhook
DEFAULT_FORMER_SECRET_HOURS: Final = 24  # for which the former secret of a webhook signs too
MAX_FORMER_SECRET_HOURS: Final = 168
SAME_WALLET: Final = ("same_wallet", "source and target must be different wallets")


class _Body(Schema):
    """A request body. null means the same as an absent field, if the field may be absent."""

    _optional_fields: ClassVar[frozenset[str]]
    _removable_fields: ClassVar[frozenset[str]] = frozenset()  # null removes their value

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls._optional_fields = frozenset(
            field.alias or name
            for name, field in cls.model_fields.items()
            if not field.is_required() and name not in cls._removable_fields
        )

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or None not in fields.values():
            return fields
        optional = cls._optional_fields
        return {name: value for name, value in fields.items() if value is not None or name not in optional}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name in cls._optional_fields:
            schema["properties"][name] = _or_null(schema["properties"][name])
        return schema


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    null = {"type": "null"}
    if null in field.get("anyOf", ()):
        return field
    about = {name: field[name] for name in ("title", "description", "default", "examples") if name in field}
    return {"anyOf": [{name: field[name] for name in field if name not in about}, null]} | about


# --- Wallets ----------------------------------------------------------------------------------------
class WalletToOpen(_Body):
    currency: CurrencyCode = Field(default_factory=lambda: settings.DEFAULT_CURRENCY)
    external_id: ExternalId | None = None
    label: Label = ""
    overdraft_limit: Amount = Decimal(0)
    max_balance: Amount | None = None
    metadata: Metadata = Field(default_factory=dict)
    id: Id | None = None


def _of_changes(schema: JsonDict) -> None:
    """Require at least one field, and remove the defaults: an absent field stays as it is."""
    schema["minProperties"] = 1
    for field in cast(dict[str, JsonDict], schema["properties"]).values():
        field.pop("default", None)


class _Changes(_Body):
    """A request to change at least one field; an absent field stays as it is."""

    model_config = ConfigDict(json_schema_extra=_of_changes)

    @model_validator(mode="before")
    @classmethod
    def names_a_field(cls, fields: Any) -> Any:
        if fields == {}:
            *names, last = (str(field.alias) for field in cls.model_fields.values())
            named = {"names": f"{', '.join(names)} and {last}"}
            raise PydanticCustomError("required", "name at least one of {names}", named)
        return fields

    def given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class WalletChanges(_Changes):
    _removable_fields = frozenset(("external_id", "max_balance", "owner_email"))

    external_id: ExternalId | None = None
    label: Label = ""
    metadata: MetadataPatch = Field(default_factory=dict)
    status: WalletStatus = "ACTIVE"
    overdraft_limit: Amount = Decimal(0)
    max_balance: Amount | None = Field(None, description="null removes it.")
    owner_email: Email | None = Field(
        None, description="The verified address of the account that owns the wallet from now on; null: none."
    )


# --- What moves money -------------------------------------------------------------------------------
class OperationToPost(_Body):
    operation_type: DepositOrWithdraw
    amount: PositiveAmount
    reference: Reference = ""
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    id: Id | None = None


class WalletOperationToPost(OperationToPost):
    """A deposit or withdrawal with the wallet in the body."""

    wallet_id: Id = Field(
        validation_alias=AliasChoices("walletId", "valletId"), serialization_alias="walletId"
    )


class _Transfer(_Body):
    source_wallet_id: Id
    amount: PositiveAmount
    reference: Reference = ""
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    id: Id | None = None

    @model_validator(mode="after")
    def has_two_wallets(self) -> Self:
        if self.source_wallet_id == getattr(self, "target_wallet_id"):  # noqa: B009
            raise PydanticCustomError(*SAME_WALLET)
        return self


def _given(name: str) -> JsonDict:
    """Return a schema that requires the field and excludes null."""
    return {"required": [name], "properties": {name: {"type": "string"}}}


# Generators ignore these keywords; beside a oneOf they would drop the fields.
_ONE_TARGET: Final[JsonDict] = {
    "if": _given("targetWalletId"),
    "then": {"properties": {"targetEmail": {"type": "null"}}},
    "else": _given("targetEmail"),
}


class TransferToPost(_Transfer):
    """A transfer to a wallet, or to the first wallet of the user with an e-mail address in the currency.

    Name either targetWalletId or targetEmail.
    """

    model_config = ConfigDict(json_schema_extra=_ONE_TARGET)

    target_wallet_id: Id | None = None
    target_email: Email | None = None

    @model_validator(mode="after")
    def has_one_target(self) -> Self:
        if (self.target_wallet_id is None) == (self.target_email is None):
            raise PydanticCustomError("required", "name either targetWalletId or targetEmail")
        return self


class BulkOperation(WalletOperationToPost):
    """A deposit or withdrawal of a bulk, with its own idempotency key in the body."""

    idempotency_key: Key | None = None


class BulkTransfer(_Transfer):
    target_wallet_id: Id
    idempotency_key: Key | None = None


_ONLY_OF_OPERATIONS: Final = ("operationType", "walletId", "valletId")


def _kind_in_bulk(item: object) -> str:
    if not isinstance(item, dict):
        return "operation" if isinstance(item, BulkOperation) else "transfer"
    # Without its operationType too, an item with a walletId is meant to be an operation.
    return "transfer" if item.keys().isdisjoint(_ONLY_OF_OPERATIONS) else "operation"


BulkItem = TypeAliasType(
    "BulkItem",
    Annotated[
        Annotated[BulkOperation, Tag("operation")] | Annotated[BulkTransfer, Tag("transfer")],
        Discriminator(_kind_in_bulk),
    ],
)


class BulkToPost(_Body):
    """Up to 1,000 items. With `atomic` all of them are executed or none."""

    operations: Annotated[list[BulkItem], Field(min_length=1, max_length=MAX_BULK_ITEMS)]
    atomic: Annotated[bool, Field(strict=True)] = False


class HoldToPlace(_Body):
    amount: PositiveAmount
    expires_at: TimeInBody | None = Field(None, description="Without it, the hold does not expire.")
    reference: Reference = ""
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    id: Id | None = None


class _FollowUp(_Body):
    """A command that refers to a hold or an operation. It inherits each absent field from there."""

    reference: Reference = ""
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    id: Id | None = None


class PartToTake(_FollowUp):
    """The amount to capture of a hold or to reverse of an operation."""

    amount: PositiveAmount | None = Field(None, description="By default the whole remaining amount.")


class HoldToVoid(_FollowUp):
    """The void of a hold; all fields are optional."""


# --- Webhooks ---------------------------------------------------------------------------------------
def _webhook_url(value: object) -> str:
    url = text_of(value)
    try:
        check_url(url)
    except NotAllowed as error:
        raise PydanticCustomError("invalid_url", "{reason}", {"reason": str(error)}) from None
    return url


def _each_once(types: list[str]) -> list[str]:
    if len(set(types)) != len(types):
        raise PydanticCustomError("conflict", "names a type twice")
    return types


WebhookName = Annotated[PrintableText, Field(max_length=100)]
WebhookUrl = Annotated[
    str,
    BeforeValidator(_webhook_url),
    Field(
        max_length=MAX_URL_LENGTH,
        examples=["https://example.com/events"],
        json_schema_extra={"format": "uri"},
    ),
]
WebhookTypes = Annotated[
    list[EventType],
    AfterValidator(_each_once),
    Field(description="The types of events to deliver; an empty list means all types."),
]
Batch = Annotated[
    int,
    Field(ge=1, le=MAX_EVENTS_PER_REQUEST, description="The maximum number of events in one request."),
    whole_number(1, MAX_EVENTS_PER_REQUEST),
]


class WebhookToRegister(_Body):
    name: WebhookName
    url: WebhookUrl
    types: WebhookTypes = Field(default_factory=list)
    batch: Batch = 1
    from_: WebhookStart = Field(
        "now", alias="from", description="Deliver only new events, or all events since the first one."
    )
    id: Id | None = None


class WebhookChanges(_Changes):
    name: WebhookName = ""
    url: WebhookUrl = ""
    types: WebhookTypes = Field(default_factory=list)
    batch: Batch = 1
    is_enabled: Annotated[bool, Field(strict=True)] = True


class SecretToRotate(_Body):
    former_valid_hours: Annotated[
        int, Field(ge=0, le=MAX_FORMER_SECRET_HOURS), whole_number(0, MAX_FORMER_SECRET_HOURS)
    ] = Field(DEFAULT_FORMER_SECRET_HOURS, description="The hours for which the former secret signs too.")
    id: Id | None = None


# --- Queries ----------------------------------------------------------------------------------------
class PageQuery(Schema):
    """The size of a page, and where it starts."""

    limit: Limit = 50
    cursor: str | None = Field(None, description="nextCursor of the previous page; it includes the filters.")


class MetadataQuery(PageQuery):
    metadata: MetadataFilters = Field(default_factory=dict)


class OperationQuery(MetadataQuery):
    type: Types | None = Field(None, description="One type, or several with commas between them.")
    status: DecidedStatus | None = None
    from_: TimeParameter | None = Field(None, alias="from", description="Operations at this time or later.")
    to: TimeParameter | None = Field(None, description="Operations before this time.")
    min_amount: AmountParameter | None = None
    max_amount: AmountParameter | None = None
    reference: Annotated[Reference, Field(min_length=1)] | None = None


class OperationSearchQuery(OperationQuery):
    wallet_id: Id | None = None
    idempotency_key: Key | None = Field(None, description="As the client sent it, in any wallet.")
    transfer_id: Id | None = None


class WalletSearchQuery(MetadataQuery):
    external_id: ExternalId | None = None
    currency: CurrencyFilter | None = None
    status: WalletStatus | None = None
    owner_email: Email | None = None
    label: Annotated[Label, Field(min_length=1)] | None = Field(
        None, description="The start of the label, in any case."
    )


class HoldQuery(PageQuery):
    status: HoldStatus | None = None


class BalanceQuery(Schema):
    at: TimeParameter | None = Field(
        None, description="By default now, which a time in the future counts as."
    )


class EventsQuery(Schema):
    seconds: Seconds = Field(
        300,
        description="How long to keep the stream open; 0 returns the events since Last-Event-ID.",
    )


class StatementQuery(Schema):
    from_: TimeParameter | None = Field(
        None, alias="from", description="From this time on; by default from the opening of the wallet."
    )
    to: TimeParameter | None = Field(
        None, description="Before this time; by default until now, which a time in the future counts as."
    )
    bom: Flag = Field(
        False,
        description="Whether CSV starts with a byte order mark, which spreadsheet programs need for UTF-8.",
    )
    separator: CsvSeparator = Field("comma", description="Between the cells of CSV.")


# --- People -----------------------------------------------------------------------------------------
class PersonToSignUp(_Body):
    name: Name
    email: Email
    password: Password


class Credentials(_Body):
    """The credentials of a user; an operator sends the user name as `email`."""

    email: Login
    password: Password
