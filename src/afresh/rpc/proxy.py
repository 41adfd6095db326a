"""Objects of a contract whose methods are calls to another peer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from afresh.errors import DefinitionError

from .contracts import ServiceDefinition

if TYPE_CHECKING:
    from .hub import RpcHub
    from .peer import Peer
    from .routes import Routes

__all__ = ["service_of"]


def service_of(contract: type, name: str | None, hub: RpcHub, to: Peer | Routes) -> Any:
    """Return an object of `contract` that calls a peer, or what is found for each call.

    Raises:
        DefinitionError: the class can't be a contract; says why.
    """
    definition = hub.describe(contract, name)
    service = proxy_class(contract)(definition, to)
    for method in definition.methods.values():
        hub.support_of(method.kind).attach(service, method, to)
    return service


@functools.cache
def proxy_class(contract: type) -> Any:
    """Return the class of remote objects of `contract`: a subclass that makes nothing of its own.

    Its constructor is not the contract's, which would set up what only the real service needs.
    """

    def __init__(  # noqa: N807
        self: Any, definition: ServiceDefinition, to: Peer | Routes
    ) -> None:
        self._remote = definition, to

    def __repr__(self: Any) -> str:  # noqa: N807
        definition, to = self._remote
        return f"<remote {definition.wire_name} at {to!r}>"

    cls: Any = type(contract)(
        contract.__name__,
        (contract,),
        {
            "__init__": __init__,
            "__repr__": __repr__,
            "__module__": contract.__module__,
            "__qualname__": contract.__qualname__,
            "__doc__": contract.__doc__,
        },
    )
    cls.__abstractmethods__ = frozenset()
    return cls


def contract_of(service: object) -> type:
    """Return the class that says what can be called on `service`.

    That is the abstract class that it implements; where there is none, its own class.

    Raises:
        DefinitionError: it implements more than one.
    """
    remote = getattr(service, "_remote", None)
    if remote is not None:
        contract: type = remote[0].contract
        return contract
    abstract = [kind for kind in type(service).__mro__ if getattr(kind, "__abstractmethods__", ())]
    nearest = [
        kind
        for kind in abstract
        if not any(other is not kind and issubclass(other, kind) for other in abstract)
    ]
    if len(nearest) > 1:
        names = " and ".join(kind.__qualname__ for kind in nearest)
        raise DefinitionError(
            f"{type(service).__qualname__} implements {names}; say which with contract=…, and add "
            "it once for each."
        )
    return nearest[0] if nearest else type(service)
