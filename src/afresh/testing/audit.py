"""`audit()`: compute every cached result once more, and name each that comes out different.

A cached result that differs from what its method would give now was not told of a change: somewhere
an invalidation is missing. Each body is run apart from the graph, with the results it uses taken
from the cache, so that the finding is the very result whose own invalidation is missing, and not
everything that was computed from it.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from afresh.graph import ComputeMethod, nodes
from afresh.graph._context import CONSISTENT, DELAY_RUNS
from afresh.graph.apart import compute_apart
from afresh.graph.computed import Computed, is_transient_failure
from afresh.graph.table import Table
from afresh.primitives.clock import current_clock
from afresh.primitives.result import Result

__all__ = ["Audit", "Finding", "Skipped", "audit"]

_Filter = Callable[[Computed[Any]], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A cached result that computes to something else."""

    computed: Computed[Any]
    """The cached result."""
    cached: Result[Any]
    """What it holds."""
    fresh: Result[Any]
    """What its method gave now."""
    remark: str = ""
    """What else there is to know."""

    @property
    def name(self) -> str:
        """The call: "Orders.for_user('u1')"."""
        return self.computed.describe()

    def __str__(self) -> str:
        text = f"{self.name} is cached as {_shown(self.cached)} but gives {_shown(self.fresh)}"
        return f"{text} ({self.remark})" if self.remark else text

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True, slots=True, eq=False)
class Skipped:
    """A cached result that was not judged."""

    computed: Computed[Any]
    """The cached result."""
    reason: str
    """Why it was not judged."""

    @property
    def name(self) -> str:
        """The call: "Orders.for_user('u1')"."""
        return self.computed.describe()

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Audit:
    """What `audit()` found. True when nothing is stale; `str()` of it tells everything."""

    checked: int
    """How many results were computed once more and judged."""
    stale: tuple[Finding, ...]
    """Those that differ: an invalidation is missing."""
    expiring: tuple[Finding, ...]
    """Those that differ but will expire by themselves, as a value with `auto_invalidate` may."""
    unknown: tuple[Finding, ...]
    """Those that can't be judged: two computations in a row differ already, as the values have no
    ``==`` or depend on time or chance; or they can't be compared, or computing failed for now."""
    skipped: tuple[Skipped, ...]
    """Those that were left out: excluded, changed in the meantime, or about to."""

    def __bool__(self) -> bool:
        return not self.stale

    def check(self) -> None:
        """Fail if something is stale.

        Raises:
            AssertionError: names each stale result.
        """
        __tracebackhide__ = True
        if self.stale:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        lines = [f"{len(self.stale)} of {self.checked} cached results are stale."]
        if self.stale:
            lines[0] += " Invalidate each where the data behind it changes:"
        lines += [f"  {finding}" for finding in self.stale]
        sections: list[tuple[str, Sequence[object]]] = [
            ("These differ, but expire by themselves:", self.expiring),
            ("These can't be judged:", self.unknown),
            ("These were skipped:", self.skipped),
        ]
        for heading, items in sections:
            if items:
                lines += [heading, *(f"  {item}" for item in items)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        counts = (
            f"{len(items)} {what}"
            for what, items in [
                ("expiring", self.expiring),
                ("unknown", self.unknown),
                ("skipped", self.skipped),
            ]
            if items
        )
        stale = ", ".join(map(str, self.stale)) or "nothing stale"
        return f"<Audit of {self.checked} results: {'; '.join([stale, *counts])}>"


async def audit(
    *only: object,
    exclude: object | Iterable[object] = (),
    equals: Callable[[Any, Any], bool] | None = None,
    concurrency: int = 8,
    timeout: float = 10.0,
) -> Audit:
    """Compute every cached result of compute methods once more, and name each one that differs.

    The bodies run, once, and those of differing results twice; nothing else happens: no result is
    replaced or made stale, and nothing new is cached. Leave out methods whose bodies must not run.

    Errors are results like any other, equal when their types and messages are; those that may pass
    by themselves are not judged. A result that changes while the audit runs is not judged either.

    Args:
        only: what to audit; all that is cached, when nothing is named. Services, classes of
            services, compute methods (of a service, or of a class), or functions that take a
            `Computed` and tell whether it belongs.
        exclude: what to leave out; one of the same, or several.
        equals: compares the cached value with the fresh one; ``==`` by default.
        concurrency: how many bodies run at once.
        timeout: seconds that one body gets; one that takes longer is skipped.

    Raises:
        TypeError: something that is no service, compute method or function was named.
        ValueError: `concurrency` or `timeout` is not positive.

    Example:
        ```python
        result = await audit()
        assert not result.stale
        ```
    """
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency}: at least one body must run at a time.")
    if not timeout > 0:
        raise ValueError(f"timeout={timeout}: a body needs some time; pass seconds above 0.")
    included = [_filter(each) for each in only]
    excluded = [_filter(each) for each in _listed(exclude)]
    work = _Work(list(_audited(included)), excluded, equals, timeout)
    async with asyncio.TaskGroup() as group:
        for number in range(min(concurrency, len(work.nodes))):
            group.create_task(work.run(), name=f"afresh audit {number}")
    return work.result()


