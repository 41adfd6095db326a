"""Every error that afresh raises on purpose, in one tree.

```
AfreshError
├── InvalidStateError        the object is in the wrong state for this call
├── ReentrantComputeError    a computation needs its own result
├── DefinitionError          a declaration is wrong (also a TypeError)
└── NotCapturedError         the captured block called no compute method
```

Catch `AfreshError` to catch them all. Bad arguments raise `ValueError` or `TypeError`, as
everywhere in Python, and errors of your own code pass through unchanged. Each message says what
happened and what to do next.
"""

from __future__ import annotations

__all__ = [
    "AfreshError",
    "DefinitionError",
    "InvalidStateError",
    "NotCapturedError",
    "ReentrantComputeError",
]


class AfreshError(Exception):
    """The root of all errors that afresh raises on purpose."""


class InvalidStateError(AfreshError):
    """The object is in the wrong state for this call; the message names the state it needs."""


class ReentrantComputeError(AfreshError):
    """A computation called itself with the same arguments, directly or through others.

    Waiting would never end, so the call fails at once. Break the cycle: let one of the methods read
    its data elsewhere.
    """


class DefinitionError(AfreshError, TypeError):
    """A declaration is wrong; raised when the class or function is defined."""


class NotCapturedError(AfreshError):
    """Nothing was captured: the block or call in question called no compute method."""
