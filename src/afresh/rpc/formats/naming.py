"""How fields of records are called on the wire."""

from __future__ import annotations

import enum

__all__ = ["RecordNaming"]


class RecordNaming(enum.Enum):
    """How fields of records (structs, dataclasses, attrs classes, …) are called on the wire."""

    PYTHON = "python"
    """As they are called in Python; the fastest."""
    DOTNET = "dotnet"
    """As .NET peers write them: camelCase in text formats, PascalCase in binary ones. Names are
    read in any case, and records as arrays of their fields are read as well."""
