"""`afresh brokers`: what it shows of messages, and what it does to dead ones."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from afresh.brokers import OutgoingMessage, Transport
from afresh.brokers.transports.memory import MemoryBroker, MemoryTransport
from afresh.cli import main

SHOP = '''\
"""A shop that publishes orders, and one of notes that hears of them."""

import msgspec
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, Command, ComputeService, command_handler
from afresh.brokers import Broker, ConsumerOptions, event, on_event
from afresh.db import Database
from afresh.primitives.delays import RetryDelays


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@event("tests.placed")
class Placed(msgspec.Struct, frozen=True):
    order_id: int
    note: str = ""


class Place(Command[None], frozen=True):
    notes: tuple[str, ...]


class Orders(ComputeService):
    def __init__(self, database: Database) -> None:
        self.database = database

    @command_handler
    async def place(self, command: Place) -> None:
        async with self.database.operation() as op:
            row = OrderRow()
            op.session.add(row)
            await op.session.flush()
            for note in command.notes:
                op.publish(Placed(row.id, note), key=note or None)


class Notes(ComputeService):
    @on_event(Placed, group="notes")
    async def write(self, event: Placed) -> None:
        raise ValueError(f"There is no paper for {event.note}.")

    @on_event(Placed, mode="broadcast")
    async def look(self, event: Placed) -> None:
        pass


ADDRESS = "memory://cli"
DATABASE = "sqlite+aiosqlite:///shop.db"


def shop():
    database = Database(DATABASE, metadata=Base.metadata, create_tables=True)
    app = App(database=database, broker=Broker(ADDRESS, source="/tests/shop"))
    app.add(Orders(database))
    return app


def notes():
    app = App(broker=Broker(ADDRESS, source="/tests/notes"))
    app.add(Notes(), is_served=False)
    return app


silent = App()


class Other:
    pass


def needy(argument):
    pass
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module, from which the command is called."""
    (tmp_path / "a_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    yield tmp_path
    sys.modules.pop("a_shop", None)


def module() -> Any:
    """The module in the folder."""
    return importlib.import_module("a_shop")


@pytest.fixture
def broker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    """What both apps use, in place of one by its name."""
    a_shop = module()
    found = MemoryBroker()
    transports: Any = lambda: MemoryTransport(broker=found)  # noqa: E731
    shop, notes = a_shop.shop, a_shop.notes

    def made(make: Any) -> Any:
        def of() -> Any:
            monkeypatch.setattr(a_shop, "ADDRESS", transports())
            return make()

        return of

    monkeypatch.setattr(a_shop, "shop", made(shop))
    monkeypatch.setattr(a_shop, "notes", made(notes))
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What a command shows."""
    found = main(["brokers", *arguments])
    out, err = capsys.readouterr()
    assert (found, err) == (status, ""), out
    return out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["brokers", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("afresh: ")
    return err


def fill(*notes: str, dead: bool = False) -> None:
    """Write messages into the outbox, which nobody publishes."""
    a_shop = module()

    async def work() -> None:
        app = a_shop.shop()
        app.broker.transport.broker.stop()
        async with app:
            for start in range(0, len(notes), 500):
                await app.call(a_shop.Place(notes[start : start + 500]))
            if dead:
                async with app.database.shard().write.begin() as connection:
                    await connection.execute(
                        text("UPDATE _outbox SET state = 2, attempts = 1, last_error = 'too large'")
                    )
        app.broker.transport.broker.resume()

    asyncio.run(work())


def kill(broker: MemoryBroker, count: int) -> None:
    """Have messages die in the group "notes"."""
    a_shop = module()

    async def work() -> None:
        async with a_shop.notes() as app:
            for number in range(count):
                kind = "tests.placed.v1"
                attributes = {"id": f"m{number}", "source": "/x", "type": kind}
                body = b'{"order_id":1,"note":"n"}'
                await app.broker.transport.publish(
                    [OutgoingMessage(f"m{number}", "tests", kind, body, attributes=attributes)]
                )
            subscription = next(s for s in app.broker.subscriptions if s.mode == "group")
            async with asyncio.timeout(10):
                while len(await app.broker.dead(subscription, 10_000)) < count:
                    await asyncio.sleep(0.01)

    asyncio.run(work())


# -- status


def test_an_app_that_is_well_is_shown(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    fill()
    lines = run(capsys, "status", "a_shop:shop").splitlines()
    assert lines[0] == "a_shop:shop by memory, connected"
    assert lines[2].split() == ["OUTBOX", "PENDING", "OLDEST", "DEAD", "PUBLISHED", "BY"]
    assert lines[3].split() == ["-", "0", "-", "0", "nobody"]
    found = json.loads(run(capsys, "status", "a_shop:notes", "--json"))
    assert found["connected"] is True
    assert found["outbox"] == []
    assert {(each["group"], each["mode"]) for each in found["subscriptions"]} == {
        ("notes", "group"),
        ("Notes", "broadcast"),
    }


def test_what_waits_and_is_published_by_nobody_is_told_of(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("a", "b", "c")
    shown = run(capsys, "status", "a_shop:shop", status=1)
    assert "The outbox is published by nobody: start a host of the app." in shown
    (outbox,) = json.loads(run(capsys, "status", "a_shop:shop", "--json", status=1))["outbox"]
    assert outbox["pending"] == 3
    assert 0 <= outbox["oldest"] < 60
    assert outbox["owners"] == {}


def test_the_hosts_that_publish_are_shown(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    a_shop = module()

    async def work() -> tuple[str, int]:
        async with a_shop.shop() as app:
            async with asyncio.timeout(10):
                while app.broker.relay().health()["buckets"] < 64:
                    await asyncio.sleep(0.01)
            status = await asyncio.to_thread(main, ["brokers", "status", "a_shop:shop"])
            return app.operations.host_id, status

    host, status = asyncio.run(work())
    assert status == 0
    assert f"{host} (64)" in capsys.readouterr().out


def test_dead_messages_are_told_of_on_both_sides(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("a", "b", dead=True)
    shown = run(capsys, "status", "a_shop:shop", status=1)
    assert "The outbox has 2 dead." in shown
    assert "See them: afresh brokers dead a_shop:shop" in shown
    kill(broker, 3)
    assert "notes has 3 dead of tests." in run(capsys, "status", "a_shop:notes", status=1)


def test_a_broker_that_is_away_is_told_of_and_the_outbox_is_shown(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("a")
    broker.stop()
    shown = run(capsys, "status", "a_shop:shop", status=1)
    assert "by memory, not connected" in shown
    assert "Not connected: The broker in memory is stopped." in shown
    assert json.loads(run(capsys, "status", "a_shop:shop", "--json", status=1))["outbox"][0][
        "pending"
    ]


def test_a_broker_that_does_not_answer_is_not_waited_for(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: Transport) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemoryTransport, "start", never)
    shown = run(capsys, "status", "a_shop:notes", "--timeout", "0.05", status=1)
    assert "Not connected: there was no answer in time; see --timeout." in shown
    told = complaint(capsys, "dead", "a_shop:notes", "--timeout", "0.05")
    assert "Not connected: memory has not answered; see --timeout." in told


def test_a_database_without_the_tables_is_told_of(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "The outbox can't be read: OperationalError" in run(
        capsys, "status", "a_shop:shop", status=1
    )
    assert "OperationalError" in complaint(capsys, "dead", "a_shop:shop")


# -- the outbox


def test_dead_messages_of_the_outbox_are_listed_with_the_reason(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("a", "b", dead=True)
    lines = run(capsys, "dead", "a_shop:shop").splitlines()
    assert lines[0] == "the outbox: dead"
    assert lines[1].split() == ["ID", "TYPE", "KEY", "TRIES", "AGE", "WHY"]
    assert lines[2].split()[:4] == ["1", "tests.placed.v1", "a", "1"]
    assert lines[2].endswith("too large")
    assert len(lines) == 4
    assert "the first 1, --limit shows more" in run(capsys, "dead", "a_shop:shop", "--limit", "1")
    first, second = json.loads(run(capsys, "dead", "a_shop:shop", "--outbox", "--json"))
    assert (first["outbox"], first["id"], first["error"]) == ("", "1", "too large")
    assert second["key"] == "b"


def test_dead_messages_of_the_outbox_are_requeued_and_dropped_by_their_ids(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    fill("a", "b", "c", dead=True)
    shown = run(capsys, "requeue", "a_shop:shop", "--outbox", "--ids", "2", "2")
    assert shown == "the outbox: requeued 1\n"
    shown = run(capsys, "requeue", "a_shop:shop", "--outbox", "--ids", "2", "3", status=1)
    assert shown == "the outbox: requeued 1; the others are not there any more\n"
    assert run(capsys, "drop", "a_shop:shop", "--ids", "1", "--yes") == "the outbox: dropped 1\n"
    assert run(capsys, "dead", "a_shop:shop") == "the outbox: none is dead\n"
    found = json.loads(run(capsys, "status", "a_shop:shop", "--json", status=1))
    assert found["outbox"][0]["pending"] == 2


def test_ten_thousand_dead_messages_are_requeued_and_counted_on_a_terminal(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(*[str(number) for number in range(10_000)], dead=True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("afresh.cli.output._SHOW_EVERY", 0)
    assert main(["brokers", "requeue", "a_shop:shop", "--all"]) == 0
    out, err = capsys.readouterr()
    assert out == "the outbox: requeued 10,000\n"
    counts = [part for part in err.split("\r\x1b[K") if part]
    assert counts[0] == "the outbox: requeued: 500"
    assert counts[-1] == "the outbox: requeued: 10,000"
    assert len(counts) == 20


# -- groups


def test_dead_messages_of_a_group_are_listed_requeued_and_dropped(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    kill(broker, 3)
    lines = run(capsys, "dead", "a_shop:notes").splitlines()
    assert lines[0] == "notes, of tests: dead"
    assert len(lines) == 5
    assert "There is no paper for n." in lines[2]
    found = json.loads(run(capsys, "dead", "a_shop:notes", "--group", "notes", "--json"))
    assert [each["message_id"] for each in found] == ["m0", "m1", "m2"]
    assert found[0]["destination"] == "tests"
    chosen = found[1]["id"]
    shown = run(capsys, "drop", "a_shop:notes", "--ids", chosen, "nothing", "--yes", status=1)
    assert shown == "notes, of tests: dropped 1; the others are not there any more\n"
    assert run(capsys, "requeue", "a_shop:notes", "--all") == "notes, of tests: requeued 2\n"
    assert run(capsys, "dead", "a_shop:notes") == "notes, of tests: none is dead\n"
    (group, _) = json.loads(run(capsys, "status", "a_shop:notes", "--json"))["subscriptions"]
    assert group["lag"] == 2


def test_what_others_write_can_not_move_the_cursor(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        async with module().notes() as app:
            attributes = {"id": "m", "source": "/x", "type": "tests.placed.v1"}
            message = OutgoingMessage(
                "m", "tests", "", b"{", attributes=attributes, key="\x1b[2J\na\x9bb"
            )
            await app.broker.transport.publish([message])
            subscription = next(s for s in app.broker.subscriptions if s.mode == "group")
            async with asyncio.timeout(10):
                while not await app.broker.dead(subscription):
                    await asyncio.sleep(0.01)

    asyncio.run(work())
    lines = run(capsys, "dead", "a_shop:notes").splitlines()
    assert len(lines) == 3
    assert "\ufffd[2J a\ufffdb" in lines[2]
    (found,) = json.loads(run(capsys, "dead", "a_shop:notes", "--json"))
    assert found["key"] == "\x1b[2J\na\x9bb"


def test_how_long_a_group_takes_is_shown_on_a_terminal(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(broker, 1)

    async def slow(self: MemoryTransport, subscription: object, ids: object = None) -> int:
        await asyncio.sleep(1.1)
        return 7

    monkeypatch.setattr(MemoryTransport, "requeue_dead", slow)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["brokers", "requeue", "a_shop:notes", "--all"]) == 0
    out, err = capsys.readouterr()
    assert out == "notes, of tests: requeued 7\n"
    shown = [part for part in err.split("\r\x1b[K") if part]
    assert shown == ["notes, of tests: requeued: 0 s", "notes, of tests: requeued: 1 s"]


def test_groups_can_not_be_asked_for_while_the_broker_is_away(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.stop()
    told = complaint(capsys, "dead", "a_shop:notes")
    assert "Not connected: The broker in memory is stopped." in told
    assert "--outbox needs the database only" in told


# -- what is asked for


def test_who_deletes_is_asked(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    fill("a", "b", dead=True)
    told = complaint(capsys, "drop", "a_shop:shop", "--all")  # where nobody can answer
    assert "add --yes" in told
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    assert main(["brokers", "drop", "a_shop:shop", "--all"]) == 2
    _, asked = capsys.readouterr()
    assert "Delete for good: 2 of the outbox? [y/N] " in asked
    assert "Nothing was deleted." in asked
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert main(["brokers", "drop", "a_shop:shop", "--ids", "1"]) == 0
    out, asked = capsys.readouterr()
    assert "Delete for good: 1 of the outbox?" in asked
    assert out == "the outbox: dropped 1\n"


def test_what_is_no_number_is_in_no_outbox(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    told = complaint(capsys, "requeue", "a_shop:shop", "--ids", "x")
    assert "'x' is no message of an outbox" in told


def test_it_must_be_said_where(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_shop = module()

    def both() -> Any:
        app = a_shop.shop()
        app.add(a_shop.Notes(), is_served=False)
        return app

    monkeypatch.setattr(a_shop, "both", both, raising=False)
    told = complaint(capsys, "requeue", "a_shop:both", "--ids", "1")
    assert "the outbox; notes, of tests" in told
    told = complaint(capsys, "dead", "a_shop:both", "--group", "letters")
    assert "This app has no group 'letters'; it has 'notes of tests'." in told
    told = complaint(capsys, "dead", "a_shop:both", "--shard", "north")
    assert "no outbox 'north'; it has ''" in told
    told = complaint(capsys, "dead", "a_shop:notes", "--outbox")
    assert "This app has no outbox; it has none." in told


def test_what_is_no_app_with_a_broker_is_refused(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "This app has no broker" in complaint(capsys, "status", "a_shop:silent")
    assert "a_shop:ADDRESS is no App" in complaint(capsys, "status", "a_shop:ADDRESS")
    assert "can't be called to make an App" in complaint(capsys, "status", "a_shop:needy")
    assert "no module 'no_shop'" in complaint(capsys, "status", "no_shop:app")
    assert "is no place" in complaint(capsys, "status", "a_shop")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "a_shop:shop", "--watch", "0"], "'0' is no number of seconds above 0"),
        (["status", "a_shop:shop", "--timeout", "x"], "'x' is no number of seconds above 0"),
        (["status", "a_shop:shop", "--timeout", "nan"], "'nan' is no number of seconds"),
        (["dead", "a_shop:shop", "--limit", "0"], "'0' is no number of messages above 0"),
        (["dead", "a_shop:shop", "--limit", "-5"], "'-5' is no number of messages above 0"),
        (["requeue", "a_shop:shop"], "one of the arguments --ids --all is required"),
        (["drop", "a_shop:shop", "--ids", "1", "--all"], "not allowed with argument --ids"),
        (["status"], "required: module:name"),
        ([], "required: command"),
    ],
)
def test_what_can_not_be_meant_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["brokers", *arguments])
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert "usage: afresh brokers" in shown
    assert said in shown


@pytest.mark.parametrize("command", ["status", "dead", "requeue", "drop", "schemas"])
def test_each_command_is_explained_with_examples(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["brokers", command, "--help"])
    assert not left.value.code
    assert f"examples:\n  afresh brokers {command} " in capsys.readouterr().out


# -- schemas


def test_schemas_are_those_of_a_module_a_class_or_what_an_app_handles(
    broker: MemoryBroker, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schemas = json.loads(run(capsys, "schemas", "a_shop"))
    assert list(schemas) == ["tests.placed.v1"]
    assert schemas["tests.placed.v1"]["$defs"]["Placed"]["required"] == ["order_id"]
    assert json.loads(run(capsys, "schemas", "a_shop:Placed", "a_shop")) == schemas
    assert run(capsys, "schemas", "a_shop:notes", "-o", "events.json") == ""
    assert json.loads((folder / "events.json").read_text()) == schemas


def test_what_has_no_schema_is_refused(
    broker: MemoryBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "declares no events" in complaint(capsys, "schemas", "json")
    assert "a_shop:shop handles no events" in complaint(capsys, "schemas", "a_shop:shop")
    assert "This app has no broker" in complaint(capsys, "schemas", "a_shop:silent")
    assert "There is no JSON Schema for that" in complaint(capsys, "schemas", "a_shop:Other")


# -- in a process


@pytest.fixture
def watching(folder: Path) -> Iterator[subprocess.Popen[str]]:
    code = "import sys; from afresh.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "brokers", "status", "a_shop:notes"]
    source = Path(__file__).parent.parent / "src"
    with subprocess.Popen(
        [*command, "--json", "--watch", "0.01"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def test_it_is_watched_until_it_is_interrupted(watching: subprocess.Popen[str]) -> None:
    assert watching.stdout is not None
    looks = [json.loads(watching.stdout.readline()) for _ in range(3)]
    assert all(each["connected"] for each in looks)
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=20)
    assert (watching.returncode, errors) == (130, "")


def test_it_is_watched_until_nobody_reads_any_more(watching: subprocess.Popen[str]) -> None:
    assert watching.stdout is not None
    assert watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    assert watching.wait(timeout=20) == 130
    assert watching.stderr.read() == ""
