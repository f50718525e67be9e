"""Tables 1, 2, 3 and Figure 4 of the paper from run folders, with the published numbers beside ours.

Examples
  python -m bdlf.report outputs
  python -m bdlf.report outputs --table table2 --format csv --out tables
  WANDB_MODE=online python -m bdlf.report outputs --to-wandb
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bdlf.errors import InputError
from bdlf.jobs import DONE, FAILED, WRONG_INPUT

if TYPE_CHECKING:
    from bdlf.reporting.gather import Gathered

TABLES = ("table1", "table2", "table3", "figure4")
FORMATS = ("md", "csv", "tex", "html")


def report(options: argparse.Namespace) -> int:
    """Returns the exit code: 1 where something was left out."""
    from bdlf.files import write_atomically, write_text
    from bdlf.reporting.figure import figure4
    from bdlf.reporting.gather import gather
    from bdlf.reporting.render import rendered
    from bdlf.reporting.tables import blocks_of

    gathered = gather(options.folders)
    problems = list(gathered.problems)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    for run in gathered.unfinished.to_dict("records"):
        if run["state"] == "unfinished":
            print(f"unfinished: {run['path']}, epochs done: {run['epochs']}", file=sys.stderr)
    if options.to_wandb:
        return max(_to_wandb(gathered), FAILED if gathered.problems else DONE)
    out = _folder(options.out) if options.out else None
    if options.frame:
        text = gathered.frame.drop(columns="family", errors="ignore").to_csv(index=False)
        print(text) if out is None else write_text(out / "frame.csv", text)
    for name in [options.table] if options.table else TABLES:
        least = 1 if options.table or name == "table1" else 2  # a row alone is no comparison, unless asked for
        blocks = list(blocks_of(gathered, name, least=least))
        if not blocks:
            if options.table:
                raise InputError(f"no finished run below {', '.join(options.folders)} belongs to {name}")
            continue
        for problem in dict.fromkeys(line for block in blocks for line in block.problems):
            if problem not in problems:
                problems.append(problem)
                print(f"warning: {problem}", file=sys.stderr)
        text = rendered(blocks, options.format)
        if out is None:
            print(text)
            continue
        write_text(out / f"{name}.{options.format}", text)
        if name == "figure4" and options.format != "csv":
            for number, block in enumerate(blocks):
                for form in ("png", "svg"):
                    picture = figure4(block, form)
                    path = out / f"figure4{f'-{number + 1}' if number else ''}.{form}"
                    write_atomically(path, lambda file, picture=picture: file.write(picture))  # type: ignore[misc]
    if out is not None:
        print(f"written to {out}")
    return FAILED if problems else DONE


def _folder(name: str) -> Path:
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {name} cannot be a folder ({error.strerror}); choose another") from error
    return Path(name)


def _to_wandb(gathered: Gathered) -> int:
    from bdlf.runs.folder import RunFolder
    from bdlf.runs.tracker import rebuild

    left = gathered.unfinished
    left = left[left["state"] == "unfinished"] if len(left) else left
    folders = sorted({*gathered.frame.get("path", ()), *left.get("path", ())})
    failed = [path for path in folders if not rebuild(RunFolder(Path(path)))]
    print(f"{len(folders) - len(failed)} of {len(folders)} runs are in W&B")
    for path in failed:
        print(f"warning: {path} is not: it has no epoch yet, or W&B failed", file=sys.stderr)
    return FAILED if failed else DONE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        print(f"error: {message}", file=sys.stderr)
        sys.exit(WRONG_INPUT)


def main() -> None:
    """The command."""
    purpose, _, examples = (__doc__ or "").strip().partition("\n\n")
    parser = _Parser(
        "bdlf.report", description=purpose, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="where run folders lie, at any depth; or wandb:ENTITY/PROJECT"
    )
    parser.add_argument("--table", choices=TABLES, help="one of them; without it all that have runs")
    parser.add_argument("--format", choices=FORMATS, default="md")
    parser.add_argument(
        "--out", metavar="DIR", help="write files there, not to the screen; Figure 4 also as PNG and SVG"
    )
    parser.add_argument(
        "--frame", action="store_true", help="also the tidy frame: a row for each run, model and protocol"
    )
    parser.add_argument("--to-wandb", action="store_true", help="rebuild a W&B run from each run folder, nothing else")
    try:
        sys.exit(report(parser.parse_args()))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
