"""The WebSocket protocol without I/O: bytes to messages and back (RFC 6455, RFC 7692).

No socket, no clock and no event loop lives here. Used by the server and by the client,
which own the sockets.
"""
