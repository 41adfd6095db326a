"""What every test stands on: how long properties are tried, which kernel runs, where a browser is.

Fixtures of one area live in the conftest of its folder; fixtures for users of afresh live in
`afresh.testing`.
"""

import importlib.util
import os
import shutil
import sys

import pytest
from hypothesis import HealthCheck, settings

import afresh  # noqa: F401  # loads the kernel that this run is about

BROWSER_MISSING = (
    "Chromium is not installed; on Debian: apt-get install --no-install-recommends chromium, "
    "elsewhere set AFRESH_CHROMIUM to its executable"
)

# A deadline per example measures the machine, not the code.
settings.register_profile("ordinary", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("ordinary"), print_blob=True)
settings.register_profile(
    "soak",
    parent=settings.get_profile("ci"),
    max_examples=20_000,
    suppress_health_check=[HealthCheck.too_slow],
)
if os.environ.get("AFRESH_SOAK"):
    settings.load_profile("soak")
else:
    settings.load_profile("ci" if os.environ.get("CI") else "ordinary")


def compiled_kernel_in_use() -> bool:
    """Whether the C extension serves this run."""
    return "afresh.graph._speedups" in sys.modules


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run with another kernel than the one that was meant."""
    del config
    if os.environ.get("AFRESH_PURE") == "1":
        if compiled_kernel_in_use():
            raise pytest.UsageError("AFRESH_PURE=1 is set, and still the C extension was loaded.")
    elif not compiled_kernel_in_use() and importlib.util.find_spec("afresh.graph._speedups"):
        raise pytest.UsageError(
            "The C extension is built but was not used. Import afresh.graph._speedups to see why."
        )


def pytest_report_header() -> str:
    """Say at the top of the report which kernel the tests ran with."""
    return f"afresh kernel: {'C extension' if compiled_kernel_in_use() else 'pure Python'}"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium for Playwright's `executable_path`.

    Skips the test where there is none, and fails it where AFRESH_REQUIRE_BROWSER=1 says that a
    browser must be there.
    """
    path = os.environ.get("AFRESH_CHROMIUM") or shutil.which("chromium")
    if path is not None:
        return path
    if os.environ.get("AFRESH_REQUIRE_BROWSER") == "1":
        pytest.fail(BROWSER_MISSING)
    pytest.skip(BROWSER_MISSING)
