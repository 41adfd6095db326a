"""Copies of errors are like the original, whatever its class does."""

import copy
import socket
from dataclasses import dataclass
from typing import Any, Self

import pytest

from afresh import ComputeService, compute_method
from afresh.graph import cached_errors
from afresh.graph.cached_errors import fresh_copy, without_traceback


class Plain(Exception):
    pass


class Required(Exception):
    """A constructor that takes other arguments than it hands on."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"{number}: {reason}")
        self.number = number
        self.reason = reason


class Silent(Exception):
    """A constructor that hands on nothing."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        return f"silent {self.number}"


class Slotted(Exception):
    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and self.number == other.number

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Data(Exception):
    code: int
    text: str = ""


@dataclass(frozen=True)
class Frozen(Exception):
    code: int
    text: str = ""


class Reducing(Exception):
    """Says itself how it is copied."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self) -> Any:
        return Reducing, (self.code, self.args[0])


class System(OSError):
    def __init__(self, code: int) -> None:
        super().__init__(code, "text", "file.txt")
        self.code = code


class Loading(ImportError):
    def __init__(self, module: str) -> None:
        super().__init__(f"no {module}", name=module, path="/somewhere")


class Codec(UnicodeDecodeError):
    def __init__(self, data: bytes) -> None:
        super().__init__("utf-8", data, 0, 1, "odd")


class Group(ExceptionGroup):
    def __new__(cls, errors: list[Exception]) -> Self:
        self = super().__new__(cls, "several", errors)
        self.count = len(errors)
        return self

    def derive(self, errors: Any) -> "Group":
        return Group(list(errors))


def attributed() -> Exception:
    error = Plain("text", 1)
    error.code = 5  # type: ignore[attr-defined]
    error.items = [1]  # type: ignore[attr-defined]
    return error


def noted() -> Exception:
    error = Plain("text")
    error.add_note("a note")
    return error


def looked_up() -> Exception:
    try:
        _ = object().missing  # type: ignore[attr-defined]
    except AttributeError as error:
        return error
    raise AssertionError


SAMPLES: list[Exception] = [
    Plain(),
    Plain("text", 1),
    attributed(),
    noted(),
    Required(1, reason="why"),
    Silent(3),
    Slotted(4),
    Data(1, text="words"),
    Frozen(1, text="words"),
    Reducing(1, "words"),
    System(13),
    Loading("module"),
    Codec(b"\xff"),
    ValueError("a"),
    KeyError(("a", 1)),
    OSError(2, "No such file", "file.txt"),
    FileNotFoundError(2, "No such file", "a", None, "b"),
    ConnectionResetError(104, "reset"),
    socket.gaierror(-2, "unknown"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
    ImportError("no", name="module", path="/somewhere"),
    SyntaxError("odd", ("file.py", 1, 2, "text")),
    NameError("n", name="n"),
    StopAsyncIteration(3),
    looked_up(),
    ExceptionGroup("several", [Plain("a"), Required(1, reason="why")]),
    Group([Plain("a"), OSError(2, "b")]),
]


def parts(error: BaseException) -> dict[str, Any]:
    """All that can be seen of an error but for where it was raised."""
    names = [
        name
        for kind in type(error).__mro__
        for name, value in vars(kind).items()
        if not name.startswith("__") and type(value).__name__.endswith("descriptor")
        if not callable(value)
    ]
    return {
        "type": type(error),
        "text": str(error),
        "repr": repr(error),
        "notes": list(getattr(error, "__notes__", ())),
        **{name: value for name, value in vars(error).items() if name != "__notes__"},
        **{
            name: [parts(each) for each in error.exceptions]
            if name == "exceptions" and isinstance(error, BaseExceptionGroup)
            else repr(error.args)
            if name == "args"
            else getattr(error, name, "missing")
            for name in names
        },
    }


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_copy_is_like_the_original(sample: Exception):
    try:
        raise sample
    except Exception as error:
        double = fresh_copy(error)

    assert double is not sample
    assert double.__traceback__ is None
    assert double.__context__ is None
    assert parts(double) == parts(sample)
    assert parts(fresh_copy(double)) == parts(sample)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
async def test_it_is_raised_to_every_caller(sample: Exception):
    class Failing(ComputeService):
        @compute_method
        async def get(self) -> int:
            raise sample

    failing = Failing()
    with pytest.raises(type(sample)) as first:
        await failing.get()
    assert first.value is sample
    expected = parts(sample)
    raised = []
    for _ in range(3):
        with pytest.raises(type(sample)) as caught:
            await failing.get()
        raised.append(caught.value)
    assert len({id(each) for each in (sample, *raised)}) == 4
    for each in raised:
        seen = parts(each)
        assert seen.pop("notes")[:-1] == expected["notes"]
        assert seen == {name: value for name, value in expected.items() if name != "notes"}


def test_causes_are_copied_along():
    original = ValueError("outer")
    try:
        try:
            try:
                raise KeyError("innermost")
            except KeyError as error:
                raise TypeError("inner") from error
        except TypeError as error:
            raise original from error
    except ValueError as error:
        double = fresh_copy(error)

    chain = []
    link: BaseException | None = double
    while link is not None:
        chain.append((type(link), str(link)))
        assert link.__traceback__ is None
        link = link.__cause__
    assert chain == [(ValueError, "outer"), (TypeError, "inner"), (KeyError, "'innermost'")]
    assert double.__suppress_context__
    assert double.__cause__ is not original.__cause__


def test_an_endless_chain_of_causes_is_cut():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    double = fresh_copy(first)
    assert str(double.__cause__) == "second"


def test_a_suppressed_context_stays_suppressed():
    try:
        try:
            raise KeyError
        except KeyError:
            raise ValueError("bare") from None
    except ValueError as error:
        double = fresh_copy(error)
    assert double.__suppress_context__
    assert double.__context__ is None


def test_notes_of_a_copy_are_its_own():
    original = noted()
    double = fresh_copy(original)
    double.add_note("another")
    assert original.__notes__ == ["a note"]
    assert double.__notes__ == ["a note", "another"]


def test_what_is_stored_tells_where_it_was_raised():
    with pytest.raises(ValueError) as caught:
        raise ValueError("text")
    stored = without_traceback(caught.value, "Service.get(1)")
    assert caught.value.__traceback__ is not None
    assert stored.__notes__[0].startswith(
        "cached as the result of Service.get(1); first raised in "
        "test_what_is_stored_tells_where_it_was_raised at test_cached_errors.py:"
    )
    assert not hasattr(ValueError("text"), "__notes__")


class Particular(Exception):
    """A constructor that accepts hardly anything."""

    def __new__(cls, *args: Any) -> Self:
        if not args or args[0] != "secret":
            raise TypeError("can't be made like this")
        return super().__new__(cls, "hidden")

    def __init__(self, *args: Any) -> None:
        super().__init__("hidden")


def test_constructors_are_not_called():
    error = Particular("secret")
    with pytest.raises(TypeError):
        copy.copy(error)
    assert parts(fresh_copy(error)) == parts(error)


def test_errors_inside_an_error_are_copied_along():
    inner = KeyError("inner")
    try:
        raise inner
    except KeyError:
        pass
    outer = Plain(inner, [inner], (1, inner))
    outer.original = inner  # type: ignore[attr-defined]
    double = fresh_copy(outer)
    first, (second,), (_, third) = double.args
    copies = [first, second, third, double.original]  # type: ignore[attr-defined]
    assert [repr(each) for each in copies] == ["KeyError('inner')"] * 4
    assert all(each is not inner and each.__traceback__ is None for each in copies)
    assert inner.__traceback__ is not None


def test_an_error_that_holds_itself_is_copied_all_the_same():
    error = Plain("text")
    error.itself = error  # type: ignore[attr-defined]
    assert str(fresh_copy(error)) == "text"


async def test_an_error_that_cannot_be_copied_is_raised_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cached_errors, "_copy", lambda error, depth: None)
    error = Plain("text")

    class Failing(ComputeService):
        runs = 0

        @compute_method
        async def get(self) -> int:
            self.runs += 1
            raise error

    failing = Failing()
    for _ in range(3):
        with pytest.raises(Plain) as caught:
            await failing.get()
        assert caught.value is error
    assert failing.runs == 1
    assert error.__traceback__ is not None


async def test_an_error_that_cannot_even_be_looked_at_is_raised_and_cached():
    class Hostile(Exception):
        def __reduce__(self) -> Any:
            raise RuntimeError("no")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None  # type: ignore[assignment]

        def __str__(self) -> str:
            raise RuntimeError("no")

    class Failing(ComputeService):
        runs = 0

        @compute_method
        async def get(self) -> int:
            self.runs += 1
            raise Hostile

    failing = Failing()
    for _ in range(3):
        with pytest.raises(Hostile):
            await failing.get()
    assert failing.runs == 1
