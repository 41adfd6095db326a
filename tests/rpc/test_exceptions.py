"""Errors across the wire: which type arrives, and which texts leave the server."""

import asyncio
import builtins
import inspect
import logging
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from afresh.errors import (
    AfreshError,
    CallTimeoutError,
    ConnectionClosedError,
    DefinitionError,
    DisconnectedError,
    EndpointNotFoundError,
    FormatError,
    InvalidStateError,
    LimitError,
    PeerChangedError,
    RejectedError,
    RemoteError,
    RerouteError,
    RpcError,
    StreamNotFoundError,
    UnknownFormatError,
)
from afresh.rpc.exceptions import (
    MAX_MESSAGE_LENGTH,
    NO_ERROR,
    ExceptionInfo,
    ExceptionPolicy,
    ExceptionRegistry,
    default_registry,
    endpoint_not_found,
    invalid_call_type,
    rpc_error,
    stream_not_found,
    too_late_for_reconnect,
)

REMOTE = "ActualLab.Serialization.RemoteException, ActualLab.Core"
CORE = "System.Private.CoreLib"
RPC = "ActualLab.Rpc.RpcException, ActualLab.Rpc"


class ShopError(Exception):
    pass


class OutOfStock(ShopError):
    def __init__(self, item: str) -> None:
        super().__init__(f"Out of stock: {item}")
        self.item = item


@pytest.fixture
def registry() -> ExceptionRegistry:
    return ExceptionRegistry()


@pytest.fixture
def policy(registry: ExceptionRegistry) -> ExceptionPolicy:
    return ExceptionPolicy(registry)


@pytest.fixture
def open_policy(registry: ExceptionRegistry) -> ExceptionPolicy:
    return ExceptionPolicy(registry, expose_messages=True)


@pytest.fixture
def errors_logged() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("afresh.rpc").addHandler(handler)
    yield records
    logging.getLogger("afresh.rpc").removeHandler(handler)


# -- types


@pytest.mark.parametrize(
    ("error", "type_ref", "arrives_as"),
    [
        (ValueError("x"), f"System.ArgumentException, {CORE}", ValueError),
        (UnicodeError("x"), f"System.ArgumentException, {CORE}", ValueError),
        (TypeError("x"), "TypeError", TypeError),
        (
            KeyError("x"),
            f"System.Collections.Generic.KeyNotFoundException, {CORE}",
            KeyError,
        ),
        (IndexError("x"), f"System.IndexOutOfRangeException, {CORE}", IndexError),
        (LookupError("x"), "LookupError", LookupError),
        (TimeoutError("x"), f"System.TimeoutException, {CORE}", TimeoutError),
        (CallTimeoutError("x"), f"System.TimeoutException, {CORE}", TimeoutError),
        (PermissionError("x"), f"System.UnauthorizedAccessException, {CORE}", PermissionError),
        (RuntimeError("x"), f"System.InvalidOperationException, {CORE}", RuntimeError),
        (InvalidStateError("x"), f"System.InvalidOperationException, {CORE}", RuntimeError),
        (NotImplementedError("x"), f"System.NotImplementedException, {CORE}", NotImplementedError),
        (ZeroDivisionError("x"), f"System.DivideByZeroException, {CORE}", ZeroDivisionError),
        (OverflowError("x"), f"System.OverflowException, {CORE}", OverflowError),
        (RpcError("x"), RPC, RpcError),
        (StreamNotFoundError("x"), None, StreamNotFoundError),
        (RerouteError("x"), None, RerouteError),
        (FormatError("x"), "afresh.FormatError", FormatError),
        (UnknownFormatError("x"), "afresh.FormatError", FormatError),
        (LimitError("x"), "afresh.LimitError", LimitError),
        (AfreshError("x"), REMOTE, RemoteError),
        (OSError("x"), REMOTE, RemoteError),
        (ExceptionGroup("x", [ValueError()]), REMOTE, RemoteError),
        (KeyboardInterrupt("x"), REMOTE, RemoteError),
    ],
)
def test_an_error_arrives_as_what_it_was_or_the_nearest_thing_to_it(
    open_policy: ExceptionPolicy,
    error: BaseException,
    type_ref: str | None,
    arrives_as: type[Exception],
):
    info = open_policy.describe(error, "Orders.get:1")
    assert type_ref is None or info.type_ref == type_ref
    arrived = open_policy.restore(info)
    assert type(arrived) is arrives_as
    assert "x" in str(arrived)


