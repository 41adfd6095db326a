"""Builds the optional C extension; everything else about the package is in pyproject.toml.

`AFRESH_BUILD_EXTENSION=yes` makes a failed build an error, `=no` skips the build. Unset, the
extension is built when that works; otherwise the pure-Python twin beside it does the same job.
"""

import os
import platform
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

SOURCE = "src/afresh/graph/_speedups.c"


def extensions() -> list[Extension]:
    """What to build here, by the environment, the interpreter and the source tree."""
    wish = os.environ.get("AFRESH_BUILD_EXTENSION", "")
    if wish not in ("", "yes", "no"):
        raise SystemExit(
            f"AFRESH_BUILD_EXTENSION is {wish!r}; set it to 'yes' or 'no', or unset it."
        )
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    if wish == "no" or free_threaded or platform.python_implementation() != "CPython":
        return []
    if not (Path(__file__).parent / SOURCE).exists():
        return []
    # Two warnings of -Wextra are about what every extension module does.
    quiet = ["-Wno-missing-field-initializers", "-Wno-cast-function-type"]
    windows = os.name == "nt"
    return [
        Extension(
            "afresh.graph._speedups",
            sources=[SOURCE],
            optional=wish != "yes",
            extra_compile_args=[] if windows else ["-O3", "-Wall", "-Wextra", *quiet],
        )
    ]


setup(ext_modules=extensions())
