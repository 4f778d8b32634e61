"""``WebSocket`` and ``App`` are the same over every server, with clients not of our making."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .conftest import PATIENCE, SERVERS, RawPeer, RunningServer, wait_until

if TYPE_CHECKING:
    from websockets.http11 import Response
    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.servers


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    """A WebSocketDisconnect, as reports show it."""
    return {"raised": "WebSocketDisconnect", "code": code, "reason": reason}


def wait_for_end(client: ClientConnection) -> tuple[int | None, str]:
    """Read until the server ends the connection; the code and the reason on the wire."""
    with pytest.raises(ConnectionClosed) as end:
        client.recv(PATIENCE)
    frame = end.value.rcvd
    return (frame.code, frame.reason) if frame else (None, "")


def refused(server: RunningServer, path: str, **query: Any) -> Response:
    """The HTTP response that refuses a handshake."""
    with pytest.raises(InvalidStatus) as refusal, server.connect(path, **query):
        pass
    return refusal.value.response


def status_of_refusal(server: RunningServer, wanted: int) -> int:
    return wanted if server.profile.denial else 403


def code_on_wire(server: RunningServer, code: int) -> int:
    return code if server.profile.sends_1xxx else 3000 + code


def expect_one_error_logged(server: RunningServer, path: str, message: str) -> None:
    """Wait for hubbub's complaint; the last test looks whether there were others."""
    server.failures.append(path)
    wait_until(lambda: message in server.log(), f"{message} in the log")
    assert server.log().count(message) == 1
    assert server.log().count(f"The handler of {path} failed") == server.failures.count(path)


# -- Messages ---------------------------------------------------------------------------


def test_the_server_is_what_the_table_says(server: RunningServer) -> None:
    with server.connect("/raw") as client:
        client.send("hi")
        keys = "bytes text type" if server.profile.both_keys else "text type"
        assert client.recv(PATIENCE) == f"{server.facts.loop}: {keys}"


@pytest.mark.parametrize("path", ["/echo", "/echo-bare"])
@pytest.mark.parametrize(
    "message",
    [
        pytest.param("hello", id="text"),
        pytest.param(b"\x00\xff", id="bytes"),
        pytest.param("grüße ☃ 🎉", id="non-ascii"),
        pytest.param("1 MiB é" * 131_072, id="long-text"),
        pytest.param(bytes(range(256)) * 4096, id="long-bytes"),
    ],
)
def test_echo(server: RunningServer, path: str, message: str | bytes) -> None:
    with server.connect(path) as client:
        client.send(message)
        assert client.recv(PATIENCE) == message


@pytest.mark.parametrize("message", ["", b""], ids=["text", "bytes"])
def test_an_empty_message_stays_one(server: RunningServer, message: str | bytes) -> None:
    with server.connect("/echo") as client:
        client.send(message)
        client.send("and one more")
        if server.profile.empty_messages:
            assert client.recv(PATIENCE) == message
        assert client.recv(PATIENCE) == "and one more"


def test_json(server: RunningServer) -> None:
    value = {"größe": [1, 2.5, None, True], "☃": {"nested": ""}}
    with server.connect("/echo-json") as client:
        client.send(json.dumps(value))
        answer = client.recv(PATIENCE)
        assert isinstance(answer, str)
        assert json.loads(answer) == value


def test_the_kinds_of_messages_are_kept_apart(server: RunningServer, key: str) -> None:
    with server.connect("/strict", key=key) as client:
        for message in ("text", b"bytes", "no bytes", b"no text"):
            client.send(message)
        assert wait_for_end(client)[0] == 1000
    report = server.report(key)
    assert report["text"] == {"returned": "text"}
    assert report["bytes"] == len(b"bytes")
    assert report["text as bytes"]["raised"] == "TypeError"
    assert report["bytes as text"]["raised"] == "TypeError"


# -- The peer leaves --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/listen", "/listen-bare"])
def test_the_peer_closes(server: RunningServer, path: str, key: str) -> None:
    with server.connect(path, key=key) as client:
        client.send("hello")
        client.close(4321, "why")
    profile = server.profile
    check_report_of_end(
        server.report(key),
        code=4321 if profile.tells_code else profile.abort_code,
        reason="why" if profile.tells_reason else "",
    )


@pytest.mark.parametrize("path", ["/listen", "/listen-bare"])
def test_the_connection_is_lost(server: RunningServer, path: str, key: str) -> None:
    with RawPeer(server, path, key=key) as peer:
        peer.finish_handshake()
        peer.send("hello")
    check_report_of_end(server.report(key), code=server.profile.abort_code, reason="")


def check_report_of_end(report: dict[str, Any], *, code: int, reason: str) -> None:
    """Check that every way to use the connection tells of the same end, and none blocks."""
    end = disconnect(code, reason)
    assert report["heard"] == ["hello"]
    assert report.get("left", end) == end
    assert report["receives"] == [end, end]
    assert report["send"] == end
    assert report["iterated"] == []
    assert (report["close_code"], report["close_reason"]) == (code, reason)
    assert report["state"] == "DISCONNECTED"
    assert "raised" not in report