@pytest.mark.parametrize(
    ("type_ref", "kind"),
    [
        ("System.ArgumentNullException, System.Private.CoreLib", ValueError),
        ("System.ArgumentOutOfRangeException, System.Runtime", ValueError),
        ("System.FormatException", ValueError),
        ("System.NotSupportedException, x", NotImplementedError),
        ("System.Security.SecurityException, x", PermissionError),
        ("System.TimeoutException, System.Runtime, Version=8.0.0.0", TimeoutError),
    ],
)
def test_what_a_dotnet_peer_says_is_read_whatever_assembly_it_names(
    policy: ExceptionPolicy, type_ref: str, kind: type[Exception]
):
    error = policy.restore(ExceptionInfo(type_ref, "the text"))
    assert (type(error), str(error)) == (kind, "the text")


def test_what_has_no_counterpart_here_arrives_as_a_remote_error(policy: ExceptionPolicy):
    error = policy.restore(ExceptionInfo("Shop.Exceptions.SoldOut, Shop", "no tea"))
    assert isinstance(error, RemoteError)
    assert (str(error), error.type_name) == ("no tea", "Shop.Exceptions.SoldOut")


@pytest.mark.parametrize("type_ref", ["builtins.SystemExit", "os.system", "SystemExit", "", ","])
def test_no_type_is_looked_up_by_a_name_from_the_wire(policy: ExceptionPolicy, type_ref: str):
    error = policy.restore(ExceptionInfo(type_ref, "echo"))
    assert type(error) is RemoteError


def test_an_error_without_any_text_says_at_least_that(policy: ExceptionPolicy):
    assert str(policy.restore(NO_ERROR)) == "The other side does not say what failed."


def test_there_is_no_error_where_neither_type_nor_text_is_given():
    assert not NO_ERROR
    assert ExceptionInfo("T")
    assert ExceptionInfo("", "text")


# -- what the protocol says


@pytest.mark.parametrize(
    ("error", "message", "type_ref", "kind"),
    [
        (
            endpoint_not_found("Orders.get:1"),
            "Endpoint not found: 'Orders.get:1'.",
            RPC,
            EndpointNotFoundError,
        ),
        (
            endpoint_not_found("O'Neill\\.get:1"),
            "Endpoint not found: 'O'Neill\\.get:1'.",
            RPC,
            EndpointNotFoundError,
        ),
        (
            invalid_call_type("Orders.get:1", 0, 1),
            "Invalid CallTypeId: 'Orders.get:1' expected '0', but got '1'.",
            RPC,
            RpcError,
        ),
        (
            too_late_for_reconnect("2 is over"),
            "Too late for this reconnect round: 2 is over.",
            RPC,
            RpcError,
        ),
        (
            stream_not_found(),
            "RpcStream not found or disconnected.",
            "ActualLab.Rpc.RpcStreamNotFoundException, ActualLab.Rpc",
            StreamNotFoundError,
        ),
        (
            RerouteError("Elsewhere."),
            "Elsewhere.",
            "ActualLab.Rpc.RpcRerouteException, ActualLab.Core",
            RerouteError,
        ),
    ],
)
def test_the_protocol_speaks_in_words_that_all_its_implementations_use(
    policy: ExceptionPolicy,
    errors_logged: list[logging.LogRecord],
    error: RpcError,
    message: str,
    type_ref: str,
    kind: type[RpcError],
):
    info = policy.describe(error, "Orders.get:1")
    assert info == ExceptionInfo(type_ref, message)
    restored = policy.restore(info)
    assert (type(restored), str(restored)) == (kind, message)
    assert not errors_logged


def test_a_cancelled_call_says_so_and_is_not_read_as_a_cancellation_of_the_caller(
    policy: ExceptionPolicy, errors_logged: list[logging.LogRecord]
):
    info = policy.describe(asyncio.CancelledError("secret"), "Orders.get:1")
    assert info == ExceptionInfo(
        "System.Threading.Tasks.TaskCanceledException, System.Private.CoreLib",
        "A task was canceled.",
    )
    assert info.is_cancellation
    assert type(policy.restore(info)) is RemoteError
    assert not errors_logged


def test_other_errors_are_no_cancellations():
    assert ExceptionInfo("System.OperationCanceledException, x", "").is_cancellation
    assert not ExceptionInfo("System.TimeoutException, x", "").is_cancellation


# -- texts


