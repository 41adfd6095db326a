"""Reading from sockets through one buffer for all connections of a thread.

asyncio's plain protocols get each piece of data in a `bytes` object that was made 256 KiB large and
then shrunk, which can cost more than all else that a small frame takes. A buffered protocol says
where the data is to go. Since whatever arrives is copied out at once, one place will do for all.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from typing import Final

__all__ = ["ReadingProtocol"]

_SIZE: Final = 262_144


class _Place(threading.local):
    def __init__(self) -> None:
        # A view, since asyncio's encrypted transports read into slices of it.
        self.view = memoryview(bytearray(_SIZE))


_place = _Place()


class ReadingProtocol(asyncio.BufferedProtocol):
    """A protocol that reads through the common buffer."""

    __slots__ = ()

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """Take in what the network brought."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Tell the transport where to put what it reads."""
        return _place.view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the transport has read."""
        self.data_received(bytes(_place.view[:nbytes]))
