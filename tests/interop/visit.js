// What a peer does, in the API that browsers, Node and Node's package ws have in common.
async (url) => {
  const readable = (data) => (typeof data === "string" ? data : [...new Uint8Array(data)]);

  const visit = (path, protocols, messages = []) =>
    new Promise((resolve) => {
      const heard = [];
      const told = { opened: false, heard }
      const socket = new WebSocket(url + path, protocols);
      socket.binaryType = "arraybuffer";
      socket.addEventListener("open", () => {
        Object.assign(told, { opened: true, protocol: socket.protocol, extensions: socket.extensions });
        messages.forEach((message) => socket.send(message));
      });
      socket.addEventListener("message", ({ data }) => {
        heard.push(readable(data));
        if (heard.length === messages.length) socket.close(4321, "why");
      });
      // Node's own gives no close event to who was refused.
      socket.addEventListener("error", () => told.opened || resolve(told));
      socket.addEventListener("close", ({ code, reason, wasClean }) =>
        resolve({ ...told, code, reason, wasClean }),
      );
    });

  const messages = [
    ...["", "hé", "x".repeat(100_000)],
    ...[new Uint8Array(0), Uint8Array.from({ length: 256 }, (_, i) => i), new Uint8Array(100_000)],
  ];
  const echo = await visit("/echo", ["other", "chat"], messages);
  echo.heard = JSON.stringify(echo.heard) === JSON.stringify(messages.map(readable));
  return { echo, bye: await visit("/bye"), denied: await visit("/private") }
}
