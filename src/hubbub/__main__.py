"""The way into the command line: ``hubbub``, and ``python -m hubbub``.

Only what works without the ``cli`` extra is here.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ("main",)


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: always, with the exit code.
    """
    if not all(find_spec(module) for module in ("typer", "rich")):
        sys.exit('The command line needs an extra: pip install "hubbub[cli]"')
    from hubbub.cli import app

    app()


if __name__ == "__main__":
    main()
