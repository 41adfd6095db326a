"""A page of live parts in a FastAPI application, for tests that need a real browser."""

from fastapi import FastAPI
from nicegui import ui

from afresh import ComputeService, compute_method
from afresh.primitives.tasks import background_tasks
from afresh.ui.nicegui import keep, live, live_badge


class Ticks(ComputeService):
    """A number that the test changes."""

    def __init__(self) -> None:
        self.number = 0
        self.broken = False

    @compute_method
    async def get(self) -> int:
        if self.broken:
            raise ValueError("the database is away")
        return self.number


ticks = Ticks()
app = FastAPI()


@app.get("/tick")
async def tick(broken: bool = False) -> int:
    """Change the number, or what the service is able to."""
    ticks.number += 1
    ticks.broken = broken
    ticks.get.invalidate()
    return ticks.number


@app.get("/followers")
async def followers() -> int:
    """How many live parts follow the number, or are about to."""
    node = ticks.get.existing()
    return len(node.dependants if node else ()) + len(background_tasks())


@live(delay=0)
async def body() -> None:
    number = await ticks.get()
    ui.label(f"Tick {number}")
    for _ in range(number % 3):
        ui.label("comes and goes")
    with ui.card().classes("w-96"):
        name = ui.input("Name")
        ui.textarea("Notes")
        ui.select({"red": "Red", "blue": "Blue"}, label="Color", value="red").classes("w-full")
        with ui.expansion("More"):
            ui.label("Inside")
        ui.button("Greet", on_click=lambda: ui.notify(f"Hello {name.value}"))
        with ui.scroll_area().classes("h-32").mark("scroller"):
            for line in range(30):
                ui.label(f"Line {line}")
        keep("kept", lambda: ui.input("Kept"))


@ui.page("/")
def index() -> None:
    """The page."""
    live_badge(body())


ui.run_with(app, reconnect_timeout=1.0, title="Live")
