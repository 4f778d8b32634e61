"""What is said of an application's messages, before those whose languages it is said in."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from hubbub import Router
from hubbub.router.asyncapi import document
from hubbub.router.contract import describe
from hubbub.router.typescript import declarations
from tests.router.messages import app, router

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

ROUTERS = {path: each for path, each in app.routes.items() if isinstance(each, Router)}

CLIENT = """
import type { Calls, ClientMessage, ServerMessage } from "./messages";

declare function send(message: ClientMessage): void;
declare function request<T extends keyof Calls>(
  type: T, payload: Calls[T]["payload"]
): Promise<Calls[T]["reply"]>;

send({ type: "node.add", payload: { children: [{ children: [], kind: "leaf" }] }, id: 7 });
send({ type: "shape/draw", payload: { type: "square", "side-length": 1 } });
send({ type: "ping" });
send({ type: "confirm.reply", payload: true, id: "call-1" });
send({ type: "error", payload: { code: "no", message: "", details: [] } });
// @ts-expect-error: there is no such type
send({ type: "nodes.add", payload: {} });
// @ts-expect-error: a node has children
send({ type: "node.add", payload: {} });
// @ts-expect-error: the payload is needed
send({ type: "node.add" });
// @ts-expect-error: no such shape
send({ type: "shape/draw", payload: { type: "triangle" } });
// @ts-expect-error: not a boolean
send({ type: "confirm.reply", payload: "yes" });

export async function add(): Promise<number> {
  const box = await request("node.add", { children: [] });
  // @ts-expect-error: a box of numbers
  box.content.toUpperCase();
  return box.content;
}

export function receive(message: ServerMessage): string {
  switch (message.type) {
    case "error":
      return message.payload.code;
    case "said":
      return message.payload.content;
    case "confirm":
      return message.payload === "red" ? "stop" : message.payload;
    case "shape/draw.reply":
      return message.more && message.payload ? `${message.payload[0] + 1}` : "done";
    default:
      return message.type;
  }
}
"""


@pytest.mark.parametrize("routers", [{"": router}, {"": Router()}, ROUTERS])
def test_the_document_is_what_asyncapi_specifies(node: Path, routers: Any) -> None:
    schemas = node / "node_modules/@asyncapi/specs/schemas"
    validator = jsonschema.Draft7Validator(
        json.loads((schemas / "3.0.0-without-$id.json").read_text())
    )
    written = document(describe(routers), title="Game", version="1")
    validator.validate(written)
    written["operations"]["x"] = {"action": "listen"}
    assert not validator.is_valid(written)


def compile_all(node: Path) -> None:
    tsc = node / "node_modules/.bin/tsc"
    files = [str(path) for path in node.glob("*.ts")]
    assert files
    result = subprocess.run(
        [tsc, "--strict", "--noEmit", "--target", "es2022", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_the_types_say_what_a_client_may_do(node: Path) -> None:
    (node / "messages.ts").write_text(declarations(describe({"": router})))
    (node / "client.ts").write_text(CLIENT)
    compile_all(node)


def test_the_types_of_several_routers_compile(node: Path) -> None:
    (node / "several.ts").write_text(declarations(describe(ROUTERS)))
    (node / "none.ts").write_text(declarations(describe({"": Router()})))
    compile_all(node)
