"""Which pages may connect, and which only look as if they might."""

import pytest

from afresh.rpc.origins import allow_origins, any_origin, same_host


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://shop.example", "shop.example"),
        ("http://shop.example", "shop.example"),
        ("https://SHOP.example", "shop.EXAMPLE"),
        ("https://shop.example:443", "shop.example"),
        ("https://shop.example", "shop.example:443"),
        ("http://localhost:8080", "localhost:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_pages_of_the_same_host_and_port_may_connect(origin: str, host: str) -> None:
    assert same_host(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "shop.example"),
        ("https://shop.example.evil.example", "shop.example"),
        ("https://evil-shop.example", "shop.example"),
        ("https://sub.shop.example", "shop.example"),
        ("http://localhost:8081", "localhost:8080"),
        ("http://localhost", "localhost:8080"),
        ("https://shop.example", "shop.example:80"),
        ("null", "shop.example"),
        ("null", "null"),
        ("", "shop.example"),
        ("", ""),
        ("https://", ""),
        ("https://shop.example", ""),
        ("shop.example", "shop.example"),
        ("file://shop.example", "shop.example"),
        ("chrome-extension://shop.example", "shop.example"),
        ("https://shop.example@evil.example", "shop.example"),
        ("https://evil.example@shop.example", "shop.example"),
        ("https://shop.example/path", "shop.example"),
        ("https://shop.example?query", "shop.example"),
        ("https://shop.example#evil", "shop.example"),
        ("https://shop.example, https://shop.example", "shop.example"),
        ("https://shop.example:x", "shop.example"),
        ("https://shop.example:99999", "shop.example"),
        ("https://[", "shop.example"),
        ("https://shop.example", "shop.example@evil.example"),
        ("https://shop.example", "shop.example/evil"),
    ],
)
def test_other_pages_may_not(origin: str, host: str) -> None:
    assert not same_host(origin, host)


def test_listed_pages_may_connect_wherever_they_are() -> None:
    rule = allow_origins("https://Shop.example", "http://localhost:8080")
    assert rule("https://shop.example", "api.example")
    assert rule("https://SHOP.EXAMPLE:443", "api.example")
    assert rule("http://localhost:8080", "api.example")
    assert not rule("http://shop.example", "api.example")
    assert not rule("https://shop.example:8443", "api.example")
    assert not rule("https://api.example", "api.example")


def test_pages_without_an_origin_of_their_own_may_connect_only_if_listed() -> None:
    assert not allow_origins("https://shop.example")("null", "shop.example")
    assert allow_origins("null")("null", "shop.example")
    assert not allow_origins("null")("", "shop.example")


@pytest.mark.parametrize("origin", ["shop.example", "*", "https://shop.example/", "ftp://a", ""])
def test_what_is_no_origin_can_not_be_listed(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        allow_origins(origin)


def test_every_page_may_connect_where_the_rule_says_so() -> None:
    assert any_origin("https://evil.example", "shop.example")
    assert any_origin("null", "")
