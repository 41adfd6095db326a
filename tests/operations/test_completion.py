"""What goes stale on the host that has committed, and on all others; once, or else everywhere."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from afresh import ComputeService, compute_method, is_invalidating
from afresh.commands import Command, command_handler
from afresh.errors import DefinitionError, HandlerNotFoundError, LogDecodeError
from afresh.graph import Computed
from afresh.operations import Operation, current_operation
from afresh.primitives.clock import use_clock
from afresh.primitives.tasks import background_tasks
from afresh.testing import FakeClock
from tests.operations.library import Closed, Host, Lend, Return, Through, opening_hours


class Wait(Command[None], frozen=True):
    """Its handler awaits something where it should say what is stale, until that is mended."""


class Waiting(ComputeService):
    def __init__(self) -> None:
        self.replays = 0
        self.is_mended = False

    @compute_method
    async def value(self) -> int:
        return 1

    @command_handler
    async def wait(self, command: Wait) -> None:
        if is_invalidating():
            self.replays += 1
            self.value()
            if self.is_mended:
                return
        await asyncio.sleep(0)


async def cached(host: Host) -> list[Computed[Any]]:
    """Results that `Lend("Emma", "ann")` makes stale, then one that it does not."""
    library = host.library
    return [
        await library.reader_of.capture("Emma"),
        await library.titles_of.capture("ann"),
        await library.count.capture(),
        await library.reader_of.capture("Ulysses"),
    ]


def consistent(results: list[Computed[Any]]) -> list[bool]:
    return [each.is_consistent for each in results]


# -- on other hosts


async def test_what_a_command_made_stale_goes_stale_on_other_hosts(host: Host, other: Host) -> None:
    results = await cached(other)
    await host.call(Lend("Emma", "ann"))
    assert consistent(results) == [True] * 4
    await host.tell(other)
    assert consistent(results) == [False] * 3 + [True]
    assert other.operations.completion.foreign == 1
    assert other.operations.completion.own == 0
    assert repr(other.operations.completion).endswith("0 own, 1 foreign>")


async def test_an_operation_is_applied_once(host: Host, other: Host) -> None:
    await host.call(Lend("Emma", "ann"))
    await host.tell(other)
    results = await cached(other)
    await host.tell(other)
    assert consistent(results) == [True] * 4
    assert other.operations.completion.foreign == 1


async def test_an_operation_is_not_applied_where_it_was_executed(host: Host) -> None:
    await host.call(Lend("Emma", "ann"))
    results = await cached(host)
    await host.tell(host)
    assert consistent(results) == [True] * 4
    assert host.operations.completion.foreign == 0


async def test_an_operation_without_effects_is_applied_by_doing_nothing(
    host: Host, other: Host
) -> None:
    results = await cached(other)
    await host.call(Lend("Emma", "ann"))
    await host.tell(other, effects=None)
    assert consistent(results) == [True] * 4
    assert other.operations.completion.foreign == 1


async def test_operations_are_remembered_for_a_quarter_of_an_hour(host: Host, other: Host) -> None:
    with use_clock(FakeClock()) as clock:
        await host.call(Lend("Emma", "ann"))
        await host.tell(other)
        clock.advance_sync(15 * 60 - 1)
        await host.tell(other)
        assert other.operations.completion.foreign == 1
        clock.advance_sync(1)
        await host.tell(other)
        assert other.operations.completion.foreign == 2


async def test_only_so_many_operations_are_remembered(
    host: Host, other: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afresh.operations.completion._SEEN", 3)
    await host.call(Lend("Emma", "ann"))
    for uuid in "abcd":
        await host.tell(other, uuid=uuid)
    await host.tell(other, uuid="d")
    assert other.operations.completion.foreign == 4
    await host.tell(other, uuid="a")
    assert other.operations.completion.foreign == 5
    assert len(other.operations.completion._seen) == 3


async def test_what_was_recorded_of_nested_commands_is_applied(host: Host, other: Host) -> None:
    host.library.lent["Ulysses"] = other.library.lent["Ulysses"] = "bob"

    async def work() -> None:
        await host.call(Lend("Emma", "ann"))
        await host.call(Return("Ulysses"))

    host.library.work["a"] = work
    results = await cached(other)
    bobs = await other.library.titles_of.capture("bob")
    outer = await other.library.reader_of.capture("a")
    await host.call(Through("a"))
    await host.tell(other)
    assert consistent([*results, bobs, outer]) == [False] * 6
    assert other.library.replayed == [(Return("Ulysses"), "bob")]
    assert other.library.lent == {"Ulysses": "bob"}


# -- handlers that say it themselves


async def test_a_handler_that_asks_says_on_every_host_what_is_stale(
    host: Host, other: Host
) -> None:
    host.library.lent["Emma"] = other.library.lent["Emma"] = "ann"
    results = [
        await other.library.reader_of.capture("Emma"),
        await other.library.titles_of.capture("ann"),
    ]
    await host.call(Return("Emma"))
    await host.tell(other)
    assert other.library.replayed == [(Return("Emma"), "ann")]
    assert consistent(results) == [False] * 2
    assert other.library.lent == {"Emma": "ann"}


async def test_of_an_event_only_the_handlers_that_ran_say_it(host: Host, other: Host) -> None:
    await host.call(Closed("monday"))
    assert len(host.completed) == 1
    computed = await opening_hours.capture("monday")
    for operation in host.completed:
        await other.operations.completion.apply(host.logged(operation))
    assert other.library.replayed == [Closed("monday")]
    assert not computed.is_consistent


async def test_a_handler_that_awaits_fails_the_application_until_it_is_mended(
    host: Host, other: Host
) -> None:
    host.add(Waiting(), "Waiting").is_mended = True
    waiting = other.add(Waiting(), "Waiting")
    await host.call(Wait())
    computed = await waiting.value.capture()
    for failed in (1, 2):
        with pytest.raises(RuntimeError, match="it must return before it does anything else"):
            await host.tell(other)
        assert other.operations.completion.failed == failed
        assert other.operations.completion.foreign == 0
    waiting.is_mended = True
    await host.tell(other)
    assert waiting.replays == 3
    assert other.operations.completion.foreign == 1
    assert not computed.is_consistent


async def test_what_fails_where_it_was_executed_is_tried_again_in_the_background(
    host: Host,
) -> None:
    waiting = host.add(Waiting(), "Waiting")
    with use_clock(FakeClock()) as clock:
        await host.call(Wait())
        assert waiting.replays == 1
        await clock.advance(0.5)
        assert waiting.replays == 2
        waiting.is_mended = True
        computed = await waiting.value.capture()
        await clock.advance(10)
        assert waiting.replays == 3
        assert not computed.is_consistent
        assert host.operations.completion.health()["failed"] == 2
        assert host.operations.completion.health()["abandoned"] == 0
    assert not background_tasks()


async def test_what_fails_for_good_makes_everything_stale(host: Host, fresh_graph: None) -> None:
    waiting = host.add(Waiting(), "Waiting")
    results = await cached(host)
    with use_clock(FakeClock()) as clock:
        await host.call(Wait())
        assert consistent(results) == [True] * 4
        await clock.advance(10)
    assert waiting.replays == 5
    assert consistent(results) == [False] * 4
    assert host.operations.completion.health()["abandoned"] == 1


async def test_a_handler_that_is_not_here_can_t_say_what_is_stale(host: Host, other: Host) -> None:
    host.add(Waiting(), "Waiting").is_mended = True
    await host.call(Wait())
    other.commander.registry.add(Wait)
    with pytest.raises(HandlerNotFoundError, match="add the service that does to every host"):
        await host.tell(other)
    assert other.operations.completion.failed == 1


async def test_a_chain_of_an_event_that_is_not_here_can_t_say_it(host: Host, other: Host) -> None:
    await host.call(Closed("monday"))
    logged = host.logged(next(each for each in host.completed if each.whole.effects))
    assert logged.effects is not None
    effects = logged.effects.replace("Library.on_closed", "Library.gone")
    with pytest.raises(HandlerNotFoundError):
        await other.operations.completion.apply(msgspec.structs.replace(logged, effects=effects))


# -- what can't be read


@pytest.mark.parametrize(
    "effects",
    ["", "null", "[]", '{"calls":[[]]}', '{"calls":[["a","b"]]}', '{"replays":1}', "{", "\x00"],
)
async def test_effects_that_can_t_be_read_are_an_error_each_time(
    host: Host, other: Host, effects: str
) -> None:
    await host.call(Lend("Emma", "ann"))
    for failed in (1, 2):
        with pytest.raises(LogDecodeError, match="can't be read"):
            await host.tell(other, effects=effects)
        assert other.operations.completion.failed == failed


async def test_a_replay_of_an_unknown_command_is_an_error(host: Host, other: Host) -> None:
    await host.call(Lend("Emma", "ann"))
    effects = '{"replays":[["{\\"t\\":\\"Gone\\",\\"d\\":{}}",null,{}]]}'
    with pytest.raises(LogDecodeError, match="'Gone' stands in the log"):
        await host.tell(other, effects=effects)


async def test_what_is_abandoned_makes_everything_stale(
    host: Host, other: Host, fresh_graph: None
) -> None:
    await host.call(Lend("Emma", "ann"))
    logged = host.logged(host.completed[-1])
    results = await cached(other)
    other.operations.completion.abandon(logged, ValueError("no"))
    assert consistent(results) == [False] * 4
    assert other.operations.completion.abandoned == 1


async def test_what_nobody_has_read_makes_everything_stale(host: Host, fresh_graph: None) -> None:
    results = await cached(host)
    host.operations.completion.lost_coverage("the log")
    assert consistent(results) == [False] * 4
    assert host.operations.completion.abandoned == 1


# -- hosts that are not alike


class Contract:
    """Versions of one service: what stands in the log was written by one, and read by another."""

    class Old(ComputeService):
        def __init__(self) -> None:
            pass

        @compute_method
        async def of(self, key: str) -> str:
            return key

        @compute_method
        async def renamed(self, key: str) -> str:
            return key

    class New(ComputeService):
        @compute_method
        async def of(self, key: int, more: int = 0) -> str:
            return str(key)

        @compute_method
        async def with_new_name(self, key: str) -> str:
            return key

        @compute_method
        async def plain(self) -> int:
            return 1


async def say(host: Host, *calls: Any) -> None:
    """Make calls stale in an operation."""

    async def work() -> None:
        with current_operation().invalidating():
            for call in calls:
                call()

    host.library.work["a"] = work
    await host.call(Through("a"))


async def test_a_service_that_another_host_does_not_have_is_no_concern_of_it(
    host: Host, other: Host
) -> None:
    old = host.add(Contract.Old(), "Contract")
    results = await cached(other)
    await say(host, lambda: old.of("x"))
    await host.tell(other)
    assert consistent(results) == [True] * 4
    assert other.operations.completion.foreign == 1


async def test_arguments_that_a_method_does_not_take_here_make_all_its_results_stale(
    host: Host, other: Host
) -> None:
    old, new = host.add(Contract.Old(), "Contract"), other.add(Contract.New(), "Contract")
    results = [await new.of.capture(1), await new.of.capture(2), await new.plain.capture()]
    await say(host, lambda: old.of("x"))
    await host.tell(other)
    assert consistent(results) == [False, False, True]


async def test_a_method_that_is_not_here_makes_all_results_of_the_service_stale(
    host: Host, other: Host
) -> None:
    old, new = host.add(Contract.Old(), "Contract"), other.add(Contract.New(), "Contract")
    results = [await new.with_new_name.capture("x"), await new.plain.capture()]
    library = await cached(other)
    await say(host, lambda: old.renamed("x"))
    await host.tell(other)
    assert consistent(results) == [False, False]
    assert consistent(library) == [True] * 4


async def test_compute_functions_go_stale_everywhere(host: Host, other: Host) -> None:
    computed = await opening_hours.capture("monday")
    kept = await opening_hours.capture("sunday")
    await say(host, lambda: opening_hours("monday"))
    assert not computed.is_consistent
    computed = await opening_hours.capture("monday")
    await host.tell(other)
    assert not computed.is_consistent
    assert kept.is_consistent


async def test_a_service_that_was_not_added_has_no_name_on_other_hosts(host: Host) -> None:
    stranger = Contract.Old()
    await say(host, lambda: stranger.of("x"))  # without a log, nobody asks for a name
    with pytest.raises(DefinitionError, match=r"do not know .* by a name: add it, app\.add"):
        host.logged(host.completed[-1])


# -- listeners


async def test_listeners_are_told_of_operations_of_this_host(host: Host, other: Host) -> None:
    told: list[Operation] = []

    def fail(operation: Operation) -> None:
        raise ValueError("no")

    completion = host.operations.completion
    stops = [completion.on_completed(fail), completion.on_completed(told.append)]
    await host.call(Lend("Emma", "ann"))
    await host.tell(other)
    assert told == host.completed
    for stop in stops:
        stop()
    await host.call(Lend("Emma", "bob"))
    assert len(told) == 1
    with suppress(ValueError):
        stops[0]()


# -- changes that a database tracks


class Tracked:
    def __init__(self) -> None:
        self.applied: list[Any] = []

    def apply(self, changes: Any, cause: str) -> None:
        self.applied.append((changes, cause))


async def test_changes_in_tables_are_passed_on_to_whoever_follows_them(
    host: Host, other: Host
) -> None:
    host.operations.completion.changes = own = Tracked()
    other.operations.completion.changes = foreign = Tracked()

    async def work() -> None:
        current_operation().effects.changes = [["orders", {"id": 1}]]

    host.library.work["a"] = work
    await host.call(Through("a"))
    await host.tell(other)
    ((changes, cause),) = own.applied
    assert changes == [["orders", {"id": 1}]]
    assert cause == f"Through {host.completed[-1].uuid}"
    assert foreign.applied[0][0] == changes
    assert foreign.applied[0][1].endswith(f"of {host.operations.host_id}")


async def test_changes_that_nobody_here_follows_are_left_alone(host: Host, other: Host) -> None:
    async def work() -> None:
        current_operation().effects.changes = [["orders"]]

    host.library.work["a"] = work
    await host.call(Through("a"))
    await host.tell(other)
    assert other.operations.completion.foreign == 1