@pytest.mark.parametrize("pause", [0.02, 0], ids=["pausing", "nonstop"])
@pytest.mark.parametrize("leave", ["closes", "aborts"])
def test_a_handler_that_only_sends_notices(
    server: RunningServer, pause: float, leave: str, key: str
) -> None:
    with RawPeer(server, "/push", pause=pause, key=key) as peer:
        peer.finish_handshake()
        peer.read_some()
        left_at = time.monotonic()
        if leave == "closes":
            peer.close()
    report = server.report(key)
    assert report["raised"]["raised"] == "WebSocketDisconnect"
    assert report["noticed_at"] - left_at < 1
    assert report["state"] == "DISCONNECTED"


def test_a_send_without_a_reader(server: RunningServer, key: str) -> None:
    with RawPeer(server, "/push-bare", key=key) as peer:
        peer.finish_handshake()
    server.let_go(f"{key} go")
    report = server.report(key)
    if server.profile.tells_senders:
        end = disconnect(1006)
        assert report["sends"] == [end, end]
    else:  # nothing but a receive can tell
        end = disconnect(server.profile.abort_code)
        assert report["sends"] == [{"returned": None}, {"returned": None}]
    assert report["receive"] == end


@pytest.mark.parametrize(
    "server",
    [facts for facts in SERVERS if facts.profile.send == "buffers"],
    ids=lambda facts: facts.name,
    indirect=True,
)
def test_the_peer_closes_while_much_is_buffered(server: RunningServer, key: str) -> None:
    """Daphne fails sends from the close frame on, but tells of the end only much later."""
    with RawPeer(server, "/flood", then="push", key=key) as peer:
        peer.finish_handshake()
        server.report(f"{key} overdue")
        peer.send_close()
        report = server.report(key)
    assert report["raised"] == disconnect(1006)


def test_the_peer_reads_nothing(server: RunningServer, key: str) -> None:
    with RawPeer(server, "/flood", key=key) as peer:
        peer.finish_handshake()
        # Where the server shields its send, only the peer's end can free the handler.
        still_flooding = server.profile.send == "shielded"
        assert server.report(f"{key} overdue") == {"flooding": still_flooding}
    report = server.report(key)
    if server.profile.send == "buffers":
        assert not report["cancelled"]
    else:
        assert report["cancelled"]
        assert report["state after"] == "DISCONNECTED"
        assert report["send"]["raised"] == "WebSocketDisconnect"


@pytest.mark.parametrize("answer", ["accept", "reject"])
def test_the_peer_leaves_during_the_handshake(server: RunningServer, answer: str, key: str) -> None:
    with RawPeer(server, "/late", answer=answer, key=key):
        server.report(f"{key} arrived")
    server.let_go(f"{key} go")
    report = server.report(key)
    # The server may not have noticed yet, and answer into the void.
    answered = "raised" not in report["answer"]
    assert answered or report["answer"]["raised"] == "WebSocketDisconnect"
    assert report["receive"]["raised"] == (
        "RuntimeError" if answer == "reject" and answered else "WebSocketDisconnect"
    )
    assert report["state"] == "DISCONNECTED"


# -- The application ends it ------------------------------------------------------------


def test_the_application_closes(server: RunningServer, key: str) -> None:
    with server.connect("/close", key=key) as client:
        assert wait_for_end(client) == (4009, "app says" if server.profile.sends_reason else "")
    report = server.report(key)
    assert report["second close"] == {"returned": None}
    assert report["receive"]["raised"] == "RuntimeError"
    assert report["send"]["raised"] == "RuntimeError"
    assert report["iterated"] == []
    assert (report["close_code"], report["close_reason"]) == (4009, "app says")


@pytest.mark.parametrize("path", ["/return", "/return-block"])
def test_a_handler_returns(server: RunningServer, path: str, key: str) -> None:
    with server.connect(path, key=key) as client:
        assert wait_for_end(client) == (1000, "")


def test_a_handler_returns_while_the_peer_listens(server: RunningServer) -> None:
    with server.connect("/answer-once") as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"
        assert wait_for_end(client) == (1000, "")


def test_both_close_at_once(own_server: RunningServer) -> None:
    """It has a server to itself: Hypercorn's trio worker may die of it."""
    try:
        for _ in range(50):
            with RawPeer(own_server, "/answer-once") as peer:
                peer.finish_handshake()
                peer.send("hello")
                peer.read_some()
                peer.close()
    except OSError:
        assert not own_server.facts.survives_crossing_closes
    assert "The handler of" not in own_server.log()


def test_another_task_disconnects(server: RunningServer, key: str) -> None:
    with server.connect("/kick", key=key) as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"
        server.let_go(f"{key} go")
        assert wait_for_end(client) == (4400, "kicked" if server.profile.sends_reason else "")
    check_report_of_end(server.report(key), code=4400, reason="kicked")


@pytest.mark.parametrize("path", ["/fail", "/fail-bare"])
def test_a_handler_fails(server: RunningServer, path: str, key: str) -> None:
    with server.connect(path, key=key) as client:
        assert wait_for_end(client) == (code_on_wire(server, 1011), "")
    assert server.report(key)["raised"]["raised"] == "ProbeError"
    expect_one_error_logged(server, path, f"ProbeError: {key}")


