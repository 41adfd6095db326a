"""What Python names are called on the wire: a policy per hub.

Between Python peers names travel as they are. Peers written in .NET or TypeScript know the same
service by the name of an interface and its methods in Pascal case: `Orders.for_user` is
`IOrders.ForUser` to them. What a contract or a method says of its own name comes before any policy;
see `rpc_service` and `rpc_method`.
"""

from __future__ import annotations

import re

from afresh.errors import DefinitionError

from .formats import RecordNaming

__all__ = ["DOTNET", "PYTHON", "DotnetNaming", "NamingPolicy", "wire_name_of"]

MAX_NAME_BYTES = 1024
"""How long a full name may be on the wire, in bytes of UTF-8."""

_INTERFACE = re.compile(r"I[A-Z]")


class NamingPolicy:
    """How a hub names services and methods; this one leaves names as they are.

    Subclass it for names of your own. A hub takes an instance; policies compare by identity.

    Example:
        ```python
        class Versioned(NamingPolicy):
            def service_name(self, contract: type) -> str:
                return f"{contract.__name__}V2"
        ```
    """

    records: RecordNaming = RecordNaming.PYTHON
    """What the fields of records are called."""

    def service_name(self, contract: type) -> str:
        """Return the wire name of a contract that does not say its own."""
        return contract.__name__

    def method_name(self, name: str) -> str:
        """Return the wire name of a method that does not say its own, without its arity."""
        return name


class DotnetNaming(NamingPolicy):
    """The names that .NET and TypeScript peers use: `Orders.for_user` is `IOrders.ForUser`."""

    records = RecordNaming.DOTNET

    def service_name(self, contract: type) -> str:
        name = contract.__name__
        return name if _INTERFACE.match(name) else f"I{name}"

    def method_name(self, name: str) -> str:
        return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


PYTHON: NamingPolicy = NamingPolicy()
"""Names as they are in Python; the default."""

DOTNET: NamingPolicy = DotnetNaming()
"""Names for peers written in .NET or TypeScript."""


def wire_name_of(service: str, method: str, arity: int) -> str:
    """Return the full name of a method on the wire: ``Orders.for_user:2``.

    Raises:
        DefinitionError: a name can't be used on the wire; says why.
    """
    name = f"{service}.{method}:{arity}"
    if not service or service.startswith("$"):
        raise DefinitionError(
            f"{service!r} can't be the wire name of a service: it must not be empty, nor start "
            "with '$', which is kept for the protocol itself."
        )
    if not method or "." in method or ":" in method:
        raise DefinitionError(
            f"{method!r} can't be the wire name of a method of {service!r}: it must not be empty, "
            "nor contain '.' or ':', which set it apart from the service and the arity."
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise DefinitionError(f"{name!r} can't be a wire name: it has no UTF-8 form.") from None
    if size > MAX_NAME_BYTES:
        raise DefinitionError(
            f"The wire name of {service[:40]}….{method[:40]}… has {size} bytes of UTF-8 and may "
            f"have {MAX_NAME_BYTES}; give a shorter one with @rpc_service(name=…) or "
            "@rpc_method(name=…)."
        )
    return name
