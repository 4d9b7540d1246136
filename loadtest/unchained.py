"""The service without its hash chain: `gunicorn -c walletsvc/gunicorn.py loadtest.unchained`.

It measures the cost of the chain: no hash is computed, so its operations cannot be verified.
"""

from walletsvc.wsgi import application

# This needs Django, which the import above has set up.
from wallets.ledger import chain  # isort: skip

__all__ = ["application"]

NO_HASH = bytes(32)

chain.canonical = lambda it: b""
chain.link = lambda previous, canonical: NO_HASH