class _Kind(enum.Enum):
    SAME = enum.auto()
    STALE = enum.auto()
    EXPIRING = enum.auto()
    UNKNOWN = enum.auto()
    SKIPPED = enum.auto()


_Judgement = tuple[_Kind, Finding | Skipped | None]


class _Work:
    """The results to audit, and what was found about those that were looked at."""

    def __init__(
        self,
        nodes: list[Computed[Any]],
        excluded: list[_Filter],
        equals: Callable[[Any, Any], bool] | None,
        timeout: float,
    ) -> None:
        self.nodes = nodes
        self.excluded = excluded
        self.equals = equals
        self.timeout = timeout
        self.next = iter(range(len(nodes)))
        self.judgements: dict[int, _Judgement] = {}

    async def run(self) -> None:
        for index in self.next:  # which all that run here share
            self.judgements[index] = await self.judge(self.nodes[index])

    async def judge(self, node: Computed[Any]) -> _Judgement:
        reason = "excluded" if any(each(node) for each in self.excluded) else _changing(node)
        cached = node.output
        if not reason and is_transient_failure(node):
            reason = f"{_shown(cached)} may pass by itself"
        if reason:
            return _Kind.SKIPPED, Skipped(node, reason)
        try:
            fresh = await self.compute(node)
            same = self.compare(node, cached, fresh)
            if same:
                return _Kind.SAME, None
            again = await self.compute(node)
            repeats = self.compare(node, fresh, again)
        except _CannotTellError as error:
            if reason := _changing(node):
                return _Kind.SKIPPED, Skipped(node, reason)
            if error.fresh is None:
                return _Kind.SKIPPED, Skipped(node, error.reason)
            return _Kind.UNKNOWN, Finding(node, cached, error.fresh, error.reason)
        if reason := _changing(node):
            return _Kind.SKIPPED, Skipped(node, reason)
        if not repeats:
            reason = f"and {_shown(fresh)} just before: it has no ==, or depends on time or chance"
            return _Kind.UNKNOWN, Finding(node, cached, again, reason)
        seconds = _expires_in(node)
        if seconds is not None:
            return _Kind.EXPIRING, Finding(node, cached, again, f"expires in {seconds:.3g} s")
        return _Kind.STALE, Finding(node, cached, again)

    async def compute(self, node: Computed[Any]) -> Result[Any]:
        """What the body gives now."""
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        try:
            async with asyncio.timeout(self.timeout):
                computed = await compute_apart(node)
        except TimeoutError:
            raise _CannotTellError(f"not computed within {self.timeout:g} s") from None
        except RecursionError:
            raise _CannotTellError("its calls nest too deeply") from None
        except asyncio.CancelledError:
            if task.cancelling() > cancellations:
                raise
            raise _CannotTellError("cancelled from within") from None
        if is_transient_failure(computed):
            raise _CannotTellError("this error may pass by itself", computed.output)
        return computed.output

    def compare(self, node: Computed[Any], left: Result[Any], right: Result[Any]) -> bool:
        """Whether two results are the same."""
        if not left.is_ok or not right.is_ok:
            return type(left.error) is type(right.error) and str(left.error) == str(right.error)
        one, other = left.value, right.value
        if one is other:
            return True
        equals = self.equals if self.equals is not None else node.options.equals
        try:
            if equals is not None:
                return bool(equals(one, other))
            is_nan = one != one and other != other  # noqa: PLR0124
            return bool(one == other) or bool(is_nan)
        except Exception as error:
            reason = f"not comparable: {type(error).__name__}: {error}"
            raise _CannotTellError(reason, right) from None

    def result(self) -> Audit:
        found: dict[_Kind, list[Any]] = {kind: [] for kind in _Kind}
        for index, node in enumerate(self.nodes):
            kind, outcome = self.judgements[index]
            if kind in {_Kind.STALE, _Kind.EXPIRING} and (reason := _changing(node)):
                kind, outcome = _Kind.SKIPPED, Skipped(node, reason)  # the news came late
            found[kind].append(outcome)
        judged = (_Kind.SAME, _Kind.STALE, _Kind.EXPIRING)
        return Audit(
            checked=sum(len(found[kind]) for kind in judged),
            stale=tuple(found[_Kind.STALE]),
            expiring=tuple(found[_Kind.EXPIRING]),
            unknown=tuple(found[_Kind.UNKNOWN]),
            skipped=tuple(found[_Kind.SKIPPED]),
        )


