"""A page of a program whose connection to another server the test takes away."""

from fastapi import FastAPI
from nicegui import ui

from afresh.primitives.delays import RetryDelays
from afresh.remote import connect
from afresh.rpc.hub import RpcHub
from afresh.rpc.limits import Limits
from afresh.rpc.transports.memory import MemoryConnector
from afresh.ui.nicegui import connection_status

connector = MemoryConnector(RpcHub())
client = connect(
    "memory:server",
    connector=connector,
    limits=Limits(reconnect_delays=RetryDelays.fixed(9, spread=0)),
)
app = FastAPI()


@app.get("/offline")
async def offline() -> None:
    """Take the connection away."""
    connector.error = OSError("no route to host")
    connector.links[-1].drop()


@app.get("/online")
async def online() -> None:
    """Let connections be made again."""
    connector.error = None


@ui.page("/")
async def index(dark: bool = False) -> None:
    """The page: with the badge as it is, and one that is always there."""
    await client.connected()
    ui.dark_mode(dark)
    with ui.column().mark("quiet"):
        connection_status(client)
    with ui.column().mark("always"):
        connection_status(client, always=True, with_error=True)
    with ui.element("div").style("width: 170px"):
        connection_status(client, always=True)


ui.run_with(app, title="Connection")
