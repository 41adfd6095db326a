"""The sentence that says whether anything got lost, and the sums that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from afresh import ComputeService, compute_method
from afresh.ui.nicegui import live

from ..backstage.contracts import BROKER, Backstage
from ..departments.contracts import DEPARTMENTS
from ..page import box, icon
from .parts import counted, words


@dataclass(frozen=True, slots=True)
class Verdict:
    """How things stand: a sentence, what it means, and how it looks."""

    sentence: str
    comment: str
    look: str
    picture: str


class Ledger(ComputeService):
    """Compares what the shop has placed with what each department has handled.

    Args:
        backstage: counts orders, and knows who is down.
    """

    def __init__(self, backstage: Backstage) -> None:
        self._board = backstage.board
        self._processes = backstage.processes
        self._mischief = backstage.mischief

    @compute_method
    async def placed(self) -> int:
        """Orders that the shop has taken, ever."""
        return await self._board.orders("shop")

    @compute_method
    async def handled(self, department: str) -> int:
        """Of those, how many a department has done its part of."""
        return await self._board.orders(department)

    @compute_method
    async def waiting(self, department: str) -> int:
        """Of those, how many it has yet to hear of."""
        # The two numbers come from two processes: the department may be the first to report.
        return max(0, await self.placed() - await self.handled(department))

    @compute_method
    async def verdict(self) -> Verdict:
        placed = await self.placed()
        waiting = {each: await self.waiting(each) for each in DEPARTMENTS}
        most = max(waiting.values())
        if placed == 0:
            return Verdict(
                "No orders yet.",
                "Place one, and watch it reach three services.",
                "calm",
                "shopping_basket",
            )
        if most == 0:
            dead = sum([len(await self._mischief.dead(each)) for each in DEPARTMENTS])
            lying = f"{counted(dead, 'dead letter')} to look at." if dead else "Nothing got lost."
            return Verdict(all_arrived(placed), lying, "good", "check_circle")
        orders = counted(most, "order")
        verb = "waits" if most == 1 else "wait"
        if await self._is_down(BROKER):
            return Verdict(
                f"{orders} {verb} for the broker.",
                "Kept in the outbox, written in the same transaction as the order itself.",
                "warn",
                "hourglass_top",
            )
        late = [each for each, count in waiting.items() if count]
        down = [each for each in late if await self._is_down(each)]
        names = " and ".join([await self._processes.title(each) for each in down or late])
        if down:
            return Verdict(
                f"{orders} {verb} for {names}.",
                "Kept by the broker until somebody is there to take them.",
                "warn",
                "hourglass_top",
            )
        if [each for each in late if await self._mischief.is_failing(each)]:
            return Verdict(
                f"{orders} {verb} for {names}, which fails just now.",
                "Each delivery is tried again, a little later each time.",
                "warn",
                "replay",
            )
        return Verdict(
            f"{orders} {'is' if most == 1 else 'are'} on the way to {names}.",
            "It takes a moment.",
            "busy",
            "local_shipping",
        )

    async def _is_down(self, name: str) -> bool:
        if name not in await self._processes.names():
            return False
        return await self._processes.state(name) != "running"


def all_arrived(placed: int) -> str:
    if placed == 1:
        return "The one order has reached all three services."
    return f"All {placed:,} orders have reached all three services."


class VerdictPanel:
    """Shows the ledger.

    Args:
        backstage: knows what departments are called.
        ledger: what to show.
    """

    def __init__(self, backstage: Backstage, ledger: Ledger) -> None:
        self._processes = backstage.processes
        self._ledger = ledger

    def build(self) -> None:
        with box("panel verdict", "section").props('aria-label="Is anything lost?"'):
            with box("verdict-words").props("role=status"):
                self.sentence()
            with box("ledger"):
                self.placed()
                for department in DEPARTMENTS:
                    self.share(department)

    @live(delay=0.2)
    async def sentence(self) -> None:
        verdict = await self._ledger.verdict()
        with box(f"verdict-icon {verdict.look}"):
            icon(verdict.picture, 26)
        with box("stack grow"):
            words(verdict.sentence, "sentence")
            words(verdict.comment, "soft")

    @live(delay=0.2)
    async def placed(self) -> None:
        with box("share").mark("placed"):
            words("Orders placed", "soft small")
            words(f"{await self._ledger.placed():,}", "number")

    @live(delay=0.2)
    async def share(self, department: str) -> None:
        placed = await self._ledger.placed()
        waiting = await self._ledger.waiting(department)
        handled = placed - waiting
        with box("share").mark(department):
            words(await self._processes.title(department), "soft small clip")
            with box("share-numbers"):
                words(f"{handled:,}", "number")
                if waiting:
                    words(f"{waiting:,} waiting", "note warn numbers")
                elif placed:
                    words("all", "note good")
            gauge = box(f"gauge {'short' if waiting else ''}")
            gauge.props["aria-hidden"] = "true"
            with gauge:
                box("").style(f"width: {100 * handled / max(placed, 1):.1f}%")
