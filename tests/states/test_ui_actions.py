import asyncio
import gc
import logging
import weakref
from collections.abc import Iterator

import pytest

from afresh.errors import InvalidStateError
from afresh.primitives.clock import use_clock
from afresh.primitives.result import Result
from afresh.states.ui_actions import UIAction, UIActionTracker
from afresh.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture
def tracker(clock) -> UIActionTracker:
    return UIActionTracker()


async def fail(message: str = "broken") -> None:
    await asyncio.sleep(0)
    raise ValueError(message)


# -- actions


async def test_an_action_has_a_growing_id_a_start_and_a_command(clock):
    first = UIAction("first")
    await clock.advance(2)
    second = UIAction("second")
    assert second.id > first.id
    assert (first.started_at, second.started_at) == (0.0, 2.0)
    assert (first.command, second.command) == ("first", "second")
    assert not first.is_completed
    assert first.result is None
    assert repr(first) == f"<UIAction {first.id} 'first' running>"


async def test_a_completed_action_has_a_result_with_time_and_duration(clock):
    action: UIAction[int] = UIAction("add")
    await clock.advance(2.5)
    result = action.complete(Result.ok(5))
    assert action.is_completed
    assert action.result is result
    assert (result.action_id, result.command) == (action.id, "add")
    assert (result.value, result.error, result.is_ok) == (5, None, True)
    assert (result.started_at, result.completed_at, result.duration) == (0.0, 2.5, 2.5)
    assert not result.was_cancelled
    assert repr(action).endswith("ok>")


async def test_a_failed_action_has_an_error_that_only_its_value_raises(clock):
    action: UIAction[int] = UIAction("add")
    error = ValueError("broken")
    result = action.complete(Result.err(error))
    assert await action.when_completed() is result
    assert result.error is error
    assert not result.is_ok
    with pytest.raises(ValueError, match="broken"):
        _ = result.value
    assert repr(action).endswith("failed>")


async def test_an_action_completes_once(clock):
    action: UIAction[int] = UIAction("add")
    action.complete(Result.ok(1))
    with pytest.raises(InvalidStateError, match="make a UIAction for each run"):
        action.complete(Result.ok(2))
    assert action.result.value == 1


async def test_waiting_for_an_action_can_be_cancelled_and_leaves_nothing_behind(clock):
    action: UIAction[int] = UIAction("add")
    patient = asyncio.ensure_future(action.when_completed())
    hasty = asyncio.ensure_future(action.when_completed())
    await clock.settle()
    hasty.cancel()
    await clock.settle()
    assert len(action._completed) == 1
    result = action.complete(Result.ok(1))
    assert await patient is result
    assert hasty.cancelled()


async def test_a_handler_hears_of_the_result_once_even_when_it_comes_late_or_in_between(clock):
    action: UIAction[int] = UIAction("add")
    heard: list[str] = []

    def first(_: object) -> None:
        heard.append("first")
        action.on_completed(lambda _: heard.append("in between"))

    action.on_completed(first)
    unwanted = action.on_completed(lambda _: heard.append("unwanted"))
    unwanted()
    action.complete(Result.ok(1))
    action.on_completed(lambda _: heard.append("late"))
    assert heard == ["first", "in between", "late"]


# -- running actions


@pytest.mark.parametrize(
    "work",
    [
        lambda: asyncio.sleep(0, "done"),
        lambda: lambda: asyncio.sleep(0, "done"),
        lambda: lambda: "done",
        lambda: asyncio.ensure_future(asyncio.sleep(0, "done")),
    ],
    ids=["awaitable", "async function", "function", "task"],
)
async def test_anything_can_be_run_as_an_action(tracker, work):
    assert await tracker.call(work()) == "done"
    result = await tracker.run(work())
    assert result.value == "done"
    assert tracker.last_result is result
    assert tracker.running_count == 0


async def test_run_returns_the_error_and_logs_it(tracker, caplog):
    with caplog.at_level(logging.WARNING, "afresh.ui"):
        result = await tracker.run(fail())
    assert isinstance(result.error, ValueError)
    assert tracker.last_result is result
    (record,) = caplog.records
    assert str(record.exc_info[1]) == "broken"
    assert "fail" in record.message


