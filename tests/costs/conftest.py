"""The option that records what operations cost."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--write-costs``, known when ``tests/costs`` is named on the command line."""
    parser.addoption(
        "--write-costs",
        action="store_true",
        default=False,
        help="record in costs.txt what operations cost now, for this interpreter and twin",
    )
