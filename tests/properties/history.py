"""One history of a world: what happens, in which order, and what is checked on the way.

A history runs on a fake clock and lets each waiting body go on when it says so, so that it happens
the same way every time. Between two events the event loop takes no turn, or a few, or as many as
there is work for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from afresh import (
    Computed,
    ComputedState,
    MutableState,
    capture,
    invalidating,
    isolated,
    set_node_budget,
)
from afresh.graph import Tracking, invalidate_everything, prune, track_causes
from afresh.primitives.clock import use_clock
from afresh.primitives.tasks import background_tasks
from afresh.testing import FakeClock, audit

from . import invariants
from .world import DELAY, HOUR, MODULUS, Fault, Glitch, Outcome, Vertex, World

CELLS = 3
VARIABLES = 2
ALL_TURNS = 3
"""Of the numbers of turns that an event may ask for, the one that stands for all there are."""

SWEEPS = 3
"""How many kinds of results the world has by how long they are kept, each with a timer."""

Event = tuple[str, int, int]


@dataclass(frozen=True)
class Plan:
    """What a history is made from."""

    vertices: list[Vertex]
    events: list[Event]
    slow_cells: int = 0
    budget: int | None = None
    chain_causes: bool = False


@dataclass
class Call:
    """A call that was made, and what was the case then."""

    task: asyncio.Task[Any]
    index: int
    epoch: int


@dataclass
class Tally:
    """What a history did, to see that it was no empty one."""

    compared: int = 0
    """Values that were compared with what they should be."""
    calls: int = 0
    """Calls whose outcomes were compared with what they should be."""
    predicted: int = 0
    """Results whose going stale was foretold."""


class History:
    """Runs a plan, on a new event loop, and fails with an account of what happened."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self.account: list[str] = []
        self.troubles: list[str] = []
        self.calls: list[Call] = []
        self.others: list[asyncio.Task[Any]] = []
        self.held: list[Computed[Any]] = []
        self.watches: list[tuple[asyncio.Task[None], Computed[Any]]] = []
        self.followers: list[tuple[int, ComputedState[int]]] = []
        self.streams: list[Stream] = []
        self.doomed: list[Computed[Any]] = []
        """Results that were made stale while they were computed, skipping any delay."""
        self.left_behind: list[Coroutine[Any, Any, Any]] = []
        """What ran in event loops that were closed."""
        self.handlers: list[Callable[[], None]] = []
        """What removes them."""
        self.loop = asyncio.new_event_loop()

    def run(self) -> Tally:
        """Let it happen."""
        with contextlib.ExitStack() as stack:
            self.clock = FakeClock()
            stack.enter_context(use_clock(self.clock))
            stack.enter_context(self._watching_for_troubles())
            if self.plan.budget is not None:
                stack.callback(set_node_budget, set_node_budget(self.plan.budget))
            if self.plan.chain_causes:
                stack.callback(track_causes, track_causes(Tracking.CHAIN))
            stack.callback(self._close_loop)
            # Looking for circles takes the less time, the fewer objects there are to look at.
            gc.freeze()
            stack.callback(gc.unfreeze)
            try:
                self._run()
            except BaseException as error:
                error.add_note("\n".join(["What happened:", *self.account]))
                raise
        return self.tally

    def _run(self) -> None:
        plan = self.plan
        self.world: World = World(
            plan.vertices,
            cells=[0] * CELLS,
            variables=[MutableState(0) for _ in range(VARIABLES)],
            slow_cells=plan.slow_cells,
        )
        for number, vertex in enumerate(plan.vertices):
            self.account.append(f"  {number}: {vertex}")
        for name, a, b in plan.events:
            if name == "new_loop":
                self._change_loops(is_abrupt=bool(b & 1), is_late=bool(b & 2))
            else:
                self.loop.run_until_complete(self._step(name, a, b))
        self.loop.run_until_complete(self._come_to_rest())
        seen = self.world.seen
        self._let_go()
        self._check_all_gone(seen)
        assert not self.troubles, self.troubles

    # -- one event after the other

    async def _step(self, name: str, a: int, b: int) -> None:
        self.account.append(f"{self.clock.now():g}: {name}({a}, {b})")
        event: Callable[[int, int], Awaitable[None] | None] = getattr(self, f"on_{name}")
        happening = event(a, b >> 2)
        if happening is not None:
            await happening
        self._check()
        turns = b & 3
        if turns == ALL_TURNS:
            await self.clock.settle()
        else:
            for _ in range(turns):
                await asyncio.sleep(0)
        self._check(is_settled=turns == ALL_TURNS)

    def _check(self, *, is_settled: bool = False) -> None:
        assert not self.troubles, self.troubles
        self.tally.compared += invariants.check(self.world, self.held, is_settled=is_settled)
        for node in self.doomed:
            assert not node.is_consistent, f"{node} was to be stale at once"
        for call in [call for call in self.calls if call.task.done()]:
            self.calls.remove(call)
            self._check_outcome(call)
        for task in [task for task in self.others if task.done()]:
            self.others.remove(task)
            _outcome_of(task)  # raises what may not happen
        for watch, computed in self.watches:
            if watch.done():
                assert computed.is_invalidated

    def _check_outcome(self, call: Call) -> None:
        """A call gives what was right if nothing changed while it was made."""
        found = _outcome_of(call.task)
        if found is None or call.epoch != self.world.epoch or self.world.is_late(call.index):
            return
        due = self.world.expected(call.index)
        assert found == due, f"the call of {call.index} gave {found}, and should give {due}"
        self.tally.calls += 1

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.others.append(task)
        return task

    def _vertex(self, number: int) -> int:
        return number % len(self.plan.vertices)

    # -- changes of data: each is told at once

    def on_set_cell(self, a: int, b: int) -> None:
        number = a % CELLS
        with self._foretelling(self.world.service.cell.existing(number)):
            self._set_cell(number, b % MODULUS)
            self.world.service.cell.invalidate(number)

    def on_set_cells(self, a: int, b: int) -> None:
        numbers = {a % CELLS, b % CELLS}
        cell = self.world.service.cell
        with self._foretelling(*(cell.existing(number) for number in numbers)):
            for number in numbers:
                self._set_cell(number, (a + b) % MODULUS)
            with invalidating():
                for number in numbers:
                    cell(number)

    def _set_cell(self, number: int, value: int) -> None:
        self.world.epoch += 1
        self.world.cells[number] = value

    def on_set_variable(self, a: int, b: int) -> None:
        variable = self.world.variables[a % VARIABLES]
        self.world.epoch += 1
        if variable.value != b % MODULUS:
            with self._foretelling(variable.computed):
                variable.set(b % MODULUS)

    @contextlib.contextmanager
    def _foretelling(self, *started: Computed[Any] | None) -> Iterator[None]:
        """Say what will go stale with some results, and see that this and nothing else does."""
        roots = [node for node in started if node is not None and node.is_consistent]
        before = [node for node in invariants.nodes_of(self.world) if node.is_consistent]
        stale, delayed = invariants.stale_after(self.world, roots)
        yield
        if self.handlers:
            return
        after = {node for node in before if node.is_invalidated}
        assert after == stale & set(before), (
            f"{after - stale} went stale for no reason, {stale & set(before) - after} did not"
        )
        for node in delayed - stale:
            assert node.flags & invariants.DELAY_RUNS, f"{node} was not told"
        self.tally.predicted += len(after)

    # -- calls

    def on_call(self, a: int, b: int) -> None:
        index = self._vertex(a)

        async def call() -> int:
            return await self.world.call(index)

        task = asyncio.get_running_loop().create_task(call())
        self.calls.append(Call(task, index, self.world.epoch))

    def on_call_many(self, a: int, b: int) -> None:
        for number in range(3):
            self.on_call(a + number * (b % 3), 0)

    def on_gather(self, a: int, b: int) -> None:
        async def call() -> None:
            calls = [self.world.call(self._vertex(number)) for number in (a, b, a + b, a)]
            await asyncio.gather(*calls, return_exceptions=True)

        self._start(call())

    def on_cancel(self, a: int, b: int) -> None:
        tasks = [call.task for call in self.calls] + self.others
        if tasks:
            tasks[a % len(tasks)].cancel()

    def on_cancel_and_call(self, a: int, b: int) -> None:
        self.on_cancel(a, 0)
        self.on_call(b, 0)

    def on_resume(self, a: int, b: int) -> None:
        self.world.resume(a)

    def on_resume_all(self, a: int, b: int) -> None:
        self.world.resume()

    async def on_rest(self, a: int, b: int) -> None:
        """Let all bodies go on until none waits, and compute what nobody asked for yet."""
        self.world.pausing = False
        for index in range(len(self.plan.vertices)):
            if a >> index & 1:
                self.on_call(index, 0)
        self.world.resume()
        await self.clock.settle()
        self.world.pausing = True

    # -- invalidations for no reason

    def on_invalidate(self, a: int, b: int) -> None:
        index = self._vertex(a)
        method = getattr(self.world.service, self.plan.vertices[index].kind)
        existing = method.existing(index)
        if method.options.consolidates:
            method.invalidate(index)  # what goes stale depends on how far a comparison got
            return
        with self._foretelling(existing):
            if b % 2:
                method.invalidate(index)
            else:
                with invalidating():
                    method(index)

    def on_doom(self, a: int, b: int) -> None:
        """Make a result stale that is being computed."""
        computing = [node for node in invariants.nodes_of(self.world) if node.is_computing]
        if computing:
            computing.sort(key=lambda node: node.version)
            node = computing[a % len(computing)]
            node.invalidate(now=True)
            self.doomed.append(node)

    def on_invalidate_held(self, a: int, b: int) -> None:
        if self.held:
            computed = self.held[a % len(self.held)]
            match b % 3:
                case 0:
                    with self._foretelling(computed):
                        computed.invalidate()
                case 1:
                    computed.invalidate(now=True)
                    assert computed.is_invalidated
                case 2:
                    computed.invalidate(after=DELAY)

    def on_invalidate_everything(self, a: int, b: int) -> None:
        invalidate_everything()

    # -- time, memory

    async def on_advance(self, a: int, b: int) -> None:
        await self._advance((1 + a % 16) / 8)

    async def _advance(self, seconds: float) -> None:
        before = self.clock.now()
        await self.clock.advance(seconds)
        if self.clock.now() // HOUR != before // HOUR:
            self.world.epoch += 1

    def on_prune(self, a: int, b: int) -> None:
        prune()

    # -- holding, watching, following

    def on_hold(self, a: int, b: int) -> None:
        index = self._vertex(a)

        async def hold() -> None:
            method = getattr(self.world.service, self.plan.vertices[index].kind)
            if b % 2:
                self.held.append(await method.capture(index))
            else:
                self.held.append(await capture(lambda: self.world.call(index)))

        self._start(hold())

    def on_let_go(self, a: int, b: int) -> None:
        if self.held:
            del self.held[a % len(self.held)]

    def on_update(self, a: int, b: int) -> None:
        if self.held:
            computed = self.held[a % len(self.held)]

            async def update() -> None:
                self.held.append(await computed.update())

            self._start(update())

    def on_read_apart(self, a: int, b: int) -> None:
        async def read() -> None:
            with isolated():
                await self.world.call(self._vertex(a))

        self._start(read())

    def on_watch(self, a: int, b: int) -> None:
        if self.held:
            computed = self.held[a % len(self.held)]
            watch = asyncio.get_running_loop().create_task(computed.when_invalidated())
            self.watches.append((watch, computed))

    def on_handle(self, a: int, b: int) -> None:
        """When a result goes stale, make another one stale, or change data, in that moment."""
        if not self.held:
            return
        index = self._vertex(b)
        service = weakref.ref(self.world.service)
        variable = self.world.variables[b % VARIABLES]
        world = weakref.ref(self.world)

        def handle(computed: Computed[Any]) -> None:
            there = world()
            if there is not None and b & 4:
                there.epoch += 1
                variable.set((variable.value + 1) % MODULUS)
            else:
                getattr(service(), self.plan.vertices[index].kind).invalidate(index)

        self.handlers.append(self.held[a % len(self.held)].on_invalidated(handle))

    def on_follow(self, a: int, b: int) -> None:
        if len(self.followers) < 2:
            index = self._vertex(a)
            state: ComputedState[int] = ComputedState(
                lambda: self.world.call(index), delay=DELAY * (b % 3), initial=0
            )
            self.followers.append((index, state))

    def on_unfollow(self, a: int, b: int) -> None:
        if self.followers:
            self.followers.pop(a % len(self.followers))[1].close()

    def on_stream(self, a: int, b: int) -> None:
        if self.held and len(self.streams) < 2:
            stream = Stream(self.held[a % len(self.held)], b % 2 * DELAY)
            self.streams.append(stream)

    def on_be_restless(self, a: int, b: int) -> None:
        self.world.restlessness += 1 + a % 3

    # -- another event loop

    def _change_loops(self, *, is_abrupt: bool, is_late: bool) -> None:
        self.account.append(f"{self.clock.now():g}: a new loop{' at once' if is_abrupt else ''}")
        self.loop.run_until_complete(self._stop_followers())
        if not is_abrupt:
            self.loop.run_until_complete(_cancel_all())
        for task in [call.task for call in self.calls] + self.others:
            if task.done():
                _outcome_of(task)
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            assert inspect.iscoroutine(coroutine)
            self.left_behind.append(coroutine)
        self.loop.close()
        if not is_late:
            self._clear_away()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._note_loop_trouble)
        self.calls.clear()
        self.others.clear()
        self.watches.clear()
        self.world.paused.clear()
        # What was computed there is over, whether or not somebody still holds on to its remains.
        self.world.running.clear()
        self.loop.run_until_complete(self._arrive())

    def _clear_away(self) -> None:
        """Do as the garbage collector does, some time after a loop was closed."""
        while self.left_behind:
            self.left_behind.pop().close()

    async def _arrive(self) -> None:
        # The graph takes notice of a new loop when something is computed in it.
        await Computed.of(lambda: asyncio.sleep(0)).update()

    async def _stop_followers(self) -> None:
        ending = []
        for _, state in self.followers:
            state.graceful_close = 0
            ending.append(asyncio.ensure_future(state.aclose()))
        streams = [stream.task for stream in self.streams]
        self.followers.clear()
        self.streams.clear()
        for _ in range(100):
            for task in streams:  # more than once: a stubborn body takes a cancellation for itself
                task.cancel()
            await self.clock.settle()
            if all(task.done() for task in streams + ending):
                return
            self.world.resume()
            await self._advance(1 / 8)  # a restless one tries again only after a while
        raise AssertionError("what follows can't be stopped")

    # -- the end

    async def _come_to_rest(self) -> None:
        """Let everything end, and see that all is well."""
        self.account.append(f"{self.clock.now():g}: coming to rest")
        world = self.world
        world.restlessness = 0
        for _ in range(100):
            world.resume()
            await self.clock.settle()
            self._check(is_settled=True)
            if not self.calls and not self.others:
                break
            await self._advance(1)
        self._clear_away()
        assert not self.calls, "calls never end"
        assert not self.others, "other uses never end"
        world.pausing = False
        world.resume()
        await self.clock.settle()
        await self._check_followers()
        await self._stop_followers()
        for watch, computed in self.watches:
            assert watch.done() == computed.is_invalidated
            watch.cancel()
        self.watches.clear()
        await self.clock.settle()
        await self._check_calls()
        world.is_audited = True
        found = await audit(world.service)
        world.is_audited = False
        assert not found.stale, str(found)
        for _ in range(20):
            if not background_tasks():  # a comparison holds the result that it compares
                break
            await self._advance(DELAY / 2)

    async def _check_followers(self) -> None:
        # To the end of an hour, so that what follows with delays has followed.
        await self._advance(HOUR - self.clock.now() % HOUR + HOUR * 7 / 8)
        self._check()
        followed: list[tuple[int, Outcome | None]] = [
            (index, invariants.outcome_of(state.computed)) for index, state in self.followers
        ]
        followed += [(stream.index, stream.latest) for stream in self.streams]
        for index, found in followed:
            due = self.world.expected(index)
            if not self._is_late(index):
                assert found == due, f"what follows {index} has {found}, and should have {due}"

    def _is_late(self, index: int) -> bool:
        node = getattr(self.world.service, self.plan.vertices[index].kind).existing(index)
        return node is None or not node.is_consistent or invariants.is_late(node, {})

    async def _check_calls(self) -> None:
        """Every call gives what it should, and when made again at once computes nothing."""
        for round_number in range(2):
            runs = self.world.runs
            for index in range(len(self.plan.vertices)):
                self.on_call(index, 0)
            await self.clock.settle()
            self._check()
            if round_number and self.plan.budget is None:
                assert self.world.runs == runs, "what is cached was computed again"

    def _let_go(self) -> None:
        self.doomed.clear()
        while self.handlers:
            self.handlers.pop()()  # what somebody watches stays
        self.held.clear()
        self.watches.clear()
        self.streams.clear()
        for source in self.world.sources:
            source.invalidate()  # it holds what it was computed from
        prune()
        if invariants.nodes_of(self.world):
            gc.collect()  # a failed asyncio.TaskGroup, for one, is a circle with all its tasks
            prune()
        left = invariants.nodes_of(self.world)
        assert not left, f"{left} are held by nobody"

    def _check_all_gone(self, seen: list[weakref.ref[Any]]) -> None:
        """Nothing is left: no task, no timer, no result, no service."""
        self.loop.run_until_complete(self._check_idle())
        seen.append(weakref.ref(self.world.service))
        del self.world
        gc.collect()
        assert not _alive(seen), f"{_alive(seen)} are still there"

    async def _check_idle(self) -> None:
        await self.clock.settle()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"{others} still run"
        assert not background_tasks()
        assert self.clock.timers <= SWEEPS
        await self.clock.advance(700)  # the longest pause between two sweeps, and more
        assert self.clock.timers == 0

    def _close_loop(self) -> None:
        if not self.loop.is_closed():
            self.loop.run_until_complete(_cancel_all())
            self.loop.close()

    # -- troubles that nobody would be told of

    @contextlib.contextmanager
    def _watching_for_troubles(self) -> Iterator[None]:
        handler = _Listener(self.troubles)
        logger = logging.getLogger("afresh")
        logger.addHandler(handler)
        propagates, logger.propagate = logger.propagate, False
        hook, sys.unraisablehook = sys.unraisablehook, self._note_unraisable
        self.loop.set_exception_handler(self._note_loop_trouble)
        try:
            yield
        finally:
            sys.unraisablehook = hook
            logger.propagate = propagates
            logger.removeHandler(handler)

    def _note_unraisable(self, unraisable: Any) -> None:
        self.troubles.append(f"unraisable: {unraisable.exc_value!r} in {unraisable.object!r}")

    def _note_loop_trouble(self, loop: Any, context: dict[str, Any]) -> None:
        if not loop.is_closed():  # nobody was left there who could ask for results
            self.troubles.append(f"loop: {context}")


