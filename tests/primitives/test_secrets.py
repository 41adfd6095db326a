"""A value that no log shows."""

from afresh.primitives.secrets import Secret


def test_a_secret_shows_nothing_and_gives_its_value_when_asked() -> None:
    secret = Secret("tea")
    assert "tea" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "tea"


def test_secrets_are_equal_when_their_values_are() -> None:
    assert Secret("tea") == Secret("tea")
    assert Secret("tea") != Secret("coffee")
    assert Secret("tea") != "tea"
    assert len({Secret("tea"), Secret("tea")}) == 1
