"""Write synthetic pedestrians as image files in the layout of a real dataset.

`silhouettes=FOLDER` also writes the body-shape map of every image: white where the person is, black elsewhere. A map
has the path below FOLDER that its image has below `root`, as `dataset.silhouettes=FOLDER` of `bdlf.train` wants it.

Examples
  python -m bdlf.synthesize layout=regdb root=data/RegDB
  python -m bdlf.synthesize layout=sysu root=/tmp/SYSU-MM01 identities=100 images=6
  python -m bdlf.synthesize layout=llcm root=/tmp/LLCM height=256 width=128 seed=1
  python -m bdlf.synthesize layout=sysu root=/tmp/SYSU-MM01 silhouettes=/tmp/silhouettes
"""

from __future__ import annotations

import logging
import shlex

from bdlf.commandline.command import run_command
from bdlf.commandline.jobs import DONE
from bdlf.config import SynthesizeConfig

log = logging.getLogger("bdlf")


def synthesize(config: SynthesizeConfig) -> int:
    """Write the images as `config` says. Returns the exit code."""
    from bdlf.data.synthetic.layouts import write_layout
    from bdlf.runs.logs import show_on_screen

    show_on_screen()
    record = write_layout(
        config.layout,
        config.root,
        seed=config.seed,
        identities=config.identities,
        images=config.images,
        height=config.height,
        width=config.width,
        silhouettes=config.silhouettes,
    )
    log.info("%s-synthetic in %s: %s", config.layout, config.root, record["counts"])
    root = shlex.quote(f"dataset.root={config.root}")
    log.info("train on it: python -m bdlf.train dataset=%s %s", config.layout, root)
    if config.silhouettes is not None:
        maps = shlex.quote(f"dataset.silhouettes={config.silhouettes}")
        log.info("a method that reads silhouettes: python -m bdlf.train dataset=%s %s %s", config.layout, root, maps)
    return DONE


def main() -> None:
    """The command."""
    run_command("synthesize", SynthesizeConfig, synthesize, __doc__ or "")


if __name__ == "__main__":
    main()
