"""What mkdocs does not see: all that is public is described, and README links to what exists.

That snippets run is left to `test_snippets`; links between pages are mkdocs' own business.
"""

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from afresh.brokers import ConsumerOptions, RelayOptions, open_transport
from afresh.primitives.delays import RetryDelays
from afresh.rpc import Limits

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"

DESCRIBED = re.compile(r"^::: (?P<name>[\w.]+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]+)(#[^)]*)?\)")


def described() -> set[str]:
    """The full names that the reference pages describe."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    return set(DESCRIBED.findall(text))


@pytest.mark.parametrize(
    "package",
    [
        "afresh.app",
        "afresh.brokers",
        "afresh.commands",
        "afresh.db",
        "afresh.db.tracking",
        "afresh.db.watchers",
        "afresh.errors",
        "afresh.graph",
        "afresh.operations",
        "afresh.remote",
        "afresh.rpc",
        "afresh.rpc.formats",
        "afresh.rpc.routing",
        "afresh.rpc.shard_map",
        "afresh.rpc.transports",
        "afresh.rpc.transports.memory",
        "afresh.rpc.transports.unix",
        "afresh.rpc.transports.unix_server",
        "afresh.rpc.transports.websocket",
        "afresh.states",
        "afresh.testing",
        "afresh.ui.nicegui",
        "afresh.web",
    ],
)
def test_the_reference_describes_every_public_name(package: str) -> None:
    missing = {
        name
        for name in importlib.import_module(package).__all__
        # A function may stand in a module of its name.
        if not {f"{package}.{name}", f"{package}.{name}.{name}"} & described()
    }
    assert missing == set()


def test_the_reference_describes_what_the_front_door_offers() -> None:
    """Under the package that a name comes from."""
    described_names = {name.rpartition(".")[2] for name in described()}
    assert set(importlib.import_module("afresh").__all__) - described_names == set()


def test_the_table_of_limits_has_each_with_its_default() -> None:
    """As the page on RPC shows them."""
    text = (ROOT / "docs" / "rpc.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+|[\d. to]+) \|", text, re.MULTILINE))
    limits = Limits()
    delays = limits.reconnect_delays
    assert listed.pop("reconnect_delays") == f"{delays.minimum:g} to {delays.maximum:g}"
    numbers = {name: getattr(limits, name) for name in Limits.__slots__}
    del numbers["reconnect_delays"]
    assert listed == {name: f"{number:,.0f}" for name, number in numbers.items()}


def default_of(options: Any, name: str) -> str:
    """As the tables of options write it."""
    match getattr(options, name):
        case RetryDelays() as delays:
            return f"{delays.minimum:g} to {delays.maximum:g}"
        case str() as text:
            return f'"{text}"'
        case float() as seconds:
            return f"{seconds:,g}" if seconds < 100_000 else f"{seconds:,.0f}"
        case value:
            return str(value)


@pytest.mark.parametrize("options", [RelayOptions(), ConsumerOptions()])
def test_the_tables_of_broker_options_have_each_with_its_default(options: Any) -> None:
    name = type(options).__name__
    text = (ROOT / "docs" / "brokers" / "index.md").read_text(encoding="utf-8")
    table = text.partition(f"\n`{name}` say how")[2].partition("\n\n`")[0].partition("\n\n#")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", table, re.MULTILINE))
    assert listed == {each.name: default_of(options, each.name) for each in fields(options)}


def test_the_table_of_brokers_says_what_their_transports_say() -> None:
    text = (ROOT / "docs" / "brokers" / "transports.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[[\w ]+\]\((\w+)\.md\) \|(.+)\|$", text, re.MULTILINE)
    assert len(rows) == 6
    for name, row in rows:
        addresses, _, durable, order, window, waits, dead, size, _ = map(str.strip, row.split("|"))
        said = open_transport(f"{addresses.split('`')[1]}localhost").capabilities
        assert said.name == name
        assert (durable == "yes") == said.is_durable, name
        assert order == ("all hosts" if said.ordered_keys else "within a host"), name
        assert window == (f"{said.deduplicates:g} s" if said.deduplicates else "no"), name
        assert (waits == "yes") == said.delays_retries, name
        assert (dead == "yes") == said.has_dead_letters, name
        assert size == f"{said.max_bytes:,.0f}", name


@pytest.mark.parametrize("name", ["rabbitmq", "kafka", "nats", "redis", "servicebus"])
def test_the_page_of_a_broker_has_each_option_of_its_transport(name: str) -> None:
    text = (ROOT / "docs" / "brokers" / f"{name}.md").read_text(encoding="utf-8")
    rows = r"^\| `(\w+)\(…\)` \| Default \| \|\n(.+?)\n\n"
    ((title, table),) = re.findall(rows, text, re.MULTILINE | re.DOTALL)
    transport = getattr(importlib.import_module(f"afresh.brokers.transports.{name}"), title)
    options = inspect.signature(transport).parameters.values()
    listed = dict(re.findall(r"^\| `(\w+)=?` \| ([^|]*?) ?\|", table, re.MULTILINE))
    assert list(listed) == [option.name for option in options]
    for option in options:
        if isinstance(option.default, (int, float)):
            default = option.default
            told = str(default) if isinstance(default, bool) else f"{default:,.0f}"
            assert listed[option.name] == told, option.name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_to_files(page: str) -> None:
    """Of the pages that mkdocs does not build."""
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [
        match["path"] for match in LINK.finditer(text) if not (ROOT / match["path"]).exists()
    ]
    assert missing == []
