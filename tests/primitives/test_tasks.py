import asyncio
import contextvars
import gc
import logging
import weakref

import pytest

from afresh.primitives.tasks import background_tasks, start_background

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_task_is_named_listed_while_it_runs_and_gone_when_done():
    event = asyncio.Event()
    task = start_background(event.wait, name="waiter")
    assert task.get_name() == "waiter"
    assert background_tasks() == {task}
    event.set()
    assert await task is True
    assert background_tasks() == frozenset()


async def test_a_coroutine_will_do_as_well_as_a_function():
    assert await start_background(asyncio.sleep(0, "done"), name="coroutine") == "done"


async def test_a_task_that_nobody_holds_is_kept_until_done():
    reached = asyncio.Event()
    waiting: list[weakref.ref[asyncio.Future[None]]] = []

    async def work() -> None:
        # Nothing but the task itself refers to what it waits for.
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(weakref.ref(future))
        await future
        reached.set()

    start_background(work, name="unheld")
    await asyncio.sleep(0)
    gc.collect()
    waiting[0]().set_result(None)
    await asyncio.wait_for(reached.wait(), 5)


async def test_the_context_is_empty_unless_given():
    async def look() -> str:
        return variable.get()

    token = variable.set("mine")
    try:
        assert await start_background(look, name="empty") == "none"
        context = contextvars.copy_context()
        assert await start_background(look, name="copied", context=context) == "mine"
    finally:
        variable.reset(token)


async def test_an_error_is_logged_with_the_name_of_the_task(caplog):
    async def fail() -> None:
        raise ValueError("broken")

    with caplog.at_level(logging.ERROR, "afresh.tasks"):
        task = start_background(fail, name="faulty")
        await asyncio.wait([task])
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert "faulty" in record.message
    assert str(record.exc_info[1]) == "broken"
    assert background_tasks() == frozenset()


async def test_a_cancellation_is_not_logged(caplog):
    task = start_background(forever, name="cancelled")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caplog.records == []
    assert background_tasks() == frozenset()


def test_without_a_loop_nothing_starts_and_nothing_warns():
    coroutine = forever()
    with pytest.raises(RuntimeError, match="no running event loop"):
        start_background(coroutine, name="too early")
    assert coroutine.cr_frame is None  # closed, so Python has nothing to warn about
    with pytest.raises(RuntimeError, match="no running event loop"):
        start_background(forever, name="too early")


def test_tasks_of_a_closed_loop_are_neither_listed_nor_kept():
    loop = asyncio.new_event_loop()

    async def leave_one_behind() -> asyncio.Task[None]:
        return start_background(forever, name="left behind")

    task = loop.run_until_complete(leave_one_behind())
    task._log_destroy_pending = False
    loop.close()
    gone = weakref.ref(loop)

    async def next_loop() -> None:
        assert background_tasks() == frozenset()
        await start_background(asyncio.sleep(0), name="next")

    asyncio.run(next_loop())
    del task, loop
    gc.collect()
    assert gone() is None
