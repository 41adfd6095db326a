"""The brokers that afresh talks to, one module for each family."""

from .memory import MemoryTransport
from .opening import open_transport

__all__ = ["MemoryTransport", "open_transport"]