class Stream:
    """Follows the changes of a result."""

    def __init__(self, computed: Computed[Any], delay: float) -> None:
        self.index: int = computed.args[0]
        self.latest: Outcome | None = None
        self.task: asyncio.Task[None] = asyncio.get_running_loop().create_task(
            self._follow(computed, delay)
        )

    async def _follow(self, computed: Computed[Any], delay: float) -> None:
        async for each in computed.changes(delay):
            self.latest = invariants.outcome_of(each)


class _Listener(logging.Handler):
    def __init__(self, troubles: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.troubles = troubles

    def emit(self, record: logging.LogRecord) -> None:
        self.troubles.append(f"logged: {record.getMessage()} {record.exc_info}")


def _alive(references: list[weakref.ref[Any]]) -> list[str]:
    # As text: whoever looks must not be the one that holds them.
    return [repr(node) for reference in references if (node := reference()) is not None]


def _outcome_of(task: asyncio.Task[Any]) -> Outcome | None:
    """What a task gave; None if it was cancelled."""
    if task.cancelled():
        return None
    error = task.exception()
    if error is None:
        return "value", task.result()
    if isinstance(error, (Fault, Glitch)):
        return "error", (type(error), str(error))
    raise error


async def _cancel_all() -> None:
    for _ in range(1000):  # some refuse the first time
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
    raise AssertionError(f"{tasks} can't be cancelled")
