"""What the backstage can be asked and told: figures of all processes, and levers that break things.

Every process reports to the board; departments also ask whether they are to fail.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from afresh import Client, Command, ComputeService, command_handler, compute_method, rpc_error
from afresh.rpc import rpc_method

from ..places import Places

BROKER = "broker"


@rpc_error
class BackstageError(Exception):
    """Something that can't be done now, in words for whoever wanted it."""

    is_expected = True


# -- the board


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened since the demo was started.

    `received` are messages that are done with: handled, duplicates, unknown or dead.
    `pending` is how many messages wait in the outbox now, `oldest` the age of the first in seconds.
    """

    hits: int = 0
    computes: int = 0
    invalidations: int = 0
    commands: int = 0
    operations: int = 0
    published: int = 0
    received: int = 0
    retried: int = 0
    duplicates: int = 0
    unknown: int = 0
    dead: int = 0
    pending: int = 0
    oldest: float = 0.0


Kind = Literal[
    "compute",
    "invalidate",
    "command",
    "operation",
    "publish",
    "receive",
    "retry",
    "duplicate",
    "unknown",
    "dead",
    "process",
]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened in a process; `correlation` is the same for all that it led to."""

    at: datetime
    process: str
    kind: Kind
    text: str
    correlation: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What all processes did within the second that ended at `at`."""

    at: datetime
    counts: Counts


@dataclass(frozen=True, slots=True)
class Report:
    """What a process says of itself, twice a second.

    `service` is the same for all workers of the shop. `run` is another one when the process was
    started again, and counts from zero. `orders` is how many orders the service has placed or
    handled, ever; None where that is for others to say.
    """

    process: str
    service: str
    run: str
    counts: Counts
    orders: int | None = None
    happenings: tuple[Happening, ...] = ()


class Board(ComputeService):
    @compute_method
    @abstractmethod
    async def processes(self) -> tuple[str, ...]:
        """Who has reported: "shop", or "worker 1", "worker 2"…, and "page"; the departments."""

    @compute_method
    @abstractmethod
    async def counts(self, process: str) -> Counts: ...

    @compute_method
    @abstractmethod
    async def total(self) -> Counts: ...

    @compute_method
    @abstractmethod
    async def orders(self, service: str) -> int:
        """How many orders "shop" has placed, or a department has handled, ever."""

    @compute_method
    @abstractmethod
    async def rates(self) -> tuple[Sample, ...]:
        """The last 60 seconds, the oldest first."""

    @compute_method
    @abstractmethod
    async def feed(self, limit: int, kinds: tuple[Kind, ...] = ()) -> tuple[Happening, ...]:
        """What happened last, the newest first; of all kinds if none is given."""

    @rpc_method(survive_reconnect=False)  # the next one says the same, and more
    @abstractmethod
    async def report(self, report: Report) -> None: ...


# -- processes

State = Literal["starting", "running", "stopping", "stopped", "failed"]
"""How a process is: "stopped" if it was told to end, "failed" if it ended otherwise."""


class Stop(Command[None], frozen=True):
    """Have a process end in order."""

    name: str


class Kill(Command[None], frozen=True):
    """End a process as a power cut would."""

    name: str


class Start(Command[None], frozen=True):
    """Start a process that has ended."""

    name: str


class Processes(ComputeService):
    @compute_method
    @abstractmethod
    async def names(self) -> tuple[str, ...]:
        """The broker, if it is one of ours, and the departments."""

    @compute_method
    @abstractmethod
    async def state(self, name: str) -> State: ...

    @compute_method
    @abstractmethod
    async def pid(self, name: str) -> int | None:
        """None while it does not run."""

    @compute_method
    @abstractmethod
    async def url(self, name: str) -> str:
        """Of its page; empty where it has none."""

    @compute_method
    @abstractmethod
    async def title(self, name: str) -> str:
        """What people call it: "NATS", "Notification"."""

    @command_handler
    @abstractmethod
    async def stop(self, command: Stop) -> None: ...

    @command_handler
    @abstractmethod
    async def kill(self, command: Kill) -> None: ...

    @command_handler
    @abstractmethod
    async def start(self, command: Start) -> None: ...


# -- mischief


class SendPoison(Command[None], frozen=True):
    """Publish a message that nobody can read."""


class SendDuplicate(Command[None], frozen=True):
    """Publish the last order once more, under the same name."""


class SendUnknown(Command[None], frozen=True):
    """Publish an event that nobody has heard of."""


class LetFail(Command[None], frozen=True):
    """Have a department fail with every event, as if what it needs were away, or work again."""

    department: str
    is_failing: bool


class Requeue(Command[int], frozen=True):
    """Have dead messages delivered to a department again: these, or all."""

    department: str
    ids: tuple[str, ...] | None = None


class Drop(Command[int], frozen=True):
    """Delete dead messages of a department: these, or all."""

    department: str
    ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterView:
    """A message that a department could not handle; `body` is the beginning of it."""

    id: str
    channel: str
    type: str
    reason: str
    error: str
    body: str
    died_at: datetime | None


class Mischief(ComputeService):
    @compute_method
    @abstractmethod
    async def is_failing(self, department: str) -> bool: ...

    @compute_method
    @abstractmethod
    async def dead(self, department: str) -> tuple[DeadLetterView, ...]:
        """The oldest first; none while the broker is away."""

    @command_handler
    @abstractmethod
    async def send_poison(self, command: SendPoison) -> None: ...

    @command_handler
    @abstractmethod
    async def send_duplicate(self, command: SendDuplicate) -> None: ...

    @command_handler
    @abstractmethod
    async def send_unknown(self, command: SendUnknown) -> None: ...

    @command_handler
    @abstractmethod
    async def let_fail(self, command: LetFail) -> None: ...

    @command_handler
    @abstractmethod
    async def requeue(self, command: Requeue) -> int:
        """Returns how many."""

    @command_handler
    @abstractmethod
    async def drop(self, command: Drop) -> int:
        """Returns how many."""


@dataclass(frozen=True, slots=True)
class Backstage:
    """The backstage's services, wherever they run."""

    board: Board
    processes: Processes
    mischief: Mischief
    places: Places


def backstage_of(client: Client) -> Backstage:
    """The backstage of the process that a client is connected to."""
    return Backstage(
        client.service(Board),
        client.service(Processes),
        client.service(Mischief),
        client.service(Places),
    )
