"""Lists the commands of the package, one line for each."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import bdlf
from bdlf.commandline.jobs import DONE, WRONG_INPUT
from bdlf.commandline.words import COMMANDS
from bdlf.system.screen import keep_going


def main() -> None:
    """List the commands. If a word follows `python -m bdlf`, say instead how the command of that name is started."""
    keep_going()
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        print(f"error: the command is python -m bdlf.{words[0]}, or bdlf-{words[0]}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    if words == ["--version"]:
        print(bdlf.__version__)
        sys.exit(DONE)
    if words and set(words).isdisjoint({"--help", "-h"}):
        print(f"error: '{words[0]}' is no command of bdlf; known: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    width = max(map(len, COMMANDS))
    print(f"bdlf {bdlf.__version__}: {bdlf.__doc__}\n")
    for name in COMMANDS:
        print(f"  python -m bdlf.{name.ljust(width)}  {_first_line(name)}")
    print("\nbdlf-NAME is the same as python -m bdlf.NAME, and each takes --help.")


def _first_line(name: str) -> str:
    """The first line of the docstring of a command's module. The file is parsed, not imported, to save time."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
