"""Views with a serializer, a lock, a save and a create, as most wallet services have them."""

from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from rest_framework import serializers
from rest_framework.generics import RetrieveAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from uuid_utils.compat import uuid7

from wallets.models import OPERATION_CHOICES, Operation, Wallet

LINKS = {"transferId": None, "counterpartyWalletId": None, "holdId": None, "reversesId": None}


class MoneyField(serializers.DecimalField):
    def __init__(self, **options: object) -> None:
        super().__init__(max_digits=28, decimal_places=2, **options)  # type: ignore[arg-type]


class WalletSerializer(serializers.Serializer[Wallet]):
    id = serializers.UUIDField()
    currency = serializers.CharField()
    balance = MoneyField()
    held = MoneyField()
    available = serializers.SerializerMethodField()
    overdraftLimit = MoneyField(source="overdraft_limit")
    maxBalance = MoneyField(source="max_balance")
    status = serializers.CharField()
    externalId = serializers.CharField(source="external_id")
    label = serializers.CharField()  # type: ignore[assignment]
    metadata = serializers.JSONField()
    sequence = serializers.IntegerField()
    createdAt = serializers.DateTimeField(source="created_at")
    updatedAt = serializers.DateTimeField(source="updated_at")

    def get_available(self, wallet: Wallet) -> str:
        return f"{wallet.balance - wallet.held:.2f}"


class OperationSerializer(serializers.Serializer[Operation]):
    id = serializers.UUIDField(read_only=True)
    walletId = serializers.UUIDField(source="wallet_id", read_only=True)
    sequence = serializers.IntegerField(read_only=True)
    operationType = serializers.ChoiceField(source="type", choices=OPERATION_CHOICES)
    amount = MoneyField(min_value=Decimal("0.01"))
    currency = serializers.CharField(source="wallet.currency", read_only=True)
    status = serializers.CharField(read_only=True)
    reason = serializers.CharField(read_only=True)
    balance = MoneyField(source="balance_after", read_only=True)
    idempotencyKey = serializers.CharField(source="idempotency_key", read_only=True)
    reference = serializers.CharField(max_length=255, required=False)
    description = serializers.CharField(max_length=500, required=False)
    metadata = serializers.JSONField(required=False)
    createdAt = serializers.DateTimeField(source="created_at", read_only=True)


class ReadWallet(RetrieveAPIView[Wallet]):
    queryset = Wallet.objects.all()
    serializer_class = WalletSerializer
    lookup_url_kwarg = "wallet_id"


class NaiveOperation(APIView):
    def post(self, request: Request, wallet_id: UUID) -> Response:
        serializer = OperationSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        amount: Decimal = serializer.validated_data["amount"]
        is_deposit = serializer.validated_data["type"] == "DEPOSIT"
        with transaction.atomic():
            wallet = get_object_or_404(Wallet.objects.select_for_update(), id=wallet_id)
            balance = wallet.balance + amount if is_deposit else wallet.balance - amount
            if balance < 0:
                raise serializers.ValidationError({"amount": "insufficient funds"})
            wallet.balance = balance
            wallet.sequence += 1
            wallet.updated_at = timezone.now()
            wallet.save(update_fields=["balance", "sequence", "updated_at"])
            operation = Operation.objects.create(
                id=uuid7(),
                wallet=wallet,
                sequence=wallet.sequence,
                balance_after=balance,
                status=Operation.Status.COMPLETED,
                created_at=wallet.updated_at,
                hash=bytes(32),  # without a hash chain
                **serializer.validated_data,
            )
        return Response(OperationSerializer(operation).data | LINKS, status=201)
