"""Measure images/s, milliseconds, memory and floating-point utilisation here, against a plain ResNet-50.

Examples
  python -m bdlf.benchmark
  python -m bdlf.benchmark suite=step precision=bf16-mixed repeats=10
  python -m bdlf.benchmark suite=input growth=false json=input.json
  python -m bdlf.benchmark suite=methods
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bdlf.commandline.command import run_command
from bdlf.commandline.jobs import DONE
from bdlf.config import BenchmarkConfig
from bdlf.system.errors import InputError
from bdlf.system.memory import load
from bdlf.system.screen_table import print_table

if TYPE_CHECKING:
    from bdlf.benchmarking.measure import Measurement

SUITES = ("input", "step", "evaluation", "startup")
"""The suites of `suite=all`. The suite `methods` is left out of it, because it takes steps of every method."""
METHODS = "methods"


def benchmark(config: BenchmarkConfig) -> int:
    """Returns the exit code."""
    if config.suite not in (*SUITES, METHODS, "all"):
        raise InputError(f"suite='{config.suite}' is not known; known: {', '.join(SUITES)}, {METHODS}, all")
    for key, least in (("batch", 16), ("height", 32), ("width", 16), ("repeats", 1), ("threads", 1)):
        if (value := getattr(config, key)) is not None and value < least:
            raise InputError(f"{key}={value}: {least} or more is needed")
    if config.batch % 16:
        raise InputError(f"batch={config.batch}: a multiple of 16 is needed (4 visible and 4 infrared images of each)")

    load("bdlf.benchmarking.step")
    import dataclasses
    import os
    from datetime import datetime, timezone

    import torch

    from bdlf.assembly import check_options
    from bdlf.benchmarking import methods, step, suites
    from bdlf.runs.record import package_versions, source_state
    from bdlf.system.device import accelerator, device_name
    from bdlf.system.files import write_json

    check_options(step.training(config))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = torch.device(accelerator(config.devices))
    run = {
        "input": suites.input_suite,
        "step": step.step_suite,
        "evaluation": suites.evaluation_suite,
        "startup": suites.startup_suite,
        METHODS: methods.methods_suite,
    }
    found: list[Measurement] = []
    load_before = os.getloadavg()[0]
    for name in SUITES if config.suite == "all" else (config.suite,):
        for one in run[name](config, device):
            found.append(one)
            print(f"  {one.suite}: {one.what}: {one.milliseconds:,.1f} ms", flush=True)
    facts = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device_name(device),
        "processors": os.cpu_count(),
        "load_before": load_before,
        "configuration": dataclasses.asdict(config),
        "versions": package_versions(),
        **source_state(),
    }
    rows = [{**dataclasses.asdict(one), "per_second": one.per_second} for one in found]
    write_json(Path(config.json), {**facts, "measurements": rows})
    _show(found, facts)
    print(config.json)
    return DONE


def _show(found: list[Measurement], facts: dict) -> None:
    title = f"{facts['device']}, torch {facts['versions']['torch']}, {facts['date']}"
    headings = ["suite", "what", "ms", "spread", "items/s", "GiB", "of it"]
    rows = []
    for one in found:
        rate = "-" if one.per_second is None else f"{one.per_second:,.{0 if one.per_second > 20 else 1}f}"
        memory = "-" if one.gib is None else f"{one.gib:.1f}"
        rows.append([one.suite, one.what, f"{one.milliseconds:,.1f}", f"{one.spread:,.1f}", rate, memory, one.note])
    print_table(headings, rows, title=title, figures=range(2, 6), text=(1, 6))


def main() -> None:
    """The command."""
    run_command("benchmark", BenchmarkConfig, benchmark, __doc__ or "")


if __name__ == "__main__":
    main()
