"""URLs, and where a redirect leads."""

from __future__ import annotations

import pytest

from hubbub.client.target import follow_redirect, parse_target


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "resource"),
    [
        ("ws://example.com", "example.com", 80, "example.com", "/"),
        ("ws://example.com:80/", "example.com", 80, "example.com", "/"),
        ("WS://Example.COM:8080/a", "example.com", 8080, "example.com:8080", "/a"),
        ("wss://example.com?x=1", "example.com", 443, "example.com", "/?x=1"),
        ("ws://[::1]:9000/", "::1", 9000, "[::1]:9000", "/"),
        ("ws://[::1]/", "::1", 80, "[::1]", "/"),
        ("ws://bücher.example/ü?ü=ü", "xn--bcher-kva.example", 80, None, "/%C3%BC?%C3%BC=%C3%BC"),
        ("ws://a/b%2Fc?d=%26", "a", 80, "a", "/b%2Fc?d=%26"),
        ("ws://me:pass@a:81/b", "a", 81, "a:81", "/b"),
    ],
)
def test_urls(url: str, host: str, port: int, authority: str | None, resource: str) -> None:
    target = parse_target(url)
    assert (target.host, target.port, target.resource) == (host, port, resource)
    assert target.authority == (authority or host)
    assert target.path is None
    assert target.secure is url.lower().startswith("wss")
    assert "pass" not in str(target.url)


@pytest.mark.parametrize(
    ("url", "path", "resource"),
    [
        ("ws+unix:///run/hub.sock", "/run/hub.sock", "/"),
        ("ws+unix:///run/hub.sock:/chat/1?q=%20", "/run/hub.sock", "/chat/1?q=%20"),
        ("ws+unix:///run/my%20hub.sock:/b%20c", "/run/my hub.sock", "/b%20c"),
    ],
)
def test_unix_sockets(url: str, path: str, resource: str) -> None:
    target = parse_target(url)
    assert (target.path, target.resource) == (path, resource)
    assert target.authority == "localhost"
    assert not target.secure


@pytest.mark.parametrize(
    ("url", "authorization"),
    [
        ("ws://Aladdin:open%20sesame@a/", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),  # RFC 7617 §2
        ("ws://token@a/", "Basic dG9rZW46"),
        ("ws://a/", None),
    ],
)
def test_user_and_password(url: str, authorization: str | None) -> None:
    assert parse_target(url).authorization == authorization


@pytest.mark.parametrize(
    ("url", "location", "to"),
    [
        ("ws://a/b/c?d", "e", "ws://a/b/e"),
        ("ws://a/b", "/e?f#part", "ws://a/e?f"),
        ("ws://a:81/b", "?f", "ws://a:81/b?f"),
        ("ws://a/", "//b/c", "ws://b/c"),
        ("ws://a/", "http://b:82/c", "ws://b:82/c"),
        ("ws://a/", "https://a/", "wss://a/"),
        ("ws://a/", "wss://a/", "wss://a/"),
        ("wss://a/", "https://b/", "wss://b/"),
        ("ws+unix:///s:/b/c", "d", "ws+unix:///s:/b/d"),
        ("ws+unix:///s", "/e?f=1", "ws+unix:///s:/e?f=1"),
    ],
)
def test_redirects(url: str, location: str, to: str) -> None:
    target = follow_redirect(parse_target(url), location)
    expected = parse_target(to)
    assert (target.origin, target.resource) == (expected.origin, expected.resource)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("wss://a/", "ws://a/"),
        ("wss://a/", "http://a/"),
        ("ws://a/", "ftp://a/"),
        ("ws://a/", "ws://a:99999/"),
        ("ws+unix:///s", "ws://b/"),
        ("ws+unix:///s", "http://localhost:81/"),
    ],
)
def test_redirects_that_are_not_followed(url: str, location: str) -> None:
    with pytest.raises(ValueError, match=r"Expected|[Pp]ort"):
        follow_redirect(parse_target(url), location)
