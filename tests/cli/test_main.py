"""The way into the command line, and what it says of itself."""

from __future__ import annotations

import runpy
import sys

import pytest

import hubbub
from hubbub.__main__ import main
from tests.cli.command import invoke


class TestMain:
    def test_the_version(self) -> None:
        result = invoke("--version")
        assert (result.exit_code, result.output) == (0, f"hubbub {hubbub.__version__}\n")

    def test_help_names_the_commands(self) -> None:
        result = invoke("--help")
        assert result.exit_code == 0
        assert "demo" in result.output
        assert "demo" in invoke().output

    def test_as_a_module_it_is_the_same(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["hubbub", "--version"])
        monkeypatch.delitem(sys.modules, "hubbub.__main__")
        with pytest.raises(SystemExit) as end:
            runpy.run_module("hubbub", run_name="__main__")
        assert end.value.code == 0
        assert capsys.readouterr().out == f"hubbub {hubbub.__version__}\n"

    @pytest.mark.parametrize("module", ["typer", "rich"])
    def test_without_its_extra_it_says_which(
        self, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 'The command line needs an extra: pip install "hubbub[cli]"'