# -- The handshake ----------------------------------------------------------------------


def test_a_handler_returns_before_accept(server: RunningServer) -> None:
    assert refused(server, "/return-early").status_code == 403


def test_a_handler_fails_before_accept(server: RunningServer, key: str) -> None:
    response = refused(server, "/fail-early", key=key)
    assert response.status_code == status_of_refusal(server, 500)
    expect_one_error_logged(server, "/fail-early", f"ProbeError: {key}")


def test_an_unknown_path(server: RunningServer) -> None:
    assert refused(server, "/nowhere").status_code == status_of_refusal(server, 404)


def test_reject(server: RunningServer, key: str) -> None:
    response = refused(server, "/reject", key=key)
    assert response.status_code == status_of_refusal(server, 401)
    if server.profile.denial:
        assert response.body == b"Who are you?"
        assert response.headers["WWW-Authenticate"] == 'Basic realm="probe"'
    assert server.report(key)["accept"]["raised"] == "RuntimeError"


def test_reject_with_a_header_that_repeats(own_server: RunningServer) -> None:
    """It has a server to itself: Granian's worker dies of repeated headers."""
    response = refused(own_server, "/reject-repeating")
    assert response.status_code == status_of_refusal(own_server, 401)
    if own_server.profile.denial:
        challenges = response.headers.get_all("WWW-Authenticate")
        assert ", ".join(challenges) == "Basic, Bearer"  # one line or two are the same


def test_a_subprotocol_is_negotiated(server: RunningServer, key: str) -> None:
    offered = ["superchat", "chat"]
    with server.connect("/negotiate", subprotocols=offered, choose="chat", key=key) as client:
        assert client.subprotocol == "chat"
    assert server.report(key)["accepted"] == "chat"


def test_no_subprotocol_is_chosen(server: RunningServer, key: str) -> None:
    with server.connect("/negotiate", subprotocols=["chat"], key=key) as client:
        assert client.subprotocol is None
    assert server.report(key)["accepted"] is None


def test_a_subprotocol_that_was_not_offered(server: RunningServer, key: str) -> None:
    response = refused(server, "/negotiate", choose=f"protocol-{key}", key=key)
    assert response.status_code == status_of_refusal(server, 500)
    assert server.report(key)["raised"]["raised"] == "ValueError"
    expect_one_error_logged(server, "/negotiate", f"got 'protocol-{key}'")


def test_headers_of_accept(server: RunningServer) -> None:
    with server.connect("/negotiate") as client:
        assert client.response is not None
        headers = client.response.headers
        delivered = server.profile.accept_headers
        assert headers.get_all("Set-Cookie") == (["a=1", "b=2"] if delivered else [])
        assert headers.get("X-Probe") == ("yes" if delivered else None)


# -- The scope --------------------------------------------------------------------------


def test_what_the_peer_asked_for(server: RunningServer) -> None:
    sock = server.open_socket()
    port = sock.getsockname()[1]
    path = "/describe/gr%C3%BC%C3%9Fe%20100%25%20%E2%98%83"
    query: dict[str, Any] = {"name": "Jürgen & Söhne", "empty": ""}
    headers = [("X-Probe", "1"), ("x-probe", "2")]
    with server.connect(
        path, sock=sock, subprotocols=["a", "b"], headers=headers, **query
    ) as client:
        seen = json.loads(client.recv(PATIENCE))
    assert seen["path"] == "/describe/grüße 100% ☃"
    assert seen["scheme"] == "ws"
    assert seen["url"] == server.url(path, **query)
    assert seen["query"] == [["name", "Jürgen & Söhne"], ["empty", ""]]
    assert seen["host"] == f"127.0.0.1:{server.port}"
    assert seen["x-probe"] == (["1,2"] if server.profile.joins_headers else ["1", "2"])
    assert seen["client"] == ["127.0.0.1", port]
    assert seen["subprotocols"] == ["a", "b"]


def test_state_of_the_lifespan(server: RunningServer) -> None:
    with server.connect("/describe") as client:
        seen = json.loads(client.recv(PATIENCE))
    assert seen["state"] == ({"from_lifespan": "hello"} if server.profile.lifespan else {})


@pytest.mark.parametrize(("path", "status"), [("/echo", 426), ("/nowhere", 404)])
def test_a_plain_http_request(server: RunningServer, path: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == status
        assert response.read() == {426: b"Expected a WebSocket", 404: b"Not Found"}[status]
    finally:
        connection.close()


# -- After all that ---------------------------------------------------------------------


def test_the_server_still_serves(server: RunningServer) -> None:
    with server.connect("/echo") as client:
        client.send("still there?")
        assert client.recv(PATIENCE) == "still there?"


def test_nothing_was_logged_but_the_failures_of_handlers(server: RunningServer) -> None:
    log = server.log()
    assert log.count("The handler of ") == len(server.failures), log
    assert log.count("Traceback (most recent call last)") == len(server.failures), log
    assert "panicked" not in log, log
