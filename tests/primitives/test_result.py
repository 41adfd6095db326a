import pickle
import traceback

import pytest

from afresh.primitives.result import Result


def test_a_result_holds_a_value():
    result = Result.ok(5)
    assert result.is_ok
    assert result.value == result.value_or_none == 5
    assert result.error is None


def test_none_is_a_value_like_any_other():
    result = Result.ok(None)
    assert result.is_ok
    assert result.value is None


def test_a_result_holds_an_error_and_its_value_raises_it():
    error = KeyError("missing")
    result = Result.err(error)
    assert not result.is_ok
    assert result.error is error
    assert result.value_or_none is None
    with pytest.raises(KeyError) as raised:
        _ = result.value
    assert raised.value is error


def test_a_result_unpacks_into_value_and_error():
    error = ValueError()
    assert tuple(Result.ok(5)) == (5, None)
    assert tuple(Result.err(error)) == (None, error)


def test_asking_for_the_value_again_and_again_does_not_grow_the_traceback():
    result = Result.err(ValueError())
    lengths = []
    for _ in range(3):
        with pytest.raises(ValueError) as raised:
            _ = result.value
        lengths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert lengths[0] == lengths[2]


def test_keeping_an_error_leaves_its_traceback_alone():
    with pytest.raises(ValueError) as raised:
        int("x")
    before = raised.value.__traceback__
    result = Result.err(raised.value)
    assert before is not None
    assert result.error.__traceback__ is before


def test_results_are_equal_by_value_or_by_the_very_same_error():
    error = ValueError("same")
    assert Result.ok([1]) == Result.ok([1])
    assert Result.ok(1) != Result.ok(2)
    assert Result.err(error) == Result.err(error)
    assert Result.err(error) != Result.err(ValueError("same"))
    assert Result.ok(None) != Result.err(error)
    assert Result.err(error) != Result.ok(None)
    assert Result.ok(1) != 1


def test_equal_results_have_equal_hashes_even_if_errors_have_none():
    class Unhashable(Exception):
        __hash__ = None

    error = Unhashable()
    assert hash(Result.ok((1, 2))) == hash(Result.ok((1, 2)))
    assert hash(Result.err(error)) == hash(Result.err(error))


def test_a_result_cannot_be_changed():
    result = Result.ok(1)
    with pytest.raises(AttributeError):
        result._value = 2
    with pytest.raises((AttributeError, TypeError)):  # which of them depends on the interpreter
        result.value = 2
    assert result.value == 1
    assert not hasattr(result, "__dict__")


def test_only_an_exception_is_an_error():
    with pytest.raises(TypeError, match=r"pass a value to Result\.ok"):
        Result.err("oops")


def test_a_result_shows_what_it_holds():
    assert repr(Result.ok(5)) == "Result.ok(5)"
    assert repr(Result.err(ValueError("no"))) == "Result.err(ValueError('no'))"


def test_a_result_can_be_pickled():
    assert pickle.loads(pickle.dumps(Result.ok(5))) == Result.ok(5)
