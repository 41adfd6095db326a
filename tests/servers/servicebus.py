"""A stand-in for Azure Service Bus, for tests: a process that speaks AMQP 1.0 as it does.

The service itself runs in the cloud alone, and its emulator in containers alone. What the peer does
and leaves out is said in `servicebus_entities` and `servicebus_peer`.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path

from .processes import Server, ServerMissing, free_port

MISSING = (
    "There is no Azure Service Bus for tests: pip install python-qpid-proton, "
    "or set AFRESH_TEST_SERVICEBUS to the URL of a namespace, servicebus://…"
)


class ServiceBus(Server):
    """A namespace of Azure Service Bus that is empty at first, and again after each start."""

    name = "servicebus"
    variable = "SERVICEBUS"

    @property
    def url(self) -> str:
        return (
            f"servicebus://RootManageSharedAccessKey:c2VjcmV0@127.0.0.1:{self.port}"
            f"?emulator=true&administration={self.administration_port}"
        )

    def prepare(self) -> None:
        if importlib.util.find_spec("proton") is None:
            raise ServerMissing(MISSING)
        self.administration_port = free_port()

    def command(self) -> list[str]:
        program = str(Path(__file__).with_name("servicebus_peer.py"))
        return [sys.executable, "-P", program, str(self.port), str(self.administration_port)]

    def is_ready(self) -> bool:
        for port in (self.port, self.administration_port):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    return False
        return True