def test_a_text_that_was_not_meant_for_callers_stays_in_the_log(
    policy: ExceptionPolicy, errors_logged: list[logging.LogRecord]
):
    error = ShopError("password=hunter2")
    info = policy.describe(error, "Orders.get:1")
    found = re.fullmatch(
        r"The call failed\. The log of the other side says why: error id ([0-9a-f]{12})\.",
        info.message,
    )
    assert found
    assert info.type_ref == REMOTE
    (record,) = errors_logged
    assert record.getMessage() == f"Orders.get:1 failed, error id {found[1]}"
    assert record.exc_info
    assert record.exc_info[1] is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        KeyError("secret"),
        InvalidStateError("secret"),
        DisconnectedError("secret"),
        ConnectionClosedError(1006, "secret"),
        PeerChangedError("secret"),
        RejectedError("secret", 403),
        CallTimeoutError("secret"),
        RemoteError("secret", "secret"),
        OSError(2, "secret"),
        ExceptionGroup("secret", [ValueError("secret")]),
    ],
)
def test_texts_of_types_that_are_not_made_for_callers_are_kept_back(
    policy: ExceptionPolicy, error: Exception
):
    info = policy.describe(error, "Orders.get:1")
    assert "secret" not in info.message + info.type_ref


def test_each_failure_has_an_error_id_of_its_own(policy: ExceptionPolicy):
    error = ValueError("x")
    assert policy.describe(error, "a") != policy.describe(error, "a")


def test_all_texts_are_sent_where_peers_may_know_everything(
    open_policy: ExceptionPolicy, errors_logged: list[logging.LogRecord]
):
    assert open_policy.describe(ValueError("bad id"), "x").message == "bad id"
    assert open_policy.describe(ShopError("closed"), "x").message == "ShopError: closed"
    assert open_policy.describe(KeyError("tea"), "x").message == "tea"
    assert len(errors_logged) == 3


def test_what_another_peer_says_of_its_protocol_is_not_passed_on(
    policy: ExceptionPolicy, errors_logged: list[logging.LogRecord]
):
    from_backend = policy.restore(ExceptionInfo(RPC, "Endpoint not found: 'Vault.open:1'."))
    info = policy.describe(from_backend, "Orders.get:1")
    assert info.type_ref == REMOTE
    assert "Vault" not in info.message
    assert len(errors_logged) == 1


def test_a_text_is_sent_in_part_only_when_it_is_very_long(open_policy: ExceptionPolicy):
    message = open_policy.describe(ValueError("x" * 1_000_000), "x").message
    assert message == "x" * MAX_MESSAGE_LENGTH + "…"


def test_a_text_that_has_no_utf_8_form_is_sent_as_far_as_it_has_one(
    open_policy: ExceptionPolicy, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.CRITICAL)  # a report with that text could not be sent to pytest-xdist
    assert open_policy.describe(ValueError("a\ud800b"), "x").message == "a?b"


def test_an_error_that_can_not_say_its_text_is_sent_without(open_policy: ExceptionPolicy):
    class Broken(ValueError):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    info = open_policy.describe(Broken(), "x")
    assert info == ExceptionInfo(f"System.ArgumentException, {CORE}", "")


# -- errors of user code


def test_a_registered_error_crosses_with_its_text(
    registry: ExceptionRegistry, policy: ExceptionPolicy, errors_logged: list[logging.LogRecord]
):
    registry.register(ShopError)
    info = policy.describe(ShopError("closed today"), "x")
    assert info == ExceptionInfo("ShopError", "closed today")
    restored = policy.restore(info)
    assert (type(restored), str(restored)) == (ShopError, "closed today")
    assert not errors_logged


def test_errors_derived_from_a_registered_one_cross_as_that_one(
    registry: ExceptionRegistry, policy: ExceptionPolicy
):
    registry.register(ShopError)
    info = policy.describe(OutOfStock("tea"), "x")
    assert info == ExceptionInfo("ShopError", "Out of stock: tea")


def test_an_error_whose_constructor_takes_something_else_has_its_text_all_the_same(
    registry: ExceptionRegistry, policy: ExceptionPolicy
):
    class Numbered(Exception):
        def __init__(self, number: int, text: str) -> None:
            super().__init__(f"{number}: {text}")

    registry.register(OutOfStock)
    registry.register(Numbered)
    for error in (OutOfStock("tea"), Numbered(5, "five")):
        restored = policy.restore(policy.describe(error, "x"))
        assert (type(restored), str(restored)) == (type(error), str(error))


def test_a_constructor_that_takes_the_text_is_called(
    registry: ExceptionRegistry, policy: ExceptionPolicy
):
    class Marked(Exception):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.mark = 1

    registry.register(Marked)
    restored = policy.restore(ExceptionInfo("Marked", "text"))
    assert isinstance(restored, Marked)
    assert restored.mark == 1


