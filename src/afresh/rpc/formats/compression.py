"""Compressed frames: LZ4, with a window that reaches back over the frames before.

Each direction of a connection that is compressed has a context, so an object here belongs to one
connection. A byte of flags precedes each frame. Small frames follow as they are and leave the
context alone; a compressed one is a sequence of blocks, each after its length.
"""

from __future__ import annotations

import lz4.block  # type: ignore[import-untyped]

from .format import FrameError

__all__ = ["Lz4Compression"]

COMPRESSED = 0x80
RESET = 0x40
MIN_SIZE = 512
"""Shorter frames are sent as they are."""
BLOCK = 16 * 1024
WINDOW = 64 * 1024
# A context ends after so many frames or bytes. That bounds what comparing the sizes of frames can
# tell of secrets in them; it does not make it safe to mix secrets with what an attacker chooses.
CONTEXT_FRAMES = 512
CONTEXT_BYTES = 128 * 1024


class Lz4Compression:
    """Compresses what one connection sends, and decompresses what it receives.

    Args:
        sends: whether frames that are sent are compressed.
        receives: whether frames that are received are compressed.
    """

    __slots__ = ("_bytes", "_frames", "_received", "_receives", "_sends", "_sent")

    def __init__(self, *, sends: bool, receives: bool) -> None:
        self._sends = sends
        self._receives = receives
        self._frames = 0
        self._bytes = 0
        self._sent = b""
        self._received = b""

    def pack(self, frame: bytes) -> bytes:
        """Return what is sent for a frame; call it for each frame, in the order of sending."""
        if not self._sends:
            return frame
        if len(frame) < MIN_SIZE:
            return b"\0" + frame
        flags = COMPRESSED
        if self._frames >= CONTEXT_FRAMES or self._bytes >= CONTEXT_BYTES:
            self._frames = self._bytes = 0
            self._sent = b""
            flags |= RESET
        self._frames += 1
        self._bytes += len(frame)
        parts = [bytes((flags,))]
        for start in range(0, len(frame), BLOCK):
            block = frame[start : start + BLOCK]
            data = lz4.block.compress(block, store_size=False, dict=self._sent)
            parts += [len(data).to_bytes(2, "little"), data]
            self._sent = (self._sent + block)[-WINDOW:]
        return b"".join(parts)

    def unpack(self, frame: bytes, max_size: int) -> bytes:
        """Return the frame that was received; call it for each, in the order of their coming.

        Args:
            frame: as it came.
            max_size: how many bytes it may have when decompressed.

        Raises:
            FrameError: it is damaged or too large. Later frames may build upon it, so the
                connection has to be closed.
        """
        if not self._receives:
            return frame
        if not frame:
            raise FrameError("A frame lacks the byte that tells whether it is compressed.")
        flags = frame[0]
        if flags & RESET:
            self._received = b""
        if not flags & COMPRESSED:
            return frame[1:]
        blocks = []
        size = 0
        position = 1
        while position < len(frame):
            start = position + 2
            position = start + int.from_bytes(frame[position:start], "little")
            if not start < position <= len(frame):
                raise FrameError("A compressed frame ends within a block.")
            try:
                block = lz4.block.decompress(
                    frame[start:position], uncompressed_size=BLOCK, dict=self._received
                )
            except lz4.block.LZ4BlockError as error:
                raise FrameError(f"A compressed frame is damaged: {error}.") from None
            size += len(block)
            if size > max_size:
                raise FrameError(f"A frame takes more than {max_size:,} bytes, decompressed.")
            blocks.append(block)
            self._received = (self._received + block)[-WINDOW:]
        return b"".join(blocks)
