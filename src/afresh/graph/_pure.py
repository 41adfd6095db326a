"""The graph's kernel in Python: nodes, edges, the cascade, and the call path of a cached result.

This is the twin of `_speedups.c`: the same names, the same behaviour, used where no C compiler was
at hand, on free-threaded builds, and under ``AFRESH_PURE=1``. What is not on the path of a hit, a
miss or an invalidation lives above it, in Python alone.

How edges are kept: while a body runs, the nodes that it used are only listed. When its result is
there, the list becomes a tuple of strong references to the dependencies, and each dependency gets
a weak reference back, so that a dependency never keeps its dependants alive. A dependency that
went stale in between makes the new node stale at birth.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Generator
from types import CodeType, FunctionType
from typing import Any

from ._context import COMPUTING, CONSISTENT, DELAYED, INVALIDATED, PENDING, PENDING_NOW, current

COMPILED = False

_next_version = itertools.count(1).__next__

# Module globals rather than attributes: reading one is the cheapest thing a function can do.
tick = 1
room = 1 << 30
make_room: Callable[[], int] | None = None
hit_sampler: Callable[[Any], object] | None = None
observer: Any = None
chain_causes = False


def configure(**settings: Any) -> None:
    """Set the kernel's variables.

    Args:
        settings: `room`, how many nodes may still be published before `make_room` is called, which
            returns the next number; `hit_sampler`, called with the node of every hit; `observer`,
            whose `computed(node)` and `invalidated(node)` are called; `chain_causes`, whether a
            node's cause is the dependency that went stale rather than what made that go stale.
    """
    for name, value in settings.items():
        if name not in {"room", "make_room", "hit_sampler", "observer", "chain_causes"}:
            raise TypeError(f"The kernel has no variable {name!r}.")
        globals()[name] = value


def advance_tick() -> int:
    """Return the tick that marks all uses up to now; those that follow get a higher one."""
    global tick
    tick += 1
    return tick - 1


_FEW = 16
"""As long as a node had fewer dependants, nobody looks for those that are gone."""


class Keeper:
    """Where nodes of one kind are kept, by key: consistent ones in `entries`, the others apart."""

    __slots__ = ("__weakref__", "arity", "computing", "entries", "instance")

    def __init__(self, instance: Any = None, arity: int = 0) -> None:
        self.entries: dict[Any, Any] = {}
        self.computing: dict[Any, Any] = {}
        self.instance: Any = instance
        self.arity: int = arity


class Node:
    """One result: its keeper and key, its state, its value or error, and its edges.

    A new node is COMPUTING, and found in ``keeper.computing``.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_dependants",
        "_dependencies",
        "_error",
        "_value",
        "cause",
        "extra",
        "flags",
        "keeper",
        "key",
        "limit",
        "parent",
        "stamp",
        "state",
        "used",
        "version",
    )

    keeper: Any
    key: Any
    parent: Any
    cause: Any
    extra: Any
    state: int
    flags: int
    version: int
    used: int
    stamp: int
    limit: int

    def __init__(
        self, keeper: Any, key: Any, args: tuple[Any, ...], parent: Any = None, flags: int = 0
    ) -> None:
        self.keeper = keeper
        self.key = key
        # Most keys are the arguments; nothing more needs to be kept then.
        self._args = None if key is args or (keeper.arity == 1 and key is args[0]) else args
        self.parent = parent
        self.flags = flags
        self.state = COMPUTING
        self.version = _next_version()
        self.stamp = 0
        self.used = tick
        self._error: BaseException | None = None
        self._dependencies: Any = []
        self._dependants: list[weakref.ref[Node]] | tuple[()] | None = None
        """None as long as, or when no longer, anything may depend on the node."""
        self.limit = _FEW
        self.cause = None
        self.extra = None
        keeper.computing[key] = self

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments to compute this result again with."""
        if self._args is not None:
            return self._args
        return (self.key,) if self.keeper.arity == 1 else self.key

    # A call that finds its result returns the node itself: it is its own, finished, coroutine.

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return self._value
        except AttributeError:
            pass  # so that this is no part of what is raised
        self._raise()
        yield  # makes this a generator function

    def send(self, value: None) -> None:
        """Step the finished coroutine that a result is."""
        try:
            value = self._value
        except AttributeError:
            pass
        else:
            raise StopIteration(value)
        self._raise()

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> None:
        """Raise `error`, as a finished coroutine does."""
        raise error

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""

    def _raise(self) -> None:
        raise NotImplementedError  # `Computed` raises its error, or that there is no result yet

    def _touch(self) -> None:
        """Note that the node was used just now."""
        self.used = tick

    def _use(self, node: Node) -> None:
        """Note that the body of this node used `node`; a no-op once the result is there."""
        if self.state == COMPUTING:
            self._dependencies.append(node)

    _hit: Callable[[Any], Any]

    def _finish(self, value: Any, error: BaseException | None, keep: bool) -> None:
        """Set the result, link the edges, and publish the node under its key if `keep` says so."""
        global tick, room
        keeper = self.keeper
        key = self.key
        if error is None:
            self._value = value
        else:
            self._error = error
        self.parent = None
        if self._dependencies:
            reference = weakref.ref(self)
            self._dependencies = used = tuple(self._dependencies)
            # Looking at the length of every list is a third of the work. With many edges at once it
            # is enough to do it now and then, by no rhythm that a program could fall in with.
            looks = len(used) < _FEW or not self.version * 0x9E3779B1 & 0xF0000
            for dependency in used:
                dependants = dependency._dependants
                if dependants:
                    if looks and len(dependants) >= _FEW:
                        dependency._link(reference)
                    else:
                        dependants.append(reference)
                elif dependants is not None:
                    dependency._dependants = [reference]
                else:  # stale by now
                    self.flags |= PENDING
                    if self.cause is None:
                        self.cause = dependency if chain_causes else dependency.cause
        else:
            self._dependencies = ()
        self.state = CONSISTENT
        self._dependants = ()
        if keeper.computing.get(key) is self:
            del keeper.computing[key]
        else:  # given up, or another one took its place: too late to count
            keep = False
            self.flags |= PENDING | PENDING_NOW
        tick += 1
        self.used = tick
        if keep:
            previous = keeper.entries.get(key)
            keeper.entries[key] = self
            if previous is not None:
                previous._replaced()
            room -= 1
            if room <= 0 and make_room is not None:
                room = make_room()
        if observer is not None:
            observer.computed(self)
        if self.flags & PENDING:
            invalidate(self, self.cause, bool(self.flags & PENDING_NOW))

    @property
    def dependencies(self) -> tuple[Any, ...]:
        """The nodes that this one was computed from, in the order of their first use."""
        return tuple(dict.fromkeys(self._dependencies))

    @property
    def dependants(self) -> tuple[Any, ...]:
        """The living nodes that were computed from this one, in the order in which they were."""
        nodes = (reference() for reference in self._dependants or ())
        return tuple(
            dict.fromkeys(node for node in nodes if node is not None and node.state == CONSISTENT)
        )

    def _link(self, reference: weakref.ref[Node]) -> None:
        # An edge is not taken back when its dependant dies or goes stale: finding it would cost
        # more than looking through all of them whenever their number has doubled.
        dependants = self._dependants
        assert isinstance(dependants, list)
        if len(dependants) >= self.limit:
            dependants[:] = [
                reference
                for reference in dependants
                if (node := reference()) is not None and node.state == CONSISTENT
            ]
            self.limit = max(_FEW, 2 * len(dependants))
        dependants.append(reference)


def invalidate(node: Any, cause: Any = None, now: bool = False) -> None:
    """Make `node` stale and, depth first, everything computed from it.

    Iterative, so a chain of any length costs no recursion. A node's own handlers run before its
    dependants are looked at. With `now` the node's own invalidation delay is skipped.
    """
    if node.cause is None:
        node.cause = cause
    if node.state == COMPUTING:
        node.flags |= PENDING | PENDING_NOW if now else PENDING
    elif node.state == CONSISTENT:
        if node.flags & DELAYED and not now:
            node._delay()
        else:
            _cascade(node)


def _cascade(node: Any) -> None:
    stack = [node]
    interruption: BaseException | None = None
    while stack:
        node = stack.pop()
        if node.state != CONSISTENT:  # a handler came first
            continue
        node.state = INVALIDATED
        if node.extra is not None:
            try:
                node._gone()
            except BaseException as error:  # asks the program to end: when all is done
                interruption = error
        else:
            entries = node.keeper.entries
            if entries.get(node.key) is node:
                del entries[node.key]
                if not entries:
                    entries.clear()  # an emptied dict keeps its memory, a cleared one does not
        if observer is not None:
            observer.invalidated(node)
        node._dependencies = ()
        dependants = node._dependants
        node._dependants = None
        if dependants:
            cause = node if chain_causes else node.cause
            for reference in reversed(dependants):  # so that the first one is taken first
                dependant: Any = reference()
                if dependant is not None and dependant.state == CONSISTENT:
                    if dependant.cause is None:
                        dependant.cause = cause
                    if dependant.flags & DELAYED:
                        dependant._delay()
                    else:
                        stack.append(dependant)
    if interruption is not None:
        raise interruption


# Calls: one plain function per service instance and method, because nothing else that Python can
# call is as fast. It has the parameters and defaults of the method itself.

_CALL = """\
def factory(_entries, _current, _miss, _key_of, _plain, _unhashable, _defaults):
    def _key_and_args({parameters}):
        {key}
        return _key, {arguments}
    def _answer({parameters}):
        {key}
        try:
            _node = _entries[_key]
        except KeyError:
            return _miss(_key, {arguments})
        except TypeError as _error:
            raise _unhashable({arguments}) from _error
        _node.used = tick
        if hit_sampler is not None:
            hit_sampler(_node)
        _context = _current()
        if _context is None:
            return _node
        if not _context.state:
            if _node.stamp != _context.version:
                _node.stamp = _context.version
                _context._dependencies.append(_node)
            return _node
        return _context._hit(_node)
    return _answer, _key_and_args