class _CannotTellError(Exception):
    """A result can't be judged; with what it gave, if it gave anything."""

    def __init__(self, reason: str, fresh: Result[Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fresh = fresh


# -- which results


def _audited(included: list[_Filter]) -> Iterator[Computed[Any]]:
    consistent = sorted(
        (node for node in nodes() if node.is_consistent), key=lambda node: node.version
    )
    # Of a consolidating method callers see the target; its source is looked at through that.
    behind = {id(node.consolidation.source) for node in consistent if node.consolidation}
    for node in consistent:
        if id(node) not in behind and (not included or any(each(node) for each in included)):
            yield node


def _listed(exclude: Any) -> list[object]:
    return list(exclude) if isinstance(exclude, (list, tuple, set, frozenset)) else [exclude]


def _filter(named: Any) -> _Filter:
    """A test whether a result belongs to what somebody named."""
    table = getattr(named, "table", None)
    if isinstance(table, Table):  # a compute method of a service, or a compute function
        return lambda node: node.keeper in {table, getattr(table, "source", None)}
    if isinstance(named, ComputeMethod):
        return lambda node: named.definition in _lineage(node)
    if isinstance(named, type):
        return lambda node: isinstance(node.keeper.instance, named)
    if inspect.isroutine(named):
        return named
    if any(isinstance(each, ComputeMethod) for each in _attributes(type(named))):
        return lambda node: node.keeper.instance is named
    raise TypeError(
        f"audit() was told of {named!r}, which is no service, no class of services, no compute "
        "method and no function that takes a Computed."
    )


def _attributes(kind: type) -> Iterator[object]:
    for base in kind.__mro__:
        yield from vars(base).values()


def _lineage(node: Computed[Any]) -> list[Any]:
    definition = getattr(node.keeper, "definition", None)
    return definition.lineage() if definition is not None else []


# -- what can be said of them


def _changing(node: Computed[Any]) -> str:
    """Why a result can't be judged now: it went stale, or is about to."""
    if node.state != CONSISTENT:
        return "it changed in the meantime"
    if node.flags & DELAY_RUNS:
        return "an invalidation is under way"
    if node.consolidation is not None and not node.consolidation.source.is_consistent:
        return "it is being compared with a new result"
    return ""


def _expires_in(node: Computed[Any]) -> float | None:
    """Seconds until a value goes stale by itself; None for one that does not, and for errors."""
    shown = node.consolidation.source if node.consolidation is not None else node
    timer = shown.extra.timer if shown.extra is not None else None
    if shown.error is not None or timer is None or not timer.is_active:
        return None
    return max(timer.due - current_clock().now(), 0.0)


def _shown(result: Result[Any]) -> str:
    text = repr(result.value if result.error is None else result.error)
    return text if len(text) <= 80 else f"{text[:77]}..."
