"""Contains all the data models used in inputs/outputs"""

from .balance import Balance
from .bulk import Bulk
from .bulk_result import BulkResult
from .dead_letter import DeadLetter
from .dead_letter_event import DeadLetterEvent
from .dead_letter_page import DeadLetterPage
from .delivery import Delivery
from .delivery_page import DeliveryPage
from .event_type import EventType
from .field_problem import FieldProblem
from .hold import Hold
from .hold_detail import HoldDetail
from .hold_detail_metadata import HoldDetailMetadata
from .hold_metadata import HoldMetadata
from .hold_page import HoldPage
from .hold_status import HoldStatus
from .operation import Operation
from .operation_detail import OperationDetail
from .operation_detail_metadata import OperationDetailMetadata
from .operation_metadata import OperationMetadata
from .operation_page import OperationPage
from .operation_status import OperationStatus
from .operation_type import OperationType
from .own_wallet import OwnWallet
from .person import Person
from .problem import Problem
from .registered_webhook import RegisteredWebhook
from .replay import Replay
from .secret import Secret
from .statement import Statement
from .stream_event import StreamEvent
from .stream_event_type import StreamEventType
from .transfer import Transfer
from .wallet import Wallet
from .wallet_metadata import WalletMetadata
from .wallet_page import WalletPage
from .wallet_status import WalletStatus
from .webhook import Webhook
from .webhook_page import WebhookPage

__all__ = (
    "Balance",
    "Bulk",
    "BulkResult",
    "DeadLetter",
    "DeadLetterEvent",
    "DeadLetterPage",
    "Delivery",
    "DeliveryPage",
    "EventType",
    "FieldProblem",
    "Hold",
    "HoldDetail",
    "HoldDetailMetadata",
    "HoldMetadata",
    "HoldPage",
    "HoldStatus",
    "Operation",
    "OperationDetail",
    "OperationDetailMetadata",
    "OperationMetadata",
    "OperationPage",
    "OperationStatus",
    "OperationType",
    "OwnWallet",
    "Person",
    "Problem",
    "RegisteredWebhook",
    "Replay",
    "Secret",
    "Statement",
    "StreamEvent",
    "StreamEventType",
    "Transfer",
    "Wallet",
    "WalletMetadata",
    "WalletPage",
    "WalletStatus",
    "Webhook",
    "WebhookPage",
)
