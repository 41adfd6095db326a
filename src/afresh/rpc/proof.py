"""Who a client says it is, and how it proves that on every connection but the first.

A client id is no secret: it travels in URLs. So a server may give each peer a secret in the
handshake, and from then on takes a client for that peer only if it proves that it knows the secret:
with a counter that rises from connection to connection, so that no proof works twice, and a keyed
hash over id and counter. How the two travel is left to the transports, what a refusal means to the
peers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import uuid

from afresh.errors import RejectedError

__all__ = ["ProofCheck", "ProofMaker", "client_id_of", "new_secret", "proof_of"]

_is_counter = re.compile(r"[1-9][0-9]{0,17}").fullmatch


def client_id_of(peer_id: uuid.UUID) -> str:
    """Return what a client peer of that id calls itself: 22 characters that need no quoting in a
    URL.
    """
    return _base64(peer_id.bytes_le)


def new_secret() -> str:
    """Make a secret for one server peer: 32 random bytes as 43 characters."""
    return secrets.token_urlsafe(32)


def proof_of(secret: str, client_id: str, counter: str) -> str:
    """Return the proof that somebody who calls himself `client_id` knows the secret.

    Args:
        secret: what the server gave out.
        client_id: as in the URL.
        counter: in decimal.
    """
    message = f"{client_id}\n{counter}".encode()
    return _base64(hmac.digest(secret.encode(), message, hashlib.sha256))


class ProofMaker:
    """The client's side: makes a new proof for each attempt to connect.

    Args:
        client_id: what the client calls itself.
    """

    __slots__ = ("_client_id", "_counter", "_secret")

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._secret: str | None = None
        self._counter = 0

    def learn(self, secret: str | None) -> None:
        """Take the secret of a handshake; None keeps the one there was."""
        if secret is not None:
            self._secret = secret

    def make(self) -> tuple[int, str] | None:
        """Return counter and proof for the next attempt; None as long as there is no secret."""
        if self._secret is None:
            return None
        self._counter += 1
        return self._counter, proof_of(self._secret, self._client_id, str(self._counter))


class ProofCheck:
    """The server's side: one for each server peer.

    Args:
        client_id: what the client of that peer calls itself.
    """

    __slots__ = ("_client_id", "_counter", "secret")

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._counter = 0
        self.secret: str = new_secret()
        """What the handshake tells the client; kept in memory only."""

    def check(self, proof: tuple[str, str] | None, *, is_required: bool = False) -> None:
        """Let a client that comes back pass, or raise.

        Args:
            proof: counter and proof as the client sent them, "" for what is missing; None when it
                sent neither. Clients that know nothing of proofs do so.
            is_required: refuse those, too. Where this client has given a good proof once, a missing
                one is refused anyway.

        Raises:
            RejectedError: with status 403. The message does not tell the reason, since whoever is
                refused may be guessing.
        """
        if proof is None:
            if not is_required and self._counter == 0:
                return
        else:
            counter, given = proof
            if _is_counter(counter) and int(counter) > self._counter:
                expected = proof_of(self.secret, self._client_id, counter)
                if hmac.compare_digest(expected.encode(), given.encode(errors="replace")):
                    self._counter = int(counter)
                    return
        raise RejectedError(
            "The reconnect proof was refused. Dial as a new client, with an id of its own.", 403
        )


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
