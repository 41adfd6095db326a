"""A database gets the watcher that suits it, or the one that was asked for."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from afresh.db.watchers import (
    FileWatcher,
    LocalWatcher,
    PollingWatcher,
    Watcher,
    channel_name,
    open_watcher,
)
from afresh.db.watchers.nats import NatsWatcher
from afresh.db.watchers.postgres import PostgresWatcher, connect_arguments
from afresh.db.watchers.redis import RedisWatcher

POSTGRES = "postgresql+asyncpg://anna:p%40ss@db.example/shop"


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        (POSTGRES, PostgresWatcher),
        ("postgresql+psycopg://db.example/shop", PostgresWatcher),
        ("sqlite+aiosqlite:///shop.db", FileWatcher),
        ("sqlite+aiosqlite:///file:shop.db?uri=true", FileWatcher),
        ("sqlite+aiosqlite://", LocalWatcher),
        ("sqlite+aiosqlite:///:memory:", LocalWatcher),
        ("sqlite+aiosqlite:///file::memory:?cache=shared&uri=true", LocalWatcher),
        ("mysql+asyncmy://db.example/shop", PollingWatcher),
        ("", PollingWatcher),
    ],
)
def test_each_database_has_a_watcher_that_suits_it(database: str, expected: type[Watcher]):
    assert type(open_watcher(database_url=database)) is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("local", LocalWatcher),
        ("polling", PollingWatcher),
        ("file", FileWatcher),
        ("redis://cache.example/1", RedisWatcher),
        ("rediss://cache.example", RedisWatcher),
        ("unix:///run/redis.sock", RedisWatcher),
        ("nats://a.example,nats://b.example", NatsWatcher),
        ("tls://a.example", NatsWatcher),
        (POSTGRES, PostgresWatcher),
    ],
)
def test_a_watcher_can_be_named(spec: str, expected: type[Watcher]):
    assert type(open_watcher(spec, database_url="sqlite:///shop.db")) is expected


def test_a_watcher_of_ones_own_is_taken_as_it_is():
    watcher = LocalWatcher()
    assert open_watcher(watcher, database_url=POSTGRES) is watcher


def test_the_file_is_beside_the_database():
    watcher = open_watcher(database_url="sqlite+aiosqlite:////data/shop.db")
    assert isinstance(watcher, FileWatcher)
    assert watcher.path == Path("/data/shop.db-afresh")


@pytest.mark.parametrize("spec", ["redi://cache.example", "postgres", "mysql://db.example", "x"])
def test_what_is_no_watcher_is_refused(spec: str):
    with pytest.raises(ValueError, match="is no watcher: pass an address"):
        open_watcher(spec, database_url=POSTGRES)


def test_a_file_watcher_needs_a_file():
    with pytest.raises(ValueError, match="needs an SQLite database in a file"):
        open_watcher("file", database_url=POSTGRES)


@pytest.mark.parametrize(
    ("spec", "library", "extra"),
    [
        ("postgresql://db.example/shop", "asyncpg", "postgres"),
        ("redis://cache.example", "redis", "redis"),
        ("nats://a.example", "nats", "nats"),
    ],
)
def test_a_library_that_is_missing_is_named_with_what_to_install(
    spec: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    for module in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"afresh.db.watchers.{extra}", raising=False)
    with pytest.raises(ImportError, match=rf"afresh\[{extra}\].*polling"):
        open_watcher(spec, database_url=POSTGRES)


def channel_of(spec: str | None, database: str, name: str = "") -> str:
    watcher = open_watcher(spec, database_url=database, name=name)
    assert isinstance(watcher, (PostgresWatcher, RedisWatcher, NatsWatcher))
    return watcher.channel


@pytest.mark.parametrize("spec", [None, "redis://cache.example", "nats://a.example"])
def test_channels_are_the_same_on_all_hosts_and_others_for_other_databases(spec: str | None):
    channel = channel_of(spec, POSTGRES, "sales")
    assert channel == channel_of(spec, POSTGRES.replace("anna", "bert"), "sales")
    assert channel != channel_of(spec, POSTGRES, "stock")
    assert channel != channel_of(spec, POSTGRES)


@pytest.mark.parametrize("spec", ["redis://cache.example", "nats://a.example"])
def test_databases_that_share_a_server_have_channels_of_their_own(spec: str):
    names = {
        channel_of(spec, f"postgresql://db.example/{database}", name)
        for database in ("shop", "shop_a", "")
        for name in ("", "a", "shop")
    }
    assert len(names) == 9


NASTY = [
    "",
    "shop",
    "Shop",
    "a b",
    "a_b",
    "a",
    "b",
    "ab",
    "ü" * 100,
    "x" * 100,
    "x" * 101,
    "'\";--",
]


def test_names_of_channels_are_valid_and_unique():
    names = {
        channel_name(*parts) for name in NASTY for parts in ((name,), (name, "b"), ("a", name))
    }
    assert len(names) == 3 * len(NASTY) - 1  # ("a", "b") is there twice
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]{1,62}", name) for name in names)
    assert channel_name("shop", "sales").startswith("afresh_shop_sales_")


def test_an_address_of_asyncpg_is_translated_as_sqlalchemy_does():
    assert connect_arguments(
        "postgresql+asyncpg://anna:p%40ss@db.example:5433/shop?ssl=require&prepared_statement_cache_size=0"
    ) == {
        "user": "anna",
        "password": "p@ss",
        "host": "db.example",
        "port": 5433,
        "database": "shop",
        "ssl": "require",
    }


def test_an_address_of_another_driver_is_given_to_libpqs_rules():
    assert connect_arguments(
        "postgresql+psycopg://anna:p%40ss@db.example/shop?sslmode=require"
    ) == {"dsn": "postgresql://anna:p%40ss@db.example/shop?sslmode=require"}


def test_what_the_engines_connect_with_goes_for_the_watcher_too():
    options = {"ssl": "require", "prepared_statement_cache_size": 0}
    watcher = open_watcher(database_url=POSTGRES, connect_options=options)
    assert isinstance(watcher, PostgresWatcher)
    assert watcher._options == connect_arguments(POSTGRES) | {"ssl": "require"}
    elsewhere = open_watcher(
        "postgresql://db.example/other", database_url=POSTGRES, connect_options=options
    )
    assert isinstance(elsewhere, PostgresWatcher)
    assert "ssl" not in elsewhere._options
