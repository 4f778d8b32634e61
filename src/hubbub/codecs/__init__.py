"""Values as messages and back: JSON, and typed JSON (TYTX).

One file per format; no connection lives here. Used by the WebSocket wrapper, and by whoever else
turns values into messages.
"""
