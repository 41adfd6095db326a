"""Random commands for a `Ledger`: all its kinds, in a mix that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from .ledger import Announce, Compound, Deposit, HoldOn, Order, Transfer, Withdraw


def random_commands(chance: random.Random, name: str, count: int, accounts: int) -> Iterator[Any]:
    """So many commands, each with a token of its own that begins with `name`."""
    for number in range(count):
        token = f"{name}.{number}"
        account, other = chance.randrange(accounts), chance.randrange(accounts)
        amount = chance.randrange(1, 100)
        match chance.choices(range(8), (30, 15, 15, 12, 10, 10, 5, 3))[0]:
            case 0:
                yield Deposit(account, amount, token)
            case 1:
                yield Withdraw(account, amount, token)
            case 2:
                yield Compound(account, token)
            case 3:
                yield Transfer(account, other, amount, token)
            case 4:
                yield Transfer(account, other, 10 * amount, token, is_lenient=True)
            case 5:
                yield Order(account, token, count=chance.randrange(1, 3))
            case 6:
                yield Announce(account, token)
            case 7:
                yield HoldOn(account, chance.uniform(0.01, 0.15), token)
