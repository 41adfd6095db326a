"""What statements read and which rows they change, seen through SQLAlchemy's own events.

A statement that reads becomes `Read`s, one that writes becomes `Write`s, and `ReadIndex` answers
which of the first the second touch. Nothing in here knows of compute methods or operations: those
who do attach them to reads, and decide when writes count.
"""

from .encoding import MAX_ENCODED_VALUES, decode_writes, encode_writes
from .facts import EVERYTHING, MAX_PIN_VALUES, MAX_WRITE_ROWS, Read, Row, TableName, Value, Write
from .index import ReadIndex
from .objects import FollowedSession
from .reading import ReadRecorder
from .tracker import track
from .writing import WriteRecorder

__all__ = [
    "EVERYTHING",
    "MAX_ENCODED_VALUES",
    "MAX_PIN_VALUES",
    "MAX_WRITE_ROWS",
    "FollowedSession",
    "Read",
    "ReadIndex",
    "ReadRecorder",
    "Row",
    "TableName",
    "Value",
    "Write",
    "WriteRecorder",
    "decode_writes",
    "encode_writes",
    "track",
]
