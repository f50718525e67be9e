"""Train one configuration, score it, and record it in its own run folder.

Examples
  python -m bdlf.train                                      # synthetic data, a few CPU minutes
  python -m bdlf.train dataset=regdb dfe.stage=3            # the paper's recipe on RegDB
  python -m bdlf.train -m variant=baseline,full seed=0,1,2  # six runs, each in its own folder
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bdlf.command import DONE, INTERRUPTED, run_command
from bdlf.config import Config, active_weights

if TYPE_CHECKING:
    import pandas as pd

    from bdlf.runs.folder import RunFolder

log = logging.getLogger("bdlf")


def train(config: Config) -> int:
    """One job: return its result at once when it is finished, go on when it was cut off, else start. Returns the exit code."""
    from bdlf.data import build_listing, fingerprint
    from bdlf.runs.folder import RunFolder
    from bdlf.runs.identity import run_id, run_path
    from bdlf.runs.logs import log_to
    from bdlf.runs.table import show_result

    folder = RunFolder(run_path(config))
    listing = build_listing(config.dataset)
    digest = fingerprint(listing, config.dataset.root)
    if config.rerun and not config.dry_run:
        folder.move_aside()
    if result := folder.finished(digest):
        log.info("finished before: %s", folder.path)
        show_result(result)
        return DONE
    if config.dry_run:
        return _describe(config, folder, listing)
    with log_to(folder.log):
        log.info("run %s in %s", run_id(config), folder.path)
        try:
            show_result(_run(config, folder, listing, digest))
        except KeyboardInterrupt:
            log.info("interrupted; the same command goes on from the last finished epoch")
            return INTERRUPTED
        except Exception:
            log.debug("the traceback", exc_info=True)  # to train.log only
            raise
    return DONE
