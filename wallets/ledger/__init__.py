"""The only place where money moves.

`submit` is how a command gets here; `wallets` opens and changes wallets; `reader` reads them; `verify` proves
the books.
"""

from wallets.ledger.commands import Command
from wallets.ledger.committer import commit
from wallets.ledger.execute import Posted
from wallets.problems import Problem


def submit(command: Command) -> Posted:
    """Carry out one command; return when it is committed.

    Raises Problem: the refusal, with nothing moved; TooManyRequests, with nothing applied; or Unavailable,
    with the outcome unknown (a repeat with the same key finds it out).
    """
    outcome = commit(command)
    if isinstance(outcome, Problem):
        raise outcome
    return outcome
