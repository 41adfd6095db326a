"""What every test stands on: how long properties are tried, which kernel runs, where a browser is.

Fixtures of one area live in the conftest of its folder; fixtures for users of afresh live in
`afresh.testing`.
"""

import importlib.util
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from afresh.graph._kernel import COMPILED

pytest_plugins = ["tests.servers.fixtures"]

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


def pytest_configure() -> None:
    """Refuse to run with another kernel than the one that was meant."""
    if os.environ.get("AFRESH_PURE", "") not in {"", "0"}:
        if COMPILED:
            raise pytest.UsageError("AFRESH_PURE is set, and still the C extension was loaded.")
    elif not COMPILED and importlib.util.find_spec("afresh.graph._speedups"):
        raise pytest.UsageError(
            "The C extension is built but was not used. Import afresh.graph._speedups to see why."
        )


SERVERS = {"kafka", "mariadb", "nats", "postgres", "rabbitmq", "redis", "servicebus", "valkey"}
"""The fixtures of servers, and what tests for several databases or brokers call them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, or hosts of their own, whether by fixture or parameter."""
    for item in items:
        fixtures = {name.partition("_")[0] for name in getattr(item, "fixturenames", ())}
        parameters = getattr(item, "callspec", None)
        chosen = set(map(str, parameters.params.values())) if parameters is not None else set()
        if SERVERS & (fixtures | chosen) or "hosts" in fixtures:
            item.add_marker(pytest.mark.servers)


def pytest_report_header() -> str:
    """Say at the top of the report which kernel the tests ran with."""
    return f"afresh kernel: {'C extension' if COMPILED else 'pure Python'}"


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
