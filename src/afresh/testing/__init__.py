"""What tests of programs built on afresh need: a clock they can move."""

from __future__ import annotations

from .clock import FakeClock

__all__ = ["FakeClock"]