async def test_run_returns_the_error_of_a_plain_function_too(tracker):
    result = await tracker.run(lambda: 1 / 0)
    assert isinstance(result.error, ZeroDivisionError)


async def test_call_raises_the_error_and_tracks_it(tracker):
    with pytest.raises(ValueError, match="broken"):
        await tracker.call(fail())
    assert isinstance(tracker.last_result.error, ValueError)
    assert tracker.running_count == 0


@pytest.mark.parametrize("method", ["run", "call"])
async def test_cancelling_passes_through_and_ends_the_action(tracker, method):
    task = asyncio.ensure_future(getattr(tracker, method)(asyncio.Event().wait()))
    await asyncio.sleep(0)
    assert tracker.running_count == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tracker.running_count == 0
    assert tracker.last_result.was_cancelled


@pytest.mark.parametrize("method", ["run", "call"])
async def test_what_ends_the_program_passes_through_and_ends_the_action(tracker, method):
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        await getattr(tracker, method)(stop)
    assert tracker.running_count == 0


async def test_an_action_is_named_after_what_runs_or_by_the_caller(tracker):
    await tracker.run(fail)
    assert tracker.last_action.command == "fail"
    await tracker.run(fail())
    assert tracker.last_action.command == "fail"
    await tracker.run(asyncio.ensure_future(asyncio.sleep(0)))
    assert tracker.last_action.command == "Task"
    await tracker.run(fail, command=("place", 5))
    assert tracker.last_action.command == ("place", 5)


async def test_a_finished_action_does_not_keep_what_it_ran_alive(tracker, monkeypatch):
    monkeypatch.setattr(logging.getLogger("afresh.ui"), "disabled", True)  # pytest keeps records

    class Page:
        async def good(self) -> None: ...

        async def bad(self) -> None:
            page = self
            raise ValueError(id(page))

    page = Page()
    gone = weakref.ref(page)
    gc.disable()
    try:
        await tracker.run(page.good)
        await tracker.run(page.good())
        await tracker.run(page.bad)
        del page
        assert gone() is None
    finally:
        gc.enable()
    assert tracker.last_result.error is not None


async def test_stopping_lets_go_of_the_last_error_without_help_of_the_collector(tracker):
    class Mine(Exception):
        pass

    async def bad() -> None:
        raise Mine

    async def use() -> weakref.ref[BaseException]:
        try:
            await tracker.call(bad)
        except Mine as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        gone = await use()
        assert gone() is tracker.last_result.error
        tracker.stop()
        assert gone() is None
    finally:
        gc.enable()


# -- the tracker


async def test_the_tracker_counts_running_actions_and_knows_the_last_ones(tracker):
    assert (tracker.running_count, tracker.last_action, tracker.last_result) == (0, None, None)
    events = [asyncio.Event(), asyncio.Event()]
    tasks = []
    for number, event in enumerate(events):
        tasks.append(asyncio.ensure_future(tracker.run(event.wait, command=number)))
        await asyncio.sleep(0)
        assert tracker.running_count == number + 1
        assert tracker.last_action.command == number
    events[1].set()
    second = await tasks[1]
    assert (tracker.running_count, tracker.last_result) == (1, second)
    events[0].set()
    first = await tasks[0]
    assert (tracker.running_count, tracker.last_result) == (0, first)
    assert tracker.last_action.id == second.action_id


async def test_handlers_hear_of_actions_and_results_until_they_leave(tracker):
    heard: list[tuple[str, object]] = []
    leave_actions = tracker.on_action(lambda action: heard.append(("action", action.command)))
    leave_results = tracker.on_result(lambda result: heard.append(("result", result.value)))
    await tracker.run(lambda: 1, command="one")
    leave_actions()
    await tracker.run(lambda: 2, command="two")
    leave_results()
    await tracker.run(lambda: 3, command="three")
    assert heard == [("action", "one"), ("result", 1), ("result", 2)]


async def test_a_failing_handler_disturbs_neither_the_action_nor_other_handlers(tracker, caplog):
    heard: list[object] = []

    def broken(_: object) -> None:
        raise ZeroDivisionError

    for handler in (broken, heard.append):
        tracker.on_action(handler)
        tracker.on_result(handler)
    assert (await tracker.run(lambda: "done")).value == "done"
    assert len(heard) == 2
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * 2


