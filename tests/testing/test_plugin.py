"""The pytest plugin: its fixtures, in runs of pytest-asyncio and of anyio's plugin."""

from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

IS_INSTALLED = any(
    point.value == "afresh.testing.plugin" for point in entry_points(group="pytest11")
)

SERVICE = """
import asyncio
import pytest
from afresh import ComputedState, ComputeService, MutableState, compute_method
from afresh import graph, states
from afresh.primitives.clock import current_clock
from afresh.testing import FakeClock, assert_invalidates, audit, no_tasks_left

class Rooms(ComputeService):
    def __init__(self):
        self.free = 3
        self.runs = 0

    @compute_method(keep_alive=10, auto_invalidate=100)
    async def count(self):
        self.runs += 1
        return self.free

rooms = Rooms()
"""


@pytest.fixture(params=["asyncio", "anyio"])
def run(request, pytester):
    """Run tests, async ones by pytest-asyncio or by anyio's plugin, and return the outcome."""

    def run_tests(source: str, **outcomes: int) -> pytest.RunResult:
        pytester.makeini(
            "[pytest]\nfilterwarnings = error\nasyncio_mode = auto\n"
            "asyncio_default_fixture_loop_scope = function"
        )
        mark = ""
        arguments = ["-p", "no:anyio"]
        if request.param == "anyio":
            mark = (
                "\npytestmark = pytest.mark.anyio\n"
                "@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
            )
            pytester.makeini("[pytest]\nfilterwarnings = error")
            arguments = ["-p", "no:asyncio"]
        if not IS_INSTALLED:
            arguments += ["-p", "afresh.testing.plugin"]
        pytester.makepyfile(SERVICE + mark + source)
        result = pytester.runpytest_inprocess(
            "-p", "no:cacheprovider", "-p", "no:xdist", *arguments
        )
        result.assert_outcomes(**outcomes)
        return result

    return run_tests


def test_the_fake_clock_drives_delays_and_keep_alive(run):
    run(
        """
async def test_first(fake_clock):
    assert isinstance(fake_clock, FakeClock) and current_clock() is fake_clock
    computed = await rooms.count.capture()
    await fake_clock.advance(99)
    assert computed.is_consistent
    await fake_clock.advance(1)
    assert computed.is_invalidated
    await rooms.count()
    await fake_clock.advance(15)
    assert rooms.count.existing() is None
    await rooms.count()

async def test_next(fake_clock):
    assert fake_clock.now() == 0
    assert rooms.count.existing() is None
    await rooms.count()
    await fake_clock.advance(15)
    assert rooms.count.existing() is None

def test_after():
    assert not isinstance(current_clock(), FakeClock)
    assert rooms.count.existing() is None

def test_in_code_without_a_loop(fake_clock):
    state = MutableState(1)
    state.invalidate(after=5)
    computed = state.computed
    fake_clock.advance_sync(5)
    assert computed.is_invalidated
""",
        passed=4,
    )


def test_a_fresh_graph_has_nothing_cached_and_is_set_back(run):
    run(
        """
async def test_before():
    await rooms.count()

async def test_with_it(fresh_graph):
    assert rooms.count.existing() is None
    assert await rooms.count() == 3
    graph.set_node_budget(5)
    graph.track_causes(graph.Tracking.CHAIN)
    graph.set_default_options(graph.default_options().replace(keep_alive=1))
    states.delayer_defaults.min_delay = 0
    states.delayer_defaults.update_delay = 0

def test_after():
    assert rooms.count.existing() is None
    assert graph.node_budget() == 1_000_000
    assert graph.tracking() is graph.Tracking.ORIGIN
    assert graph.default_options().keep_alive == 60
    assert states.delayer_defaults.min_delay == 0.032
    assert states.delayer_defaults.update_delay == 1
""",
        passed=3,
    )


def test_a_task_that_a_test_leaves_behind_fails_it(run):
    result = run(
        """
async def test_clean(no_tasks_left):
    async with ComputedState(rooms.count) as state:
        await state.when_ready()
    cancelled = asyncio.ensure_future(asyncio.sleep(60))
    cancelled.cancel()

async def sleep_long():
    await asyncio.sleep(60)

async def test_leaving(no_tasks_left):
    asyncio.get_running_loop().create_task(sleep_long(), name="the one that was left")

async def test_failing_anyway(no_tasks_left):
    asyncio.get_running_loop().create_task(sleep_long())
    raise LookupError("the test's own")

class TestInAClass:
    async def test_leaving(self, no_tasks_left, fake_clock):
        asyncio.get_running_loop().create_task(sleep_long())
""",
        passed=1,
        failed=3,
    )
    result.stdout.fnmatch_lines(
        [
            "E * AssertionError: Tasks still run that were started here;*",
            "E * the one that was left, at *.py:*",
        ]
    )
    result.stdout.fnmatch_lines(["*LookupError: the test's own"])


def test_an_audited_test_fails_for_what_it_leaves_stale(run):
    result = run(
        """
@pytest.fixture(autouse=True)
def _audit_all(fresh_graph, audited): pass

class Plain(ComputeService):
    free = 3
    @compute_method
    async def count(self):
        return self.free

async def test_telling():
    plain = Plain()
    await plain.count()
    plain.free = 2
    plain.count.invalidate()

async def test_forgetting():
    global plain
    plain = Plain()
    await plain.count()
    plain.free = 2
""",
        passed=1,
        failed=1,
    )
    result.stdout.fnmatch_lines(["E * Plain.count() is cached as 3 but gives 2"])


def test_a_check_of_async_tests_refuses_others(run):
    result = run("def test_it(no_tasks_left): pass", errors=1)
    result.stdout.fnmatch_lines(["*'no_tasks_left' looks at what an async test leaves behind*"])


def test_it_works_with_properties(run):
    run(
        """
from hypothesis import HealthCheck, given, settings, strategies

@settings(max_examples=5, database=None, suppress_health_check=list(HealthCheck))
@given(number=strategies.integers())
async def test_it(no_tasks_left, number):
    await asyncio.sleep(0)
    if number == 0:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(60), name="left")
""",
        failed=1,
    )
