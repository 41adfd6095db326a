"""Orders from one process to another: a JSON list with a name and its arguments on a line, and one
line of JSON back. `Process` gives them, `carry_out_orders` takes them.
"""

import asyncio
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from threading import Thread
from typing import Any, NoReturn

Orders = Mapping[str, Callable[..., Awaitable[Any]]]
"""Name of an order to what carries it out, in the event loop."""


class Process:
    """A process that takes orders on its standard input, one at a time, and ends when that is
    closed.
    """

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self.name = name
        self.process = process

    @cached_property
    def first(self) -> Any:
        """What it said before it took any order."""
        return self.answer()

    def tell(self, order: str, *arguments: Any) -> None:
        """Give an order without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([order, *arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer to the order before."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended early; its error is above.")
        return json.loads(line)

    def ask(self, order: str, *arguments: Any) -> Any:
        """Give an order and wait for the answer."""
        self.tell(order, *arguments)
        return self.answer()

    def end(self) -> None:
        """Let the process end, and wait for that."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


async def carry_out_orders(first: Any, orders: Orders) -> NoReturn:
    """Say something first, then carry out orders; the process ends when standard input does.

    A thread waits for orders, so that the event loop has nothing to do with it.
    """
    loop = asyncio.get_running_loop()

    def listen() -> None:
        try:
            print(json.dumps(first), flush=True)
            for line in sys.stdin:
                order, *arguments = json.loads(line)
                working: Any = orders[order](*arguments)
                answer = asyncio.run_coroutine_threadsafe(working, loop).result()
                print(json.dumps(answer), flush=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        # Nothing is tidied up: connections by the thousand would all have a word to say about it.
        os._exit(0)

    Thread(target=listen, daemon=True).start()
    await loop.create_future()
    raise AssertionError("nothing wakes it up")
