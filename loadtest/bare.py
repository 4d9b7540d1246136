"""The service without its ledger, as a WSGI application: `gunicorn -c walletsvc/gunicorn.py loadtest.bare`.

It measures the cost of HTTP, Django and the API alone. Constants replace the calls of the views into the
ledger; everything before and after them is as in the service. It uses no database.
"""

from datetime import UTC, datetime
from decimal import Decimal

from uuid_utils.compat import uuid7

from walletsvc.wsgi import application

# These need Django, which the import above has set up.
from wallets import ledger  # isort: skip
from wallets.api import wallets as views  # isort: skip
from wallets.ledger.decisions import Posted  # isort: skip
from wallets.ledger.tables import Record  # isort: skip
from wallets.models import Operation, Wallet  # isort: skip

__all__ = ["application"]

NOW = datetime.now(UTC)
WALLET = Wallet(
    id=uuid7(),
    currency="RUB",
    balance=Decimal("1000000.0000"),
    held=Decimal("0.0000"),
    overdraft_limit=Decimal("0.0000"),
    sequence=100_000,
    status=Wallet.Status.ACTIVE,
    label="loadtest",
    metadata={},
    created_at=NOW,
    updated_at=NOW,
)
POSTED = Posted(
    Record(
        id=uuid7(),
        wallet_id=WALLET.id,
        sequence=100_000,
        type="DEPOSIT",
        amount=Decimal("1.50"),
        balance_after=Decimal("1000000.0000"),
        status=Operation.Status.COMPLETED,
        description="",
        metadata={},
        actor="",
        created_at=NOW,
    ),
    currency="RUB",
)

ledger.submit = lambda command: POSTED
views.read_wallet = lambda wallet_id: WALLET  # type: ignore[attr-defined]
