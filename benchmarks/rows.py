"""The rows of the table: what is compared with what, and the bound that it must meet."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.conductor import Measured

Bound = float | None

TIMES = "\N{MULTIPLICATION SIGN}"
"""The unit of a ratio."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Arguments:
        workload: where its samples come from.
        what: the words in the table.
        unit: ``TIMES`` for a ratio, else what the number counts.
        figure: takes a variant's samples and gives the number; raises ``KeyError`` where a case was
            not measured.
        compiled: the bound for the compiled twin: one number, or one for each interpreter version
            with ``""`` for all others.
        pure: the bound for the pure twin, in the same way.
        at_least: whether the bound is a floor; else it is a ceiling.
    """

    workload: str
    what: str
    unit: str
    figure: Callable[[Measured], float]
    compiled: Bound | dict[str, float] = None
    pure: Bound | dict[str, float] = None
    at_least: bool = False

    def bound(self, measured: Measured) -> Bound:
        """The bound for this interpreter and twin; ``None`` where the row only informs."""
        bound = self.compiled if measured.about["twin"] == "compiled" else self.pure
        if isinstance(bound, dict):
            return bound.get(measured.version, bound[""])
        return bound


@dataclass(frozen=True)
class Judged:
    """A row's number for one variant. ``figure`` is ``None`` where it was not measured, ``met``
    where nothing is demanded.
    """

    row: Row
    figure: float | None
    bound: Bound
    met: bool | None


def judge(row: Row, measured: Measured) -> Judged:
    """The row's figure for a variant, held against its bound."""
    bound = row.bound(measured)
    try:
        figure = row.figure(measured)
    except KeyError:
        return Judged(row, None, bound, None)
    if bound is None:
        return Judged(row, figure, None, None)
    return Judged(row, figure, bound, figure >= bound if row.at_least else figure <= bound)


def ratio(workload: str, case: str, against: str) -> Callable[[Measured], float]:
    """The median, over the rounds, of one case divided by another of the same round."""

    def figure(measured: Measured) -> float:
        cases = measured.samples[workload]
        return median(
            above / below for above, below in zip(cases[case], cases[against], strict=True)
        )

    return figure


def microseconds(workload: str, case: str) -> Callable[[Measured], float]:
    """The median time of one operation, in microseconds."""
    return lambda measured: median(measured.samples[workload][case]) * 1e6


def memory(name: str) -> Callable[[Measured], float]:
    """What a memory measurement gave."""
    return lambda measured: measured.memory[name]


def _flat(shape: str) -> Callable[[Measured], float]:
    def figure(measured: Measured) -> float:
        cases = measured.samples["cascade"]
        return median(cases[f"{shape} 100000, held"]) / median(cases[f"{shape} 1000, held"])

    return figure


HIT = {"3.11": 1.25, "": 1.75}
CASCADE = {"fan": "direct dependants", "chain": "nodes in a chain"}
FLAT = 2.0
"""How much dearer a node may be among 100,000 than among 1,000 to count as flat. The larger graph
no longer fits the core's caches, which alone makes a node 1.5 to 1.9 times as dear (observ's too);
work that grows with the size of the graph would show as 5 times at least."""


def _hits() -> list[Row]:
    rows = [
        Row("hit", "cached call, int key ÷ empty coroutine method", TIMES,
            ratio("hit", "afresh int", "plain"), HIT, 3.5),
        Row("hit", "cached call, str key ÷ empty coroutine method", TIMES,
            ratio("hit", "afresh str", "plain"), HIT, 3.5),
    ]  # fmt: skip
    for peer, floor in (
        ("async-lru", 10),
        ("aiocache", 100),
        ("aiocache, tuned", None),
        ("cashews", 100),
        ("cashews, tuned", None),
    ):
        rows.append(
            Row("hit", f"{peer}: its hit ÷ afresh's", TIMES,
                ratio("hit", peer, "afresh int"), floor, at_least=True)
        )  # fmt: skip
    return rows


def _cascades() -> list[Row]:
    rows = []
    for shape, words in CASCADE.items():
        for size in (1_000, 10_000, 100_000):
            bounds = (0.15, 0.4) if size == 100_000 else (None, None)
            rows += [
                Row("cascade", f"cascade, {size:,} {words}, {way}", "µs a node",
                    microseconds("cascade", f"{shape} {size}, {way}"), *bounds)
                for way in ("dropped", "held")
            ]  # fmt: skip
            rows.append(
                Row("cascade", f"cascade, {size:,} {words}, observ", "µs a node",
                    microseconds("cascade", f"{shape} {size}, observ"))
            )  # fmt: skip
        rows.append(
            Row(
                "cascade",
                f"a node among 100,000 {words} ÷ among 1,000",
                TIMES,
                _flat(shape),
                FLAT,
                FLAT,
            )
        )
    return rows


ROWS: list[Row] = [
    *_hits(),
    Row("inside", "cached call with an edge, a thousand keys ÷ the same outside", TIMES,
        ratio("inside", "inside, each key", "outside, each key"), 2),
    Row("inside", "cached call with an edge, a thousand keys ÷ empty coroutine method", TIMES,
        ratio("inside", "inside, each key", "plain"), None, 3.5),
    Row("inside", "cached call with an edge, one key ÷ the same outside", TIMES,
        ratio("inside", "inside, one key", "outside, one key"), 2),
    Row("inside", "cached call with an edge, one key ÷ empty coroutine method", TIMES,
        ratio("inside", "inside, one key", "plain"), None, 3.5),
    Row("fresh", "fresh key ÷ empty coroutine method", TIMES,
        ratio("fresh", "afresh", "plain"), 25, 60),
    *(
        Row("fresh", f"{peer}: its fresh key ÷ afresh's", TIMES, ratio("fresh", peer, "afresh"))
        for peer in ("async-lru", "aiocache", "cashews")
    ),
    Row("recompute", "invalidate and recompute one key ÷ async-lru's", TIMES,
        ratio("recompute", "afresh", "async-lru"), 0.35),
    Row("recompute", "invalidate and recompute one key ÷ empty coroutine method", TIMES,
        ratio("recompute", "afresh", "plain")),
    *_cascades(),
    *(
        Row("command", f"{what} ÷ empty coroutine method", TIMES, ratio("command", case, "plain"),
            bound)
        for case, what, bound in (
            ("commander", "command with no database", 20),
            ("handler", "the same as a call of its handler", 20),
            ("invalidates", "command with no database that says what is stale", None),
        )
    ),
    Row("memory", "a node with an int key", "bytes", memory("bytes a node"), 500, 500),
    Row("memory", "async-lru: a result with an int key", "bytes",
        memory("async-lru, bytes a node")),
    Row("memory", "an edge, one a node", "bytes", memory("bytes an edge, one each"), 120, 120),
    Row("memory", "an edge, ten a node", "bytes", memory("bytes an edge, ten each"), 120, 120),
    Row("memory", "blocks left by a million dropped nodes", "%", memory("blocks left, %"), 5, 5),
    Row("memory", "resident size left by a million dropped nodes", "%",
        memory("resident left, %"), 5, 5),
]  # fmt: skip