def test_a_function_of_your_own_may_make_the_error_from_its_text(
    registry: ExceptionRegistry, policy: ExceptionPolicy
):
    registry.register(
        OutOfStock, restore=lambda text: OutOfStock(text.removeprefix("Out of stock: "))
    )
    restored = policy.restore(policy.describe(OutOfStock("tea"), "x"))
    assert isinstance(restored, OutOfStock)
    assert (restored.item, str(restored)) == ("tea", "Out of stock: tea")


def test_an_error_that_can_not_be_made_arrives_as_a_remote_error(
    registry: ExceptionRegistry,
    policy: ExceptionPolicy,
    errors_logged: list[logging.LogRecord],
):
    registry.register(ShopError, restore=lambda text: ShopError(1 / 0))
    restored = policy.restore(ExceptionInfo("ShopError", "text"))
    assert isinstance(restored, RemoteError)
    assert (str(restored), restored.type_name) == ("text", "ShopError")
    assert "A ShopError can't be made" in errors_logged[0].getMessage()


def test_the_type_may_be_told_and_the_text_not(
    registry: ExceptionRegistry, policy: ExceptionPolicy
):
    registry.register(ShopError, public=False)
    info = policy.describe(ShopError("secret"), "x")
    assert info.type_ref == "ShopError"
    assert "secret" not in info.message


def test_an_error_may_take_the_place_of_what_python_has(
    registry: ExceptionRegistry, policy: ExceptionPolicy
):
    registry.register(ShopError, f"System.Collections.Generic.KeyNotFoundException, {CORE}")
    info = policy.describe(ShopError("no such order"), "x")
    assert info.message == "no such order"
    assert type(policy.restore(info)) is ShopError


def test_two_errors_can_not_have_one_name(registry: ExceptionRegistry):
    registry.register(ShopError)
    registry.register(ShopError, "ShopError, Shop", public=False)  # the same class may, again
    with pytest.raises(DefinitionError, match="are both 'ShopError' on the wire"):
        registry.register(OutOfStock, "ShopError")


def test_what_is_no_exception_is_refused(registry: ExceptionRegistry):
    for kind in (int, KeyboardInterrupt, ValueError("x")):
        with pytest.raises(DefinitionError, match="is no class of exceptions"):
            registry.register(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("type_ref", ["", " ", ", Shop"])
def test_a_name_that_would_mean_no_error_is_refused(registry: ExceptionRegistry, type_ref: str):
    with pytest.raises(DefinitionError, match="would mean that nothing failed"):
        registry.register(ShopError, type_ref)


def test_the_decorator_registers_for_all_hubs(monkeypatch: pytest.MonkeyPatch):
    for name in ("_entries", "_restorers", "_registered"):
        monkeypatch.setattr(default_registry, name, dict(getattr(default_registry, name)))

    @rpc_error
    class SoldOut(Exception):
        pass

    @rpc_error(type_ref="Shop.Closed, Shop", public=False)
    class Closed(Exception):
        pass

    policy = ExceptionPolicy()
    assert policy.describe(SoldOut("no tea"), "x") == ExceptionInfo("SoldOut", "no tea")
    assert policy.describe(Closed("secret"), "x").type_ref == "Shop.Closed, Shop"
    assert type(policy.restore(ExceptionInfo("Shop.Closed", "x"))) is Closed


# -- whatever comes


KNOWN = sorted(ExceptionRegistry()._restorers)


@given(
    type_ref=st.sampled_from(KNOWN) | st.text() | st.sampled_from(dir(builtins)),
    assembly=st.just("") | st.just(", System.Private.CoreLib") | st.text(),
    message=st.text(),
)
def test_whatever_the_other_side_says_makes_an_error_that_was_registered_or_a_remote_one(
    type_ref: str, assembly: str, message: str
):
    registry = ExceptionRegistry()
    error = registry.restore(ExceptionInfo(type_ref + assembly, message))
    assert type(error) is RemoteError or type(error) in registry._entries
    assert not message or message in str(error) or repr(message) in str(error)


@given(
    kind=st.sampled_from(
        [each for each in vars(builtins).values() if inspect.isclass(each)]
    ).filter(
        lambda kind: (
            issubclass(kind, BaseException)
            and not issubclass(kind, (BaseExceptionGroup, SyntaxError))
        )  # whose own text may fail
    ),
    args=st.lists(st.none() | st.text() | st.integers() | st.binary(), max_size=5),
)
def test_whatever_is_raised_can_be_told(kind: type[BaseException], args: list[Any]):
    try:
        error = kind(*args)
    except TypeError:
        reject()
    info = ExceptionPolicy(ExceptionRegistry(), expose_messages=True).describe(error, "x")
    assert info.type_ref
    assert msgspec.json.decode(msgspec.json.encode(info), type=ExceptionInfo) == info
