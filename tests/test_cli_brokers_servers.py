"""`afresh brokers` beside a running app: its own process, PostgreSQL, RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from afresh.cli import main
from afresh.db.shards import open_shard

SHOP = """\
import asyncio
import os
import pathlib
import sys

import msgspec
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, Command, ComputeService, command_handler
from afresh.brokers import Broker, event, on_event
from afresh.db import Database

CHANNEL = os.environ["CHANNEL"]


class Base(DeclarativeBase):
    pass


class NoteRow(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)


@event("tests.asked", destination=CHANNEL)
class Asked(msgspec.Struct, frozen=True):
    number: int


class Ask(Command[None], frozen=True):
    count: int


class Notes(ComputeService):
    def __init__(self, database: Database) -> None:
        self.database = database

    @command_handler
    async def ask(self, command: Ask) -> None:
        async with self.database.operation() as op:
            for number in range(1, command.count + 1):
                op.publish(Asked(number))

    @on_event(Asked, group="notes")
    async def write(self, event: Asked) -> None:
        async with self.database.operation() as op:
            if pathlib.Path("broken").exists():
                raise ValueError("There is no paper.")
            op.session.add(NoteRow(id=event.number))


def app() -> App:
    database = Database(os.environ["DATABASE"], metadata=Base.metadata, create_tables=True)
    made = App(database=database, broker=Broker(os.environ["BROKER"], source="/tests"))
    made.add(Notes(database))
    return made


async def serve() -> None:
    async with app() as made:
        await made.call(Ask(30))
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
"""


@pytest.fixture
def environment(tmp_path: Path, postgres_database: str, rabbitmq: str) -> dict[str, str]:
    return settings(tmp_path, postgres_database, rabbitmq)


def settings(folder: Path, database: str, broker: str) -> dict[str, str]:
    (folder / "a_shop.py").write_text(SHOP)
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent / "src"),
        "DATABASE": database,
        "BROKER": broker,
        "CHANNEL": f"test-{secrets.token_hex(6)}",
    }


@contextmanager
def running(environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run the app in a process; it asks for thirty notes, and there is no paper."""
    (folder / "broken").touch()
    process = subprocess.Popen(
        [sys.executable, "a_shop.py"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield
    finally:
        process.communicate()


@pytest.fixture
def host(environment: dict[str, str], tmp_path: Path) -> Iterator[None]:
    with running(environment, tmp_path):
        yield


def afresh(environment: dict[str, str], folder: Path, *arguments: str) -> tuple[int, str]:
    code = "import sys; from afresh.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "brokers", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


class Here:
    """Runs commands in this process, which has imported what they need."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, command: str, *arguments: str) -> str:
        main(["brokers", command, "a_shop:app", *arguments])
        return self._capsys.readouterr().out

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json"))
        return found

    def dead(self) -> int:
        found: int = self.look()["subscriptions"][0]["dead"]
        return found


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Here]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    yield Here(capsys)
    sys.modules.pop("a_shop", None)


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE", "BROKER", "CHANNEL"):
        monkeypatch.setenv(name, environment[name])


def until(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return result


def test_what_died_in_a_running_app_is_found_and_taken_up_again(
    environment: dict[str, str],
    tmp_path: Path,
    host: None,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(environment, monkeypatch)
    until(lambda: here.dead() == 30)
    status, shown = afresh(environment, tmp_path, "status", "a_shop:app", "--json")
    assert status == 1
    found = json.loads(shown)
    assert (found["transport"], found["connected"], found["error"]) == ("rabbitmq", True, None)
    (outbox,) = found["outbox"]
    assert (outbox["pending"], outbox["dead"], outbox["error"]) == (0, 0, None)
    assert list(outbox["owners"].values()) == [64]
    assert found["subscriptions"][0]["lag"] == 0

    letters = json.loads(here.run("dead", "--group", "notes", "--limit", "40", "--json"))
    assert len(letters) == 30
    assert all("There is no paper." in each["error"] for each in letters)
    here.run("drop", "--group", "notes", "--ids", letters[0]["id"], "--yes")

    (tmp_path / "broken").unlink()
    status, shown = afresh(environment, tmp_path, "requeue", "a_shop:app", "--all")
    assert (status, shown.splitlines()[0]) == (0, "the outbox: requeued 0")
    assert "notes, of" in shown
    assert "requeued 29" in shown

    async def query(statement: str) -> Any:
        shard = open_shard("", environment["DATABASE"])
        async with shard.write.begin() as connection:
            result = await connection.execute(text(statement))
            rows = result.scalars().all() if result.returns_rows else None
        await shard.aclose()
        return rows

    until(lambda: len(asyncio.run(query("SELECT id FROM notes"))) == 29)
    until(lambda: here.dead() == 0)

    # What the relay has given up is taken up by it when the command, beside it, says so.
    asyncio.run(query("UPDATE _outbox SET state = 2, last_error = 'gone' WHERE id = 1"))
    assert here.look()["outbox"][0]["dead"] == 1
    assert here.run("requeue", "--outbox", "--all") == "the outbox: requeued 1\n"
    until(lambda: asyncio.run(query("SELECT state FROM _outbox WHERE id = 1")) == [1])


def test_a_server_that_is_not_there_is_told_of(environment: dict[str, str], tmp_path: Path) -> None:
    environment["BROKER"] = "amqp://guest:secret@127.0.0.1:1"
    status, shown = afresh(environment, tmp_path, "status", "a_shop:app")
    assert status == 1
    assert "a_shop:app by rabbitmq, not connected" in shown
    assert "Not connected: RabbitMQ can't be reached:" in shown
    assert "The outbox can't be read:" in shown  # nobody has created the tables yet
    assert "SELECT" not in shown
    assert "secret" not in shown


@pytest.mark.parametrize("kind", ["nats", "valkey", "kafka", "servicebus"])
def test_dead_messages_are_found_and_taken_up_again_at_every_broker(
    tmp_path: Path,
    sqlite_database: str,
    kind: str,
    here: Here,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = request.getfixturevalue(kind)
    if kind == "kafka":
        address += "?idempotent=no"  # which the server of the tests can't
    environment = settings(tmp_path, sqlite_database, address)
    use(environment, monkeypatch)
    with running(environment, tmp_path):
        until(lambda: here.dead() == 30)
        (tmp_path / "broken").unlink()
        letter = json.loads(here.run("dead", "--group", "notes", "--json"))[0]
        assert "There is no paper." in letter["error"]
        shown = here.run("requeue", "--group", "notes", "--ids", letter["id"])
        assert shown.endswith(": requeued 1\n")
        assert here.run("drop", "--group", "notes", "--all", "--yes").endswith(": dropped 29\n")
        until(lambda: here.dead() == 0)
        assert here.look()["subscriptions"][0]["error"] is None