"""


def _compile_call(definition: Any) -> Callable[..., Any]:
    names = definition.parameters.names
    arguments = "(" + "".join(f"{name}, " for name in names) + ")"
    key = f"_key = _key_of({arguments})"
    if definition.plain_keys:
        tests = " and ".join(
            f"((_type := type({name})) is int or _type is str or _type in _plain)" for name in names
        )
        exact = names[0] if len(names) == 1 else arguments
        key = f"_key = {exact} if {tests} else _key_of({arguments})" if names else "_key = ()"
    source = _CALL.format(
        parameters=definition.parameters.source,
        arguments=arguments,
        key=key,
    )
    module = compile(source, f"<calls of {definition.name}>", "exec")
    factory = _first_code(module)
    # What Python says of arguments that do not fit names the function by this.
    name = getattr(definition.function, "__qualname__", definition.name)
    named = (
        each.replace(co_qualname=name) if isinstance(each, CodeType) else each
        for each in factory.co_consts
    )
    return FunctionType(factory.replace(co_consts=tuple(named)), globals())


def _first_code(module: CodeType) -> CodeType:
    return next(each for each in module.co_consts if isinstance(each, CodeType))


class Bound:
    """A compute method of one service instance, or a compute function: the calls of one table."""

    __slots__ = ("__weakref__", "_call", "_key", "table")

    def __init__(self, table: Any) -> None:
        definition = table.definition
        if definition.compiled_call is None:
            definition.compiled_call = _compile_call(definition)
        self.table = table
        self._call, self._key = definition.compiled_call(
            table.entries,
            current.get,
            table.miss,
            definition.key_of,
            definition.plain_types,
            definition.unhashable,
            definition.parameters.defaults,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


class Method:
    """The descriptor that a compute method is in its class."""

    def __init__(self, definition: Any) -> None:
        self.definition = definition
        self.__doc__ = definition.__doc__
        self.__module__ = definition.module

    def __set_name__(self, owner: type, name: str) -> None:
        self.definition.named(owner, name)

    def __getattr__(self, name: str) -> Any:
        if name == "definition":  # while unpickling or copying
            raise AttributeError(name)
        return getattr(self.definition, name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        bound = self.definition.bind(instance)
        if not isinstance(bound, Bound) or not self.definition.in_service:
            return bound
        # The function itself answers calls from now on: it takes the place of this descriptor in
        # the instance's dictionary, and so has to look like the bound method.
        call = bound._call
        if not hasattr(call, "bound"):
            for attribute in ("table", *type(bound).surface):  # type: ignore[attr-defined]
                setattr(call, attribute, getattr(bound, attribute))
            call.bound = bound
            for attribute, value in vars(bound).items():
                setattr(call, attribute, value)
        object.__setattr__(instance, self.definition.name, call)
        return call

    def __call__(self, instance: Any, *args: Any, **kwargs: Any) -> Any:
        return self.__get__(instance)(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.definition)
