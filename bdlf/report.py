"""Ablation tables from run folders: the paper's tables with the published numbers beside ours, or tables by any key.

Examples
  python -m bdlf.report outputs
  python -m bdlf.report outputs table=table2 format=tex out=tables
  python -m bdlf.report outputs by=optimizer.lr,loss.skd.weight reference=0.1,1
  python -m bdlf.report outputs table=table2 plan=2.0
  WANDB_MODE=online python -m bdlf.report outputs to_wandb=true
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdlf.commandline.jobs import DONE, FAILED, STOPPED, WRONG_INPUT
from bdlf.reporting.options import HELP, NAMES, PROBES, Options, parse
from bdlf.system.errors import InputError
from bdlf.system.files import with_home
from bdlf.system.screen import keep_going, unwritten
from bdlf.system.wording import printable

if TYPE_CHECKING:
    from bdlf.reporting.block import Block
    from bdlf.reporting.families import Table
    from bdlf.reporting.gather import Gathered


def report(options: Options) -> int:
    """Print or write the tables that `options` ask for. Returns the exit code: 1 where a run had to be left out."""
    from bdlf.reporting.gather import gather
    from bdlf.system.files import write_text

    tables = [] if options.table == PROBES else _tables(options)
    gathered = gather(options.folders)
    problems = list(gathered.problems)
    _warn(problems)
    for run in gathered.unfinished.to_dict("records"):
        if run["state"] == "unfinished":
            print(f"unfinished: {run['path']}, epochs done: {run['epochs']:.0f}", file=sys.stderr)
    if options.to_wandb:
        return max(_to_wandb(gathered), FAILED if gathered.problems else DONE)
    if options.plan is not None:
        return _plan(gathered, tables, options)
    out = _folder(options.out) if options.out else None
    if options.frame != "false":
        frame = gathered.with_configurations() if options.frame == "full" else gathered.frame
        text = frame.to_csv(index=False)
        print(text, flush=True) if out is None else write_text(out / "frame.csv", text)
    if options.table == PROBES:
        problems += _probes(gathered, options.format, out)
    for table in tables:
        blocks = _blocks(gathered, table, options)
        new = dict.fromkeys(line for block in blocks for line in block.problems if line not in problems)
        _warn(new)
        problems += new
        if blocks:
            _write(table.name, blocks, options.format, out)
    if out is not None:
        print(f"written to {out}")
    return FAILED if problems else DONE


def _tables(options: Options) -> list[Table]:
    from bdlf.reporting.by import by_table
    from bdlf.reporting.families import TABLES

    if options.by:
        return [by_table([key.strip() for key in options.by.split(",") if key.strip()], options.reference)]
    if options.reference and options.table is None:
        raise InputError(f"reference={options.reference} names a row of one table; say which by table= or by=")
    tables = [TABLES[name] for name in ([options.table] if options.table else NAMES)]
    if not options.reference:
        return tables
    rows = tables[0].names
    if options.reference not in rows or len(rows) == 1:
        raise InputError(f"reference={options.reference}: {options.table} compares the rows {', '.join(rows)}")
    return [dataclasses.replace(tables[0], reference=options.reference)]


def _blocks(gathered: Gathered, table: Table, options: Options) -> list[Block]:
    """The blocks of `table` to show.

    A table that the user did not ask for is shown only where at least two of its rows have runs. Table 1 has only one
    row; where the user did not ask for it, it is shown only for the settings that most runs share.
    """
    from bdlf.reporting.families import ROOF
    from bdlf.reporting.tables import blocks_of

    asked = options.table is not None or options.by is not None
    if table.name == ROOF and not asked and len(gathered.methods) < 2:  # finding its rows would take a second
        return []
    alone = asked or len(table.names) == 1
    blocks = list(blocks_of(gathered, table, least=2 if options.by or not alone else 1, main_only=not asked and alone))
    if not blocks and options.by:
        blocks = list(blocks_of(gathered, table))
    if not blocks and asked:
        what = f"by={options.by}" if options.by else table.name
        raise InputError(f"no finished run below {', '.join(options.folders)} belongs to {what}")
    if options.by and options.reference and not any(block.reference for block in blocks):
        rows = dict.fromkeys(row for block in blocks for row in block.table["row"])
        raise InputError(f"reference={options.reference} is no row with runs; the rows are {' | '.join(rows)}")
    return blocks


def _write(name: str, blocks: list[Block], form: str, out: Path | None) -> None:
    from bdlf.reporting.figure import figure4
    from bdlf.reporting.render import rendered
    from bdlf.system.files import write_atomically, write_text

    text = rendered(blocks, form)
    if out is None:
        print(text, flush=True)
        return
    write_text(out / f"{name}.{form}", text)
    for number, block in enumerate(blocks if name == "figure4" and form != "csv" else []):
        for kind in ("png", "svg"):
            picture = figure4(block, kind)
            path = out / f"figure4{f'-{number + 1}' if number else ''}.{kind}"
            write_atomically(path, lambda file, picture=picture: file.write(picture))  # type: ignore[misc]


def _probes(gathered: Gathered, form: str, out: Path | None) -> list[str]:
    from bdlf.reporting.probes import probes_text
    from bdlf.system.files import write_text

    text, problems = probes_text(gathered, form)
    _warn(problems)
    print(text, flush=True) if out is None else write_text(out / f"{PROBES}.{form}", text)
    return problems


def _plan(gathered: Gathered, tables: Sequence[Table], options: Options) -> int:
    from bdlf.reporting.parts import parts_of
    from bdlf.reporting.planning import plan_lines
    from bdlf.reporting.tables import compared

    assert options.plan is not None
    known = False
    for table in tables:
        if table.reference is None:
            continue
        for part in parts_of(gathered, table, least=2):
            known = True
            direction = f" {part.card['direction']}" if part.card["direction"] else ""
            print(f"{part.title}: {part.card['dataset']}{direction}")
            for line in plan_lines(part, compared(part).estimates, options.plan):
                print(line)
    if not known:
        raise InputError(f"plan= needs a table with runs in two rows below {', '.join(options.folders)}")
    return FAILED if gathered.problems else DONE


def _warn(problems: Iterable[str]) -> None:
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def _folder(name: str) -> Path:
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={name} cannot be a folder ({error.strerror}); choose another") from error
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


def main() -> None:
    """The command."""
    keep_going()
    words = sys.argv[1:]
    try:
        if {"--help", "-h"} & set(words):
            code = _help()
        else:
            options = parse(words)
            options.folders = [with_home(folder) for folder in options.folders]
            options.out = options.out and with_home(options.out)
            code = report(options)
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    if why := unwritten():
        print(f"error: standard output could not be written: {why}", file=sys.stderr)
    sys.exit(code or (FAILED if why else DONE))


def _help() -> int:
    purpose, _, examples = (__doc__ or "").strip().partition("\n\n")
    width = max(map(len, HELP))
    lines = [f"  {option.ljust(width)}  {meaning}" for option, meaning in HELP.items()]
    print("\n".join([purpose, "", "python -m bdlf.report DIR ... [option=value ...]", *lines, "", examples]))
    return DONE


if __name__ == "__main__":
    main()
