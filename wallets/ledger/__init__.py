"""The only place where money moves.

`submit` is how a command gets here; `origins` finds what a command refers to; `wallets` opens and changes
wallets; `reader` reads them; `inbox` carries out what was accepted for later; `verify` proves the books.
"""

from collections.abc import Sequence
from typing import cast

from wallets.ledger.commands import AtomicBulk, Command
from wallets.ledger.committer import commit, commit_all
from wallets.ledger.decisions import Posted
from wallets.problems import Problem


def submit(command: Command) -> Posted:
    """Carry out one command; return when it is committed.

    Raises Problem: the refusal, with nothing moved; TooManyRequests, with nothing applied; or Unavailable,
    with the outcome unknown (a repeat with the same key finds it out).
    """
    outcome = commit(command)
    if isinstance(outcome, Problem):
        raise outcome
    return cast(Posted, outcome)  # a list only for commands that belong together


def submit_all(commands: Sequence[Command]) -> list[Posted | Exception]:
    """Carry out the commands in their order, each by itself: what `submit` returns or raises for each.

    Raises TooManyRequests where there is not room for all of them: then none was applied.
    """
    return cast(list[Posted | Exception], commit_all(commands))


def submit_atomically(commands: Sequence[Command]) -> list[Posted]:
    """Carry out all of the commands or none of them. Raises as `submit` does, for the first refusal."""
    outcomes = commit(AtomicBulk(commands=tuple(commands)))
    if isinstance(outcomes, Problem):
        raise outcomes
    return cast(list[Posted], outcomes)  # of those that were refused there is but the first refusal
