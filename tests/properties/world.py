"""A small world of computations, and beside it what each of them has to give.

Cells are plain numbers, variables are mutable states. Vertices compute a number from cells,
variables, the time, and vertices before them, in many ways: one part after the other, all at once,
by choice, failing for some numbers, waiting in between. `World.expected` says, without any cache,
what a vertex gives now.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import weakref
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from afresh import ComputedSource, ComputeService, MutableState, compute_method, current_computed
from afresh.primitives.clock import current_clock

MODULUS = 7
"""Numbers are small, so that different ones often lead to the same."""
HOUR = 4.0
"""Seconds of the clock after which `Service.hour` gives another number."""
DELAY = 0.25
"""Seconds that a delayed invalidation, or a comparison, takes here."""
LIFETIME = 1.0
"""Seconds for which what expires is served."""


class Fault(ValueError):
    """A computation that does not work for its numbers; kept for long."""


class Glitch(ConnectionError):
    """The same, but of the kind that may pass, and so kept only for a while."""


class Way(enum.Enum):
    """How a vertex reads its parts."""

    IN_TURN = 0
    AT_ONCE = 1
    IN_A_GROUP = 2
    BY_CHOICE = 3
    FORGIVING = 4
    LETTING_GO = 5


KINDS = (
    "plain",
    "delayed",
    "expiring",
    "brief",
    "steady",
    "slowly_steady",
    "restless",
    "stubborn",
)
"""The compute methods of `Service` that vertices are calls of."""
LATE_KINDS = {"delayed", "steady", "slowly_steady"}
"""Those whose results, and so what depends on them, may be out of date for a while by design."""

Part = tuple[str, int]
Outcome = tuple[str, Any]
"""``("value", number)`` or ``("error", (type, message))``."""


@dataclass(frozen=True)
class Vertex:
    """One computation."""

    kind: str
    way: Way
    parts: tuple[Part, ...]
    fails_at: int
    """The number for which it fails; MODULUS is never."""
    pauses: int
    """Bits: pause before the parts, between them, after them."""


@dataclass(eq=False)
class World:
    """The data, the vertices, and the bodies that wait for their turn."""

    vertices: list[Vertex]
    cells: list[int]
    variables: list[MutableState[int]]
    slow_cells: int = 0
    """Bits: which cells take their time to be read."""
    restlessness: int = 0
    """How many times restless bodies are still to be cancelled from within."""
    pausing: bool = True
    paused: list[asyncio.Future[None]] = field(default_factory=list)
    epoch: int = 0
    """Counts the changes of data."""
    runs: int = 0
    """How many bodies ran."""
    running: dict[Any, int] = field(default_factory=dict)
    """What is computed at the moment, and the version that this will have."""
    finished_at: dict[int, float] = field(default_factory=dict)
    """Version → when its body ended, for those that must expire in time."""
    seen: list[weakref.ref[Any]] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)
    is_audited: bool = False
    service: Service = field(init=False)
    sources: list[ComputedSource[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.service = Service(self)
        # A method of what the source needs, not of the world: the world is to die without circles.
        service = self.service
        self.sources = [
            ComputedSource(_reading(service, number)) for number in range(len(self.cells))
        ]

    # -- what happens in bodies

    async def pause(self) -> None:
        """Wait until the history lets one go on."""
        if self.pausing:
            future = asyncio.get_running_loop().create_future()
            self.paused.append(future)
            await future

    def resume(self, number: int | None = None) -> None:
        """Let one of those that wait go on, or all."""
        going, self.paused = self.paused, []
        if number is not None and going:
            kept = going.pop(number % len(going))
            going, self.paused = [kept], going
        for future in going:
            if not future.done() and not future.get_loop().is_closed():
                future.set_result(None)

    @contextlib.contextmanager
    def running_body(self, key: Any) -> Iterator[None]:
        """Goes around each body."""
        self.runs += 1
        computed = current_computed()
        version = computed.version
        if self.is_audited:
            yield
            return
        assert version not in self.versions, "versions are unique"
        self.versions.add(version)
        self.seen.append(weakref.ref(computed))
        del computed
        assert key not in self.running, f"{key} is computed twice at the same time"
        self.running[key] = version
        try:
            yield
        finally:
            if self.running.get(key) == version:  # else a closed loop had left it behind
                del self.running[key]
                self.finished_at[version] = current_clock().now()

    # -- what has to come out

    def expected(self, index: int) -> Outcome:
        """What a vertex gives now."""
        return self._expected(index, {})

    def _expected(self, index: int, known: dict[int, Outcome]) -> Outcome:
        if index not in known:
            known[index] = self._outcome(index, known)
        return known[index]

    def _outcome(self, index: int, known: dict[int, Outcome]) -> Outcome:
        vertex = self.vertices[index]

        def read(part: Part) -> int:
            name, number = part
            match name:
                case "cell" | "source":
                    return self.cells[number]
                case "variable":
                    return self.variables[number].value
                case "hour":
                    return hour()
            kind, what = self._expected(number, known)
            if kind == "error":
                raise what[0](what[1])
            return what

        try:
            return "value", vertex_value(index, vertex, collect_now(vertex, index, read))
        except (Fault, Glitch) as error:
            return "error", (type(error), str(error))

    def is_late(self, index: int) -> bool:
        """Whether a vertex may be out of date for a while by design, or something it may use."""
        vertex = self.vertices[index]
        return vertex.kind in LATE_KINDS or any(
            name == "vertex" and self.is_late(number) for name, number in vertex.parts
        )

    def call(self, index: int) -> Any:
        """Call the compute method that a vertex stands for."""
        return getattr(self.service, self.vertices[index].kind)(index)


def hour() -> int:
    """The time, in whole hours."""
    return int(current_clock().now() // HOUR) % MODULUS


def vertex_value(index: int, vertex: Vertex, numbers: list[int]) -> int:
    """What comes of the numbers that a vertex read."""
    value = (sum(numbers) + index) % MODULUS
    if value == vertex.fails_at:
        kind = Glitch if index % 2 else Fault
        raise kind(f"vertex {index} does not like {value}")
    return value


def collect_now(vertex: Vertex, index: int, read: Callable[[Part], int]) -> list[int]:
    """Read the parts of a vertex as `collect` does, without waiting."""
    parts = vertex.parts
    match vertex.way:
        case Way.IN_TURN:
            return [read(part) for part in parts]
        case Way.AT_ONCE | Way.IN_A_GROUP:
            try:
                return [read(part) for part in parts]
            except (Fault, Glitch):
                raise Fault(f"a part of vertex {index} failed") from None
        case Way.BY_CHOICE:
            first = read(parts[0])
            return [first, read(parts[1 + first % (len(parts) - 1)])] if parts[1:] else [first]
        case Way.FORGIVING:
            return [forgive(read, part) for part in parts]
        case Way.LETTING_GO:
            return [read(parts[0])]


def forgive(read: Callable[[Part], int], part: Part) -> int:
    """Take a failure for a number."""
    try:
        return read(part)
    except (Fault, Glitch):
        return 1


async def collect(
    vertex: Vertex,
    index: int,
    read: Callable[[Part], Coroutine[Any, Any, int]],
    pause: Callable[[], Coroutine[Any, Any, None]],
) -> list[int]:
    """Read the parts of a vertex."""
    parts = vertex.parts
    match vertex.way:
        case Way.IN_TURN:
            numbers = []
            for part in parts:
                numbers.append(await read(part))
                if vertex.pauses & 2:
                    await pause()
            return numbers
        case Way.AT_ONCE:
            try:  # where one fails the others run on, and nobody waits for them
                return list(await asyncio.gather(*(read(part) for part in parts)))
            except (Fault, Glitch):
                raise Fault(f"a part of vertex {index} failed") from None
        case Way.IN_A_GROUP:
            try:  # where one fails the others are cancelled
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(read(part)) for part in parts]
            except ExceptionGroup:
                raise Fault(f"a part of vertex {index} failed") from None
            return [task.result() for task in tasks]
        case Way.BY_CHOICE:
            first = await read(parts[0])
            if vertex.pauses & 2:
                await pause()
            if not parts[1:]:
                return [first]
            return [first, await read(parts[1 + first % (len(parts) - 1)])]
        case Way.FORGIVING:
            forgiven = []
            for part in parts:
                try:
                    forgiven.append(await read(part))
                except (Fault, Glitch):
                    forgiven.append(1)
            return forgiven
        case Way.LETTING_GO:
            others = [asyncio.ensure_future(read(part)) for part in parts[1:]]
            for other in others:
                other.add_done_callback(lambda task: task.cancelled() or task.exception())
            try:
                return [await read(parts[0])]
            finally:
                for other in others:
                    if not other.get_loop().is_closed():
                        other.cancel()


def _reading(service: Service, number: int) -> Callable[[], Coroutine[Any, Any, int]]:
    return lambda: service.cell(number)


class Service(ComputeService):
    """The cells and vertices of a world as compute methods."""

    def __init__(self, world: World) -> None:
        self._world = weakref.ref(world)

    @property
    def world(self) -> World:
        """The world; it outlives its computations."""
        world = self._world()
        assert world is not None
        return world

    @compute_method
    async def cell(self, number: int) -> int:
        world = self.world
        with world.running_body(("cell", number)):
            value = world.cells[number]
            if world.slow_cells >> number & 1:
                await world.pause()
            return value

    @compute_method
    async def hour(self) -> int:
        now = current_clock().now()
        with self.world.running_body("hour"):
            current_computed().invalidate(after=HOUR - now % HOUR)
            return hour()

    @compute_method
    async def plain(self, index: int) -> int:
        return await self._compute(index)

    @compute_method(invalidation_delay=DELAY)
    async def delayed(self, index: int) -> int:
        return await self._compute(index)

    @compute_method(auto_invalidate=LIFETIME)
    async def expiring(self, index: int) -> int:
        return await self._compute(index)

    @compute_method(keep_alive=0.5, error_delay=LIFETIME, transient_error_delay=0.5)
    async def brief(self, index: int) -> int:
        return await self._compute(index)

    @compute_method(consolidate=0)
    async def steady(self, index: int) -> int:
        return await self._compute(index)

    @compute_method(consolidate=DELAY)
    async def slowly_steady(self, index: int) -> int:
        return await self._compute(index)

    @compute_method
    async def restless(self, index: int) -> int:
        world = self.world
        if world.restlessness and not world.is_audited:
            world.restlessness -= 1
            never = asyncio.get_running_loop().create_future()
            never.cancel()
            await never
        return await self._compute(index)

    @compute_method
    async def stubborn(self, index: int) -> int:
        try:
            await self.world.pause()
        except asyncio.CancelledError:
            pass
        return await self._compute(index, may_pause=False)

    async def _compute(self, index: int, *, may_pause: bool = True) -> int:
        world = self.world
        vertex = world.vertices[index]
        pause = world.pause if may_pause else _go_on
        with world.running_body(index):
            if vertex.pauses & 1:
                await pause()
            numbers = await collect(vertex, index, self._read, pause)
            if vertex.pauses & 4:
                await pause()
            return vertex_value(index, vertex, numbers)

    async def _read(self, part: Part) -> int:
        name, number = part
        match name:
            case "cell":
                return await self.cell(number)
            case "source":
                return await self.world.sources[number].use()
            case "variable":
                return self.world.variables[number].use()
            case "hour":
                return await self.hour()
        return await self.world.call(number)


async def _go_on() -> None:
    """Pause for no time."""
