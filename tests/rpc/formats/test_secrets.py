"""Secrets travel as bare values."""

from __future__ import annotations

import msgspec
import pytest

from afresh.primitives.secrets import Secret
from afresh.rpc.formats import RecordNaming, get_format


class Account(msgspec.Struct, frozen=True):
    name: str
    password: Secret[str]
    pins: tuple[Secret[int], ...] = ()
    hint: Secret[str] | None = None


@pytest.mark.parametrize("naming", list(RecordNaming))
@pytest.mark.parametrize("key", ["json5np", "json5", "msgpack6", "msgpack6c"])
def test_a_secret_is_written_bare_and_read_as_a_secret(key: str, naming: RecordNaming) -> None:
    account = Account("ann", Secret("tea"), (Secret(1), Secret(2)), Secret("leaf"))
    codec = get_format(key).codec((Account,), naming)
    data = codec.encode((account,))
    assert b"tea" in data
    assert list(codec.decode(data)) == [account]
    (bare,) = codec.decode(codec.encode((Account("ann", Secret("")),)))
    assert bare.hint is None
