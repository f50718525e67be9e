"""How many processor cores a run may use, how many threads it takes, and whether other programs slow it down."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from omegaconf import DictConfig

from bdlf.system.errors import InputError

log = logging.getLogger("bdlf")

SPIN_COUNT = 2000
"""How often a waiting thread looks for work before it sleeps; see `prepare_threads`."""
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # the environment variables with which a user sets the same
_STARVED = 1 / 3  # a run that waits for a processor for a larger share of its time is starved


def require_one_process(environment: Mapping[str, str] = os.environ) -> None:
    """Raise `InputError` if torchrun, or a launcher like it, has started this process as one of several.

    `environment` is read for WORLD_SIZE. The variables of `srun` are not read, because `srun` may start several runs,
    each with options of its own.
    """
    size = environment.get("WORLD_SIZE", "")
    if size.isdecimal() and int(size) > 1:
        raise InputError(
            f"WORLD_SIZE={size}: torchrun, or a launcher like it, has started {size} processes, and a run has one; "
            "start the command without it, or with --nproc_per_node=1 and --nnodes=1"
        )


def prepare_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Limit how long PyTorch's threads spin while they wait, by GOMP_SPINCOUNT. Call this before torch is imported.

    PyTorch's threads on Linux are those of GNU OpenMP. They wait for each other about 1300 times in a step of the
    default run. A waiting thread looks for work again and again, by default 300,000 times (some milliseconds), and then
    sleeps. If another program occupies the core of the thread that is waited for, these milliseconds are lost every
    time. A thread that sleeps at once (`OMP_WAIT_POLICY=passive`) loses none, but has to be woken 1300 times.

    The table gives images/s of the default run with 2 threads on 2 cores: alone, each of two such runs side by side,
    and beside one busy process per core (torch 2.14; medians of 5 interleaved repetitions on an almost idle machine).

    | looks             | alone | two | busy |
    |-------------------|-------|-----|------|
    | 300,000 (default) |   173 |  46 |   43 |
    | 4000              |   183 |  98 |   94 |
    | 2000              |   176 | 122 |   98 |
    | 1000              |   152 | 131 |   92 |
    | 0 (passive)       |   130 | 154 |  145 |

    Where the user has set one of these variables, nothing changes. Other implementations of OpenMP, like that of macOS,
    do not read GOMP_SPINCOUNT.
    """
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def cores(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """How many processor cores this process may use at once, at least 1.

    Three limits may apply, and the smallest counts: the affinity of the process, the quota of its control group (a
    container's `--cpus`), and SLURM's (`SLURM_CPUS_PER_TASK` in `environment`). `root` is the folder that contains
    `/proc` and `/sys`.
    """
    found = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    found += _quotas(root)
    given = environment.get("SLURM_CPUS_PER_TASK", "")
    if given.isdecimal() and int(given) > 0:
        found.append(int(given))
    return max(1, int(min(found)))


def _quotas(root: Path) -> list[float]:
    """The quota, in cores, of each control group (versions 1 and 2) that this process is in."""
    found = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        inside = Path(group.lstrip("/"))
        for folder in (inside, *inside.parents):  # the quotas of the groups above limit a group too
            try:
                if controllers:
                    quota = (top / folder / "cpu.cfs_quota_us").read_text().strip()
                    period = (top / folder / "cpu.cfs_period_us").read_text().strip()
                else:
                    quota, period = (top / folder / "cpu.max").read_text().split()
            except (OSError, ValueError):  # inside a container, the groups above its own are invisible
                continue
            if quota not in ("max", "-1"):
                found.append(int(quota) / int(period))
    return found


def default_threads(chosen: int, environment: Mapping[str, str] = os.environ) -> int:
    """How many threads a run takes where `threads` is null; `chosen` is the number that PyTorch would take.

    PyTorch obeys `OMP_NUM_THREADS`. Where that is not set, PyTorch takes the physical cores of the process's affinity,
    which may be more than `cores` allows, because PyTorch ignores quotas. The smaller number is returned then.
    """
    return chosen if environment.get("OMP_NUM_THREADS") else max(1, min(chosen, cores(environment)))


def share_cores(sweep: DictConfig, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set OMP_NUM_THREADS so that jobs which a launcher runs at the same time on this host share the cores equally.

    `sweep` is the configuration of the sweep, which includes the node `hydra`. Nothing changes for jobs on other hosts
    (submitit_slurm), or where the user has set OMP_NUM_THREADS.
    """
    many = jobs_at_once(sweep)
    if many > 1 and not environment.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = str(max(1, cores(environment) // many))


def jobs_at_once(sweep: DictConfig) -> int:
    """How many jobs of a sweep the launcher runs at the same time on this host.

    - joblib runs `hydra.launcher.n_jobs` of them; negative numbers count down from the number of cores.
    - submitit_local runs all jobs that the sweeper hands over together.
    - Every other launcher runs one.
    """
    launcher, sweeper = sweep.hydra.launcher, sweep.hydra.sweeper
    kind = launcher["_target_"].rpartition(".")[2]
    if kind == "JoblibLauncher":
        wanted = launcher.n_jobs if launcher.n_jobs > 0 else max(1, cores() + 1 + launcher.n_jobs)
    elif kind == "LocalLauncher":
        wanted = None
    else:
        return 1
    together = _jobs_together(sweep, sweeper)
    return together if wanted is None else min(wanted, together)


def _jobs_together(sweep: DictConfig, sweeper: DictConfig) -> int:
    """How many jobs the sweeper hands to the launcher together."""
    if sweeper["_target_"].rpartition(".")[2] != "BasicSweeper":
        return int(sweeper.get("n_jobs") or 1)  # Optuna
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*words, *sweep.hydra.overrides.task])
    batches = BasicSweeper.split_arguments(parsed, sweeper.max_batch_size)
    return max((len(batch) for batch in batches), default=1)


class Starvation:
    """Detects that other programs take the processors from this process, and logs one warning about it.

    - `threads`: the number of threads of the run, for the warning.
    - `window`: seconds between two measurements.
    - `root`: the folder with Linux's files about the threads of this process.

    Linux counts for each thread how long it computed, and how long it was ready to compute but waited for a processor.
    On other systems the process never counts as starved.
    """

    def __init__(self, threads: int, *, window: float = 10.0, root: Path = Path("/proc/self/task")) -> None:
        self._threads, self._window, self._root = threads, window, root
        self._since, self._before = time.monotonic(), _computed_and_waited(root)
        self.share = 0.0
        """The share of the last window, 0 to 1, in which the threads waited for a processor instead of computing."""
        self._said = False

    def look(self) -> bool:
        """Whether the process was starved in the last window. Measures again when a window has passed."""
        if time.monotonic() - self._since >= self._window:
            now = _computed_and_waited(self._root)
            computed, waited = now[0] - self._before[0], now[1] - self._before[1]
            self.share = max(waited, 0) / max(computed + waited, 1)  # the sums shrink when a thread ends
            self._since, self._before = time.monotonic(), now
            if self.share > _STARVED and not self._said:
                self._said = True
                fewer = f"; threads=1 may be faster than {self._threads} threads" if self._threads > 1 else ""
                log.warning(
                    "other programs use the processors: of the time in which this run could have computed, it waited "
                    "%.0f %% for one%s",
                    100 * self.share,
                    fewer,
                )
        return self.share > _STARVED


def _computed_and_waited(root: Path) -> tuple[int, int]:
    """Nanoseconds that the living threads of the process have computed, and waited for a processor."""
    computed = waited = 0
    for path in root.glob("*/schedstat"):
        try:
            ran, queued, _ = map(int, path.read_text().split())
        except (OSError, ValueError):  # a thread that has just ended
            continue
        computed, waited = computed + ran, waited + queued
    return computed, waited
