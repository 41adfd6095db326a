"""The processes that the demo starts: how they are, and levers to stop, kill and start them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from afresh import command_handler, compute_method

from .contracts import BROKER, BackstageError, Kill, Processes, Start, State, Stop
from .servers import Program

_STARTED_WITHIN = 60.0
_STOPPED_WITHIN = 8.0


class _Child:
    """A program, and the process that runs it, if one does."""

    def __init__(self, program: Program, folder: Path, changed: Callable[[str, str], None]) -> None:
        self.program = program
        self.state: State = "stopped"
        self.process: asyncio.subprocess.Process | None = None
        self._log = folder / f"{program.name}.log"
        self._pid_file = folder / f"{program.name}.pid"
        self._changed = changed
        self._watching: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None

    async def start(self) -> None:
        """Start the process; `ready` waits until it serves."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.program.command,
                env=os.environ | self.program.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who end the others in order
            )
        self._pid_file.write_text(f"{self.process.pid}\n{self.program.mark}")
        self._turn("starting", "starts")
        self._watching = asyncio.create_task(self._watch(self.process))

    async def ready(self) -> None:
        """Wait until it serves, or has ended."""
        while self.state == "starting":
            await asyncio.sleep(0.05)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        looking = asyncio.create_task(self._look())
        code = await process.wait()
        looking.cancel()
        self.process = None
        self._pid_file.unlink(missing_ok=True)
        if self.state == "stopping":
            self._turn("stopped", "has stopped")
        else:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            self._turn("failed", how)

    async def _look(self) -> None:
        """Find out when it serves; one that does not for long is ended."""
        try:
            async with asyncio.timeout(_STARTED_WITHIN):
                while not _answers(self.program.port):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.kill()
            return
        if self.state == "starting":
            self._turn("running", "is running")

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it in order; returns when it has ended."""
        process, watching = self.process, self._watching
        if process is None or watching is None:
            return
        self._turn("stopping", "is told to stop")
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([watching], timeout=_STOPPED_WITHIN)
        if not done:
            self.kill()
            await asyncio.wait([watching])

    async def clean(self) -> None:
        """End what it leaves behind."""
        if self.program.leftover:
            ending = await asyncio.create_subprocess_exec(
                *self.program.leftover,
                env=os.environ | self.program.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            await ending.wait()

    def _turn(self, state: State, words: str) -> None:
        self.state = state
        self._changed(self.program.name, f"{self.program.title} {words}")


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


class ChildProcesses(Processes):
    """The processes that this one has started.

    Args:
        programs: what is to be started, the broker first.
        folder: where their logs go.
        tell: called with what happens to them.
    """

    def __init__(
        self, programs: Sequence[Program], folder: Path, tell: Callable[[str, str], None]
    ) -> None:
        self._tell = tell
        self._children = {
            program.name: _Child(program, folder, self._changed) for program in programs
        }

    def _changed(self, name: str, words: str) -> None:
        self._tell(name, words)
        self.state.invalidate(name)
        self.pid.invalidate(name)

    # -- what is read

    @compute_method
    async def names(self) -> tuple[str, ...]:
        return tuple(self._children)

    @compute_method
    async def state(self, name: str) -> State:
        return self._child(name).state

    @compute_method
    async def pid(self, name: str) -> int | None:
        process = self._child(name).process
        return process.pid if process is not None else None

    @compute_method
    async def url(self, name: str) -> str:
        return self._child(name).program.url

    @compute_method
    async def title(self, name: str) -> str:
        return self._child(name).program.title

    # -- levers

    @command_handler
    async def stop(self, command: Stop) -> None:
        child = self._child(command.name)
        if not child.is_running:
            raise BackstageError(f"{child.program.title} does not run")
        await child.stop()

    @command_handler
    async def kill(self, command: Kill) -> None:
        child = self._child(command.name)
        if not child.is_running:
            raise BackstageError(f"{child.program.title} does not run")
        child.kill()

    @command_handler
    async def start(self, command: Start) -> None:
        child = self._child(command.name)
        if child.is_running:
            raise BackstageError(f"{child.program.title} runs already")
        await child.start()

    def _child(self, name: str) -> _Child:
        try:
            return self._children[name]
        except KeyError:
            raise BackstageError(f"There is no process {name!r} here") from None

    # -- life

    async def start_broker(self) -> bool:
        """Start the broker, if it is one of ours; returns whether that serves."""
        broker = self._children.get(BROKER)
        if broker is None:
            return False
        await broker.start()
        await broker.ready()
        return broker.state == "running"

    async def start_others(self) -> None:
        """Start all the others, and wait for none of them."""
        for name, child in self._children.items():
            if name != BROKER:
                await child.start()

    async def ready(self) -> None:
        """Wait until all that were started serve, or have ended."""
        for child in self._children.values():
            await child.ready()

    async def aclose(self) -> None:
        """End all processes in order, the broker last."""
        children = list(self._children.values())
        others = [child for child in children if child.program.name != BROKER]
        await asyncio.gather(*(child.stop() for child in others))
        for child in children:
            await child.stop()
            await child.clean()
