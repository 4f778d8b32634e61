from __future__ import annotations

from quart import Quart, abort, websocket


def make_app(ends: list[object], framework: type[Quart] = Quart) -> Quart:
    app = framework(__name__)

    @app.before_serving
    async def start() -> None:
        app.config["GREETING"] = "hello"

    @app.websocket("/rooms/<name>")
    async def room(name: str) -> None:
        await websocket.accept({"x-room": "open"}, "chat")
        await websocket.send_json(
            {
                "name": name,
                "color": websocket.args["color"],
                "token": websocket.headers["x-token"],
                "greeting": app.config["GREETING"],
            }
        )
        try:
            while True:
                await websocket.send(await websocket.receive())
        finally:
            ends.append("cancelled")

    @app.websocket("/bytes")
    async def echo_bytes() -> None:
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/bye")
    async def bye() -> None:
        await websocket.accept()
        await websocket.close(4001, "bye")

    @app.websocket("/broken")
    async def broken() -> None:
        await websocket.accept()
        raise LookupError("broken")

    @app.websocket("/private")
    async def private() -> None:
        abort(401)

    return app
