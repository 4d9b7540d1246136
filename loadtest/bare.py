"""The service without its ledger, as a WSGI application: `gunicorn -c walletsvc/gunicorn.py loadtest.bare`.

The yardstick for what HTTP, Django and the API cost alone. Only what the views ask of the ledger is replaced,
by constants: everything that the service does with a request before and after that, this does as well, and no
database is touched.
"""

from datetime import UTC, datetime
from decimal import Decimal

from uuid_utils.compat import uuid7

from walletsvc.wsgi import application

# The import above has set Django up, which these need.
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