async def test_an_action_that_something_else_runs_can_be_registered(tracker):
    action: UIAction[int] = UIAction("elsewhere")
    tracker.register(action)
    assert tracker.running_count == 1
    result = action.complete(Result.ok(1))
    assert (tracker.running_count, tracker.last_result) == (0, result)


async def test_a_completed_action_can_be_registered_so_that_it_shows_at_once(tracker):
    action: UIAction[None] = UIAction("sign-in")
    result = action.complete(Result.ok(None))
    tracker.register(action)
    assert tracker.running_count == 0
    assert tracker.last_result is result
    assert tracker.instant_updates_enabled


# -- instant updates


async def test_instant_updates_are_enabled_while_an_action_runs_and_300_ms_after(tracker, clock):
    assert not tracker.instant_updates_enabled
    task = asyncio.ensure_future(tracker.run(clock.sleep(10)))
    await clock.advance(9.999)
    assert tracker.instant_updates_enabled
    await clock.advance(0.001)
    await task
    await clock.advance(0.3)
    assert tracker.instant_updates_enabled
    await clock.advance(0.001)
    assert not tracker.instant_updates_enabled


async def test_the_last_of_several_results_counts(tracker, clock):
    await tracker.run(lambda: None)
    await clock.advance(0.2)
    await tracker.run(lambda: None)
    await clock.advance(0.2)
    assert tracker.instant_updates_enabled


async def test_the_instant_update_period_can_be_chosen(clock):
    tracker = UIActionTracker(instant_update_period=2)
    await tracker.run(lambda: None)
    await clock.advance(2)
    assert tracker.instant_updates_enabled
    with pytest.raises(ValueError, match="0 or more"):
        UIActionTracker(instant_update_period=-1)


async def test_waiting_for_instant_updates_ends_at_once_when_they_are_enabled(tracker):
    await tracker.run(lambda: None)
    await asyncio.wait_for(tracker.when_instant_updates_enabled(), 5)


async def test_waiting_for_instant_updates_ends_with_the_next_action(tracker, clock):
    waiters = [asyncio.ensure_future(tracker.when_instant_updates_enabled()) for _ in range(3)]
    await clock.advance(60)
    assert not any(waiter.done() for waiter in waiters)
    action: UIAction[None] = UIAction("act")
    tracker.register(action)
    tracker.stop()  # too late to matter to those who waited
    await asyncio.gather(*waiters)
    assert not tracker._waiters


async def test_a_wait_for_instant_updates_that_is_cancelled_leaves_nothing_behind(tracker):
    waiter = asyncio.ensure_future(tracker.when_instant_updates_enabled())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not tracker._waiters


# -- stopping


async def test_a_stopped_tracker_runs_actions_and_ignores_them(tracker):
    heard: list[object] = []
    tracker.on_action(heard.append)
    tracker.on_result(heard.append)
    tracker.stop()
    assert tracker.is_stopped
    assert (await tracker.run(lambda: 1)).value == 1
    assert await tracker.call(lambda: 2) == 2
    assert heard == []
    assert (tracker.running_count, tracker.last_action, tracker.last_result) == (0, None, None)
    assert not tracker.instant_updates_enabled


async def test_an_action_that_runs_when_the_tracker_stops_is_ignored_from_then_on(tracker):
    event = asyncio.Event()
    task = asyncio.ensure_future(tracker.run(event.wait))
    await asyncio.sleep(0)
    tracker.stop()
    assert tracker.running_count == 0
    event.set()
    assert (await task).is_ok
    assert (tracker.running_count, tracker.last_result) == (0, None)


async def test_waiting_for_instant_updates_of_a_stopped_tracker_says_so(tracker):
    waiter = asyncio.ensure_future(tracker.when_instant_updates_enabled())
    await asyncio.sleep(0)
    tracker.stop()
    for waiting in (waiter, tracker.when_instant_updates_enabled()):
        with pytest.raises(InvalidStateError, match="stopped"):
            await waiting
