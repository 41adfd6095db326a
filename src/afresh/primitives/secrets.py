"""`Secret`: a value that no log shows."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Secret"]

T_co = TypeVar("T_co", covariant=True)


class Secret(Generic[T_co]):
    """A value that shows as ``Secret(…)``, so that neither logs nor tracebacks tell it.

    On the wire and in stored commands it is the bare value. Secrets are equal when their values
    are.

    Args:
        value: what is not to be shown.

    Example:
        ```python
        class SignIn(Command[str], frozen=True):
            name: str
            password: Secret[str]

        SignIn("ann", Secret("tea")).password.reveal()
        ```
    """

    __slots__ = ("_value",)

    def __init__(self, value: T_co) -> None:
        self._value = value

    def reveal(self) -> T_co:
        """Return the value."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret(…)"
