"""The service without its chain of hashes: `gunicorn -c walletsvc/gunicorn.py loadtest.unchained`.

The yardstick for what the chain costs: the columns are there, and nothing is computed for them. What it
writes cannot be verified.
"""

from walletsvc.wsgi import application

# The import above has set Django up, which this needs.
from wallets.ledger import chain  # isort: skip

__all__ = ["application"]

UNKNOWN = bytes(32)

chain.canonical = lambda it: b""
chain.link = lambda previous, canonical: UNKNOWN
