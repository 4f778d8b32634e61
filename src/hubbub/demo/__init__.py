"""The demo: a chat of rooms with its page, served by Hypercorn; ``hubbub demo`` runs it.

The chat itself is ``chat``, the ASGI application ``app``, the process ``serve``; the page is
in ``static``. Nothing of the toolkit lives here. Called by the command line.
"""
