"""Dead letters on the flow page: what departments gave up, why, and what to do with it."""

from __future__ import annotations

from afresh.ui.nicegui import act, live

from ..backstage.contracts import BROKER, Backstage, DeadLetterView, Drop, Requeue
from ..departments.contracts import DEPARTMENTS
from ..page import box
from .parts import button, quiet_note, titled, words

SHOWN = 20


class DeadLetters:
    """A table of them; each can be handed over again, or dropped.

    Args:
        backstage: lists them.
    """

    def __init__(self, backstage: Backstage) -> None:
        self._mischief = backstage.mischief
        self._processes = backstage.processes

    def build(self) -> None:
        with box("panel letters", "section").props('aria-label="Dead letters"'):
            with titled("Dead letters", "Given up by a department, and kept for you to look at."):
                with box("lever-row"):
                    self.all_of_them()
            self.table()

    @live(delay=0.2)
    async def all_of_them(self) -> None:
        count = sum([len(await self._mischief.dead(each)) for each in DEPARTMENTS])
        if count > 1:
            button("Requeue all", "replay", act(self.requeue_all))
            button("Drop all", "delete", act(self.drop_all), look="danger")

    async def requeue_all(self) -> None:
        for department in DEPARTMENTS:
            await self._mischief.requeue(Requeue(department))

    async def drop_all(self) -> None:
        for department in DEPARTMENTS:
            await self._mischief.drop(Drop(department))

    @live(delay=0.2)
    async def table(self) -> None:
        letters = [
            (department, letter)
            for department in DEPARTMENTS
            for letter in await self._mischief.dead(department)
        ]
        if not letters and not await self._is_broker_there():
            quiet_note("cloud_off", "The broker keeps them, and is away just now.")
            return
        if not letters:
            quiet_note("mark_email_read", "No dead letters. A poison message makes some.")
            return
        with box("table-frame"), box("letters-table", "table"):
            with box("", "thead"), box("", "tr"):
                for title in ("Department", "Message", "Why", "Since"):
                    words(title, tag="th").props["scope"] = "col"
                with box("", "th").props("scope=col"):
                    words("What to do", "hidden-words")
            with box("", "tbody"):
                for department, letter in letters[:SHOWN]:
                    await self._row(department, letter)
        if len(letters) > SHOWN:
            words(f"and {len(letters) - SHOWN:,} more", "soft small more")

    async def _is_broker_there(self) -> bool:
        if BROKER not in await self._processes.names():
            return True
        return await self._processes.state(BROKER) == "running"

    async def _row(self, department: str, letter: DeadLetterView) -> None:
        title = await self._processes.title(department)
        with box("", "tr").mark(f"{department}-{letter.id}"):
            words(title, "strong", "td")
            with box("message", "td"):
                words(letter.type or "no type", "clip code")
                words(letter.body, "soft small clip").props["title"] = letter.body
            with box("why", "td"):
                words(letter.reason, "small reason").props["title"] = letter.reason
                if letter.error and letter.error not in letter.reason:
                    words(letter.error, "soft small clip").props["title"] = letter.error
            died_at = letter.died_at
            since = f"{died_at.astimezone():%H:%M:%S}" if died_at else "unknown"
            words(since, "soft small numbers", "td")
            with box("deeds", "td"), box("lever-row"):
                again = act(self._mischief.requeue, Requeue(department, (letter.id,)))
                requeue = button("Requeue", "replay", again)
                requeue.props["aria-label"] = f"Requeue for {title}"
                away = act(self._mischief.drop, Drop(department, (letter.id,)))
                drop = button("Drop", "delete", away, look="danger")
                drop.props["aria-label"] = f"Drop for {title}"
