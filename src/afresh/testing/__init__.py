"""What tests of programs built on afresh need: a clock to move, assertions, and an audit.

The fixtures are those of the pytest plugin, `afresh.testing.plugin`.
"""

from .assertions import Call, assert_invalidates, eventually
from .audit import Audit, Finding, Skipped, audit
from .clock import FakeClock
from .isolation import fresh_graph
from .tasks import no_tasks_left

__all__ = [
    "Audit",
    "Call",
    "FakeClock",
    "Finding",
    "Skipped",
    "assert_invalidates",
    "audit",
    "eventually",
    "fresh_graph",
    "no_tasks_left",
]
