"""Builds the C extension in place when this machine can, for the Makefile.

Leaves the build itself to setup.py. The stamp file named by the only argument exists afterwards
exactly when an extension stands there that fits the source and this interpreter. Where a compiler
and the interpreter's headers are at hand, a failed build is an error; where not, one line says so.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/afresh/graph/_speedups.c"
BUILT = SOURCE.with_name(f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}")


def obstacle() -> str | None:
    """Why no extension can be built here, if so."""
    if not SOURCE.exists():
        return "its source is not here"
    if sys.implementation.name != "cpython":
        return f"it is for CPython, and this is {sys.implementation.name}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this interpreter is free-threaded"
    if os.environ.get("AFRESH_BUILD_EXTENSION") == "no":
        return "AFRESH_BUILD_EXTENSION is no"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "the headers of this interpreter are not installed"
    return None


def main(stamp: Path) -> None:
    """Build what is missing or older than its source, and keep the stamp true."""
    reason = obstacle()
    if reason is not None:
        print(f"No C extension: {reason}. Its pure twin does the work.", flush=True)
        stamp.unlink(missing_ok=True)
        BUILT.unlink(missing_ok=True)
        return
    needed = max(SOURCE.stat().st_mtime, (ROOT / "setup.py").stat().st_mtime)
    if not BUILT.exists() or BUILT.stat().st_mtime <= needed:
        print("Building the C extension", flush=True)
        stamp.unlink(missing_ok=True)
        build = subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"],
            cwd=ROOT,
            env={**os.environ, "AFRESH_BUILD_EXTENSION": "yes"},
            check=False,
        )
        if build.returncode:
            sys.exit("Building the C extension failed; AFRESH_BUILD_EXTENSION=no leaves it out.")
    stamp.touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
