"""The diagram of the flow page: who talks to whom, what moves just now, and who is down.

Nodes and lines keep their elements from one second to the next, so that the animation of a line
goes on without a jump for as long as something moves along it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from nicegui import Client as Visitor
from nicegui import ui

from afresh.ui.nicegui import live

from ..backstage.contracts import BROKER, Backstage, Counts, State
from ..departments.contracts import DEPARTMENTS
from ..page import box, icon
from .figures import age
from .parts import counted, state_chip, titled, words
from .traffic import Traffic

ICONS = {"notification": "notifications", "analytics": "bar_chart", "inventory": "inventory_2"}
NONE = Counts()

Look = Literal["", "flowing", "blocked"]

# Lines are drawn in a box of 100 by 100, which is stretched to where they are. Where a screen is
# narrow, everything goes from top to bottom: the style sheet lets x and y change places.
STRAIGHT = "M0 50 H100"
FAN = ("M0 50 C50 50 50 16.7 100 16.7", "M0 50 H100", "M0 50 C50 50 50 83.3 100 83.3")
SPREAD = ("M100 50 C50 50 50 16.7 0 16.7", "M100 50 H0", "M100 50 C50 50 50 83.3 0 83.3")
GATHER = ("M0 16.7 C50 16.7 50 50 100 50", "M0 50 H100", "M0 83.3 C50 83.3 50 50 100 50")


class Diagram:
    """The shop, its clients, the broker and the departments, with what moves between them.

    Args:
        backstage: counts, and knows the state of each process.
        traffic: what has just moved.
    """

    def __init__(self, backstage: Backstage, traffic: Traffic) -> None:
        self._board = backstage.board
        self._processes = backstage.processes
        self._mischief = backstage.mischief
        self._traffic = traffic

    def build(self) -> None:
        with box("panel diagram", "section").props('aria-label="What flows where"'):
            titled("What flows where", "Each line moves while something passes along it.")
            with box("stage"):
                with box("zone sync"):
                    words("Client-server sync: afresh", "zone-title")
                with box("zone events"):
                    words("Service-to-service events: message broker", "zone-title wide-only")
                    words("Message broker", "zone-title narrow-only")
                with box("column clients"):
                    self.clients()
                self.wire()
                self.shop()
                self.into_outbox()
                self.outbox()
                self.into_broker()
                self.broker()
                self.fan()
                with box("column departments"):
                    for department in DEPARTMENTS:
                        self.department(department)
                self.gather()
                self.dead_letters()

    # ---- what is there

    @live(delay=0.5)
    async def clients(self) -> None:
        await self._traffic.lately()  # visitors come and go unannounced: look once a second
        pages = sum(1 for each in Visitor.instances.values() if each.has_socket_connection)
        with node("Python page", "web_asset", "small"):
            words(counted(pages, "window"), "soft small numbers")
        with node("Plain page", "html", "small"):
            words("afresh.js", "soft small")
        with node("Terminal", "terminal", "small"):
            words("RPC client", "soft small")

    @live(delay=0.5)
    async def shop(self) -> None:
        every = await self._board.processes()
        hosts = [each for each in every if each not in DEPARTMENTS]
        counts = [await self._board.counts(each) for each in hosts]
        with node("Shop", "storefront", "hub"):
            words(counted(len(hosts), "process", "processes"), "soft small")
            fact("Cached", sum(each.hits for each in counts))
            fact("Computed", sum(each.computes for each in counts))
            fact("Commands", sum(each.commands for each in counts))

    @live(delay=0.5)
    async def outbox(self) -> None:
        total = await self._board.total()
        with node("Outbox", "outbox", f"store {'waiting' if total.pending else ''}"):
            words(f"{total.pending:,}", "number")
            words("unsent" if total.pending else "all sent", "soft small")
            if total.pending:
                words(f"oldest {age(total.oldest)}", "note warn numbers")

    @live(delay=0.5)
    async def broker(self) -> None:
        state = await self.state(BROKER)
        title = await self._processes.title(BROKER) if await self.is_ours(BROKER) else "Broker"
        with node(title, "swap_horiz", f"mover {look_of(state)}"):
            state_chip(state)
            total = await self._board.total()
            fact("Taken", total.published)

    @live(delay=0.5)
    async def department(self, name: str) -> None:
        state = await self.state(name)
        is_failing = await self._mischief.is_failing(name)
        counts = await self._board.counts(name)
        look = "failing" if is_failing and state == "running" else look_of(state)
        with node(await self._processes.title(name), ICONS[name], f"wide {look}"):
            with box("chips"):
                state_chip(state)
                if is_failing:
                    words("Fails on purpose", "state busy")
            with box("facts"):
                fact("Handled", counts.received)
                if counts.retried:
                    fact("Retried", counts.retried)
                if counts.duplicates:
                    fact("Duplicates", counts.duplicates)

    @live(delay=0.5)
    async def dead_letters(self) -> None:
        if await self.state(BROKER) != "running":  # which keeps them
            with node("Dead letters", "mark_email_unread", "grave"):
                words("\N{EN DASH}", "number")
                words("known again with the broker", "soft small")
            return
        count = sum([len(await self._mischief.dead(each)) for each in DEPARTMENTS])
        with node("Dead letters", "mark_email_unread", f"grave {'dead' if count else ''}"):
            words(f"{count:,}", "number")
            words("to look at" if count else "none", "soft small")

    # ---- what moves

    @live(delay=0.2)
    async def wire(self) -> None:
        moved = await self._traffic.lately()
        asked = moving(moved, "commands", but=DEPARTMENTS)
        told = moving(moved, "invalidations", but=DEPARTMENTS)
        with edge("wire"):
            with lines():
                for there, back in zip(GATHER, SPREAD, strict=True):
                    track(there, "flowing" if asked else "", "upper")
                    track(back, "flowing" if told else "", "lower")
            caption(f"+{asked} commands" if asked else "commands", "before")
            caption(f"+{told} updates" if told else "updates", "after")

    @live(delay=0.2)
    async def into_outbox(self) -> None:
        moved = await self._traffic.lately()
        stored = moving(moved, "operations", but=DEPARTMENTS)
        with edge("into-outbox"):
            with lines():
                track(STRAIGHT, "flowing" if stored else "")
            caption(f"+{stored}" if stored else "", "before")

    @live(delay=0.2)
    async def into_broker(self) -> None:
        moved = await self._traffic.lately()
        sent = moving(moved, "published", but=DEPARTMENTS)
        is_up = await self.state(BROKER) == "running"
        with edge("into-broker"):
            with lines():
                track(STRAIGHT, "blocked" if not is_up else "flowing" if sent else "")
            caption(f"+{sent}" if sent else "", "before")

    @live(delay=0.2)
    async def fan(self) -> None:
        moved = await self._traffic.lately()
        is_up = await self.state(BROKER) == "running"
        with edge("fan"), lines():
            for department, way in zip(DEPARTMENTS, FAN, strict=True):
                runs = is_up and await self.state(department) == "running"
                counts = moved.get(department, NONE)
                passes = counts.received or counts.retried or counts.duplicates
                track(way, "blocked" if not runs else "flowing" if passes else "")

    @live(delay=0.2)
    async def gather(self) -> None:
        moved = await self._traffic.lately()
        with edge("gather"), lines():
            for department, way in zip(DEPARTMENTS, GATHER, strict=True):
                track(way, "flowing" if moved.get(department, NONE).dead else "", "to-dead")

    # ---- who is up

    async def is_ours(self, name: str) -> bool:
        return name in await self._processes.names()

    async def state(self, name: str) -> State:
        """Of a process; of one that is not ours it is only known that it was there."""
        return await self._processes.state(name) if await self.is_ours(name) else "running"


def moving(moved: Mapping[str, Counts], name: str, *, but: tuple[str, ...]) -> int:
    return sum(getattr(counts, name) for each, counts in moved.items() if each not in but)


def look_of(state: State) -> str:
    return {"running": "", "starting": "coming", "stopping": "coming"}.get(state, "away")


def node(title: str, picture: str, look: str = "") -> ui.element:
    """A box of the diagram; what it shows is put into it."""
    with box(f"node {look}"):
        with box("node-head"):
            with box("node-icon"):
                icon(picture, 18)
            words(title, "strong clip")
        return box("node-body")


def fact(name: str, value: int) -> None:
    with box("fact"):
        words(name, "soft small")
        words(f"{value:,}", "small numbers strong")


def edge(name: str) -> ui.element:
    """What is between two columns: lines, and words about them."""
    return box(f"edge {name}")


def lines() -> ui.element:
    """Where lines are drawn: from left to right, or from top to bottom where it is narrow."""
    picture = box("lines", "svg").props('viewBox="0 0 100 100" preserveAspectRatio=none')
    picture.props["aria-hidden"] = "true"
    return picture


def track(way: str, look: Look, classes: str = "") -> None:
    """One line: as it lies there, and what moves along it."""
    with box(f"track {look} {classes}", "g"):
        box("rail", "path").props["d"] = way
        box("pearls", "path").props["d"] = way


def caption(text: str, place: str) -> None:
    words(text, f"caption {place}")
