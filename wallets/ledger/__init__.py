"""The only place where money moves.

`submit` is how a command gets here; `wallets` opens and changes wallets; `verify` proves the books.
"""

from wallets.ledger.commands import Command
from wallets.ledger.execute import Posted, execute
from wallets.problems import Problem


def submit(command: Command) -> Posted:
    """Carry out one command; return when it is committed.

    Raises Problem (the refusal) with nothing moved, or django.db.Error when the database failed.
    """
    outcome = execute([command])[0]
    if isinstance(outcome, Problem):
        raise outcome
    return outcome
