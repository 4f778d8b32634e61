"""``hubbub connect``: a WebSocket server, on the terminal or in a pipe.

What is said there lives in ``conversation``, the client in ``hubbub.client``. A command of ``cli``.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hubbub.cli.terminal import fail

if TYPE_CHECKING:
    from hubbub.cli.conversation import Conversation, Input
    from hubbub.client import connect as connect_to

__all__ = ("connect",)


def connect(
    url: Annotated[str, typer.Argument(help="ws://, wss:// or ws+unix://")],
    subprotocol: Annotated[
        list[str] | None, typer.Option(help="A subprotocol to offer; may be repeated.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", metavar="NAME:VALUE", help="A header to send; may be repeated."
        ),
    ] = None,
    origin: Annotated[str | None, typer.Option(help="The header Origin to send.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Show JSON over several lines.")] = False,
    ping: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="Ping this often, and show the round trip."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="After a piped input, go on until the server has been silent this long.",
        ),
    ] = 1.0,
) -> None:
    """Talk to a WebSocket server.

    On a terminal, each line is sent as a text message, and what is received
    is shown. /ping and /close [CODE [REASON]] are commands, and a line that
    begins with // is sent with one /. Ctrl-D ends it.

    In a pipe, each line of the input is a message, and each message a line
    of the output; all the rest goes to the error output. When the input has
    ended, it waits until nothing was received for --wait seconds, so that
    replies are not lost.

    Binary messages are shown as <N bytes> and their hexadecimal digits. The
    exit code is 0 if the connection was ended here, or by the server with
    1000 or 1001.
    """
    import anyio

    from hubbub.cli.conversation import Conversation, Pipe, Prompt
    from hubbub.client import connect as connect_to

    try:
        connection = connect_to(
            url,
            subprotocols=subprotocol or (),
            headers=[_parse_header(text) for text in header or ()],
            origin=origin,
        )
    except ValueError as error:
        fail(str(error))
    source: Input = Prompt() if sys.stdin.isatty() and sys.stdout.isatty() else Pipe()
    conversation = Conversation(source, pretty=json, ping=ping, wait=wait)
    if not anyio.run(partial(_run, connection, conversation, url)):
        raise typer.Exit(1)


def _parse_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"Expected a header NAME:VALUE, got {text!r}")
    return name.strip(), value.strip()


async def _run(connection: connect_to, conversation: Conversation, url: str) -> bool:
    from hubbub.cli.conversation import note
    from hubbub.exceptions import HandshakeError

    try:
        ws = await connection.open(expendable=True)
    except HandshakeError as error:
        body = error.body.decode(errors="replace").strip()
        fail("\n".join(filter(None, [f"{url}: {error}", body])))
    except (OSError, ImportError) as error:
        fail(f"{url}: {error}")
    async with ws:
        await conversation.run(ws)
    if ws.loss is None:
        return True
    note(f"Closed by the server: {ws.loss.code} {ws.loss.reason}".rstrip())
    return ws.loss.code in (1000, 1001)
