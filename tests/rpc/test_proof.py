"""Client ids and reconnect proofs, against the protocol's golden data and against cheats."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from afresh.errors import RejectedError
from afresh.rpc.proof import ProofCheck, ProofMaker, client_id_of, new_secret, proof_of

VECTORS = Path(__file__).parent / "vectors"


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())["vectors"]
    return found


@pytest.mark.parametrize("vector", vectors("client-id.json"), ids=lambda vector: vector["peerId"])
def test_a_client_id_is_the_peer_id_in_url_safe_base_64(vector: dict[str, Any]) -> None:
    assert client_id_of(uuid.UUID(vector["peerId"])) == vector["clientId"]


@pytest.mark.parametrize(
    "vector", vectors("reconnect-proof.json"), ids=lambda vector: vector["counter"]
)
def test_a_proof_is_the_keyed_hash_of_id_and_counter(vector: dict[str, Any]) -> None:
    assert proof_of(vector["secret"], vector["clientId"], vector["counter"]) == vector["proof"]


def test_secrets_are_32_random_bytes_each_time() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {43}


class TestMaker:
    def test_makes_no_proof_before_it_knows_a_secret(self) -> None:
        assert ProofMaker("me").make() is None

    def test_counts_attempts_from_1_on(self) -> None:
        maker = ProofMaker("me")
        maker.learn("secret")
        assert maker.make() == (1, proof_of("secret", "me", "1"))
        assert maker.make() == (2, proof_of("secret", "me", "2"))

    def test_keeps_its_secret_when_a_handshake_has_none(self) -> None:
        maker = ProofMaker("me")
        maker.learn("secret")
        maker.learn(None)
        assert maker.make() == (1, proof_of("secret", "me", "1"))

    def test_takes_a_new_secret_and_goes_on_counting(self) -> None:
        maker = ProofMaker("me")
        maker.learn("old")
        maker.make()
        maker.learn("new")
        assert maker.make() == (2, proof_of("new", "me", "2"))


class TestCheck:
    def good(self, check: ProofCheck, counter: int) -> tuple[str, str]:
        return str(counter), proof_of(check.secret, "me", str(counter))

    def test_passes_rising_counters(self) -> None:
        check = ProofCheck("me")
        for counter in (1, 2, 17):
            check.check(self.good(check, counter))

    @pytest.mark.parametrize("counter", [5, 4, 1])
    def test_refuses_a_counter_that_does_not_rise(self, counter: int) -> None:
        check = ProofCheck("me")
        check.check(self.good(check, 5))
        with pytest.raises(RejectedError) as failure:
            check.check(self.good(check, counter))
        assert failure.value.status == 403

    def test_a_refused_attempt_uses_no_counter_up(self) -> None:
        check = ProofCheck("me")
        with pytest.raises(RejectedError):
            check.check(("9", proof_of("guess", "me", "9")))
        check.check(self.good(check, 1))

    @pytest.mark.parametrize(
        "counter",
        ["", "0", "-1", "+1", "01", " 1", "1\n", "1.0", "1e3", "x", "\u0661", "\u00b2", "9" * 400],
    )
    def test_refuses_a_counter_that_is_no_canonical_decimal(self, counter: str) -> None:
        check = ProofCheck("me")
        with pytest.raises(RejectedError):
            check.check((counter, proof_of(check.secret, "me", counter)))

    @pytest.mark.parametrize("proof", ["", "x", "\u00e4\udc80", "=" * 43])
    def test_refuses_a_wrong_proof_of_any_shape(self, proof: str) -> None:
        with pytest.raises(RejectedError):
            ProofCheck("me").check(("1", proof))

    def test_refuses_the_proof_of_another_client(self) -> None:
        check = ProofCheck("me")
        with pytest.raises(RejectedError):
            check.check(("1", proof_of(check.secret, "you", "1")))

    def test_passes_clients_that_know_nothing_of_proofs(self) -> None:
        check = ProofCheck("me")
        check.check(None)
        check.check(None)

    def test_refuses_them_where_proofs_are_required(self) -> None:
        with pytest.raises(RejectedError):
            ProofCheck("me").check(None, is_required=True)

    def test_refuses_a_missing_proof_once_there_was_a_good_one(self) -> None:
        check = ProofCheck("me")
        check.check(self.good(check, 1))
        with pytest.raises(RejectedError):
            check.check(None)

    def test_every_check_has_a_secret_of_its_own(self) -> None:
        assert ProofCheck("me").secret != ProofCheck("me").secret
