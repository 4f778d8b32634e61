"""The public Autobahn testsuite against server and client, as strictly as it can be, on every loop.

    python -m tests.autobahn FOLDER [--all]

FOLDER is where the suite is installed, for the Python 2.7 that it needs. The loops are tested side
by side. What is not asked for by ``--all`` is most of compression: each of those cases sends
a thousand messages.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

BACKENDS: Final = ("asyncio", "uvloop", "trio")


class Selection(NamedTuple):
    """Patterns of cases, how many cases that are, and the seconds after which they hang."""

    cases: list[str]
    number: int
    timeout: float


ALL: Final = Selection(["*"], 517, 3600)
SAMPLE: Final = Selection(
    [
        *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"),
        *("12.1.1", "12.2.5", "12.3.9", "12.4.13", "12.5.17"),
        *("13.1.2", "13.2.3", "13.3.4", "13.4.11", "13.5.12", "13.6.13", "13.7.14"),
    ],
    313,
    600,
)
_REQUIREMENT: Final = "autobahntestsuite==25.10.1"
_GOOD: Final = {"OK", "INFORMATIONAL"}

_WSTEST: Final = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite.wstest import run
run()
"""

_WEB: Final = ("--webport", "0")  # where a fuzzing server shows its pages: anywhere


Findings: TypeAlias = dict[str, dict[str, Any]]
"""What was found, for each case."""


@dataclass(frozen=True)
class Suite:
    """An installed testsuite."""

    python: str
    directory: Path

    @classmethod
    def install(cls, folder: Path) -> Suite:
        """Install it, unless that was done before."""
        suite = cls("python2.7", folder / "suite")
        if not suite.directory.exists():
            pip = [suite.python, "-W", "ignore", "-m", "pip", "install", "-qq"]
            subprocess.run([*pip, "--target", suite.directory, _REQUIREMENT], check=True)
        return suite

    def run(
        self,
        mode: str,
        selection: Selection,
        work: Callable[[subprocess.Popen[bytes]], None],
        **spec: Any,
    ) -> Findings:
        """Run it while somebody works with it, or waits for it."""
        with tempfile.TemporaryDirectory() as out:
            path = Path(out, "spec.json")
            spec |= {"outdir": out, "exclude-cases": [], "exclude-agent-cases": {}}
            path.write_text(json.dumps({"cases": selection.cases, **spec}))
            with subprocess.Popen(
                [self.python, "-c", _WSTEST, self.directory, *_WEB, "--mode", mode, "--spec", path],
                cwd=out,
                stdout=subprocess.DEVNULL,
            ) as process:
                try:
                    work(process)
                finally:
                    process.terminate()
            [found] = json.loads(Path(out, "index.json").read_text()).values()
        assert isinstance(found, dict)
        return found


def test_server(suite: Suite, backend: str, selection: Selection) -> Findings:
    """Let the testsuite be the client of a server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = ["hubbub", "serve", "tests.autobahn.echo:app", "--log-level", "warning"]
        fd = listener.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "--backend", backend, "--fd", str(fd)], pass_fds=[fd]
        )
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"

    def wait(process: subprocess.Popen[bytes]) -> None:
        process.wait(selection.timeout)

    try:
        return suite.run("fuzzingclient", selection, wait, servers=[{"agent": backend, "url": url}])
    finally:
        server.terminate()
        server.wait()


def test_client(suite: Suite, backend: str, selection: Selection) -> Findings:
    """Let the testsuite be the server of a client."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()  # free from now on
    url = f"ws://127.0.0.1:{address[1]}"

    def talk(process: subprocess.Popen[bytes]) -> None:
        wait_for(address)
        command = ["tests.autobahn.client", url, backend]
        subprocess.run([sys.executable, "-m", *command], check=True, timeout=selection.timeout)

    return suite.run("fuzzingserver", selection, talk, url=url)


def wait_for(address: tuple[str, int]) -> None:
    """Wait until somebody listens; for half a minute at most."""
    for _ in range(300):
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(address)


def find_faults(found: Findings, expected: int) -> list[str]:
    """What is not as the standard wants it, to the letter; and whether a case was left out."""
    faults = [
        f"{case}: {result['behavior']}, close {result['behaviorClose']}"
        for case, result in found.items()
        if not {result["behavior"], result["behaviorClose"]} <= _GOOD
    ]
    if len(found) != expected:
        faults.append(f"Expected {expected} cases, got {len(found)}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    suite = Suite.install(arguments.folder.resolve())
    selection = ALL if arguments.all else SAMPLE
    failed = False
    with ThreadPoolExecutor(len(BACKENDS)) as threads:
        runs = {
            f"{side} on {backend}": threads.submit(test, suite, backend, selection)
            for side, test in (("server", test_server), ("client", test_client))
            for backend in BACKENDS
        }
        for name, run in runs.items():
            found = run.result()
            print(name, dict(Counter(result["behavior"] for result in found.values())))
            for fault in find_faults(found, selection.number):
                failed = True
                print(name, fault)
    return failed


if __name__ == "__main__":
    sys.exit(main())
