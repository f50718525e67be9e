"""Ask with linear probes what a run's features hold: the modality, the person, the camera, and what the images show.

It answers whether Z^B holds what the modalities share, and Z^D what is specific to each. `probes.json` and the figure
go to the run folder, beside the file of features, or to `output=`. A run on the synthetic set can be probed with more
people than it is scored on, by `dataset.synthetic.test_identities=`: the intervals get narrower.

Examples
  python -m bdlf.probe run=outputs/synthetic/full-1a2b3c4d/seed0
  python -m bdlf.probe run=outputs/synthetic/full-1a2b3c4d/seed0 what=Z_B,Z_D
  python -m bdlf.probe run=outputs/synthetic/full-1a2b3c4d/seed0 dataset.synthetic.test_identities=256
  python -m bdlf.probe features=theirs.npz dataset=sysu dataset.root=data/SYSU-MM01
"""

from __future__ import annotations

from operator import attrgetter

from bdlf.commandline.command import run_command
from bdlf.commandline.jobs import DONE
from bdlf.config import ProbeConfig
from bdlf.system.errors import InputError
from bdlf.system.memory import load

OF_THE_RUN = ("name", "split", "seed", "synthetic.train_identities", "synthetic.images_per_identity")
"""Keys of `dataset` that a run has recorded. More test identities may be drawn."""


def probe(config: ProbeConfig) -> int:
    """Run the command, and return its exit code."""
    from bdlf.runs.logs import show_on_screen

    show_on_screen()
    if (config.run is None) == (config.features is None):
        given = "none" if config.run is None else "both"
        raise InputError(f"one of run=FOLDER and features=FILE.npz is needed; {given} is given")
    for key in OF_THE_RUN:
        value = attrgetter(key)(config.dataset)
        if config.run is not None and value is not None:
            raise InputError(f"dataset.{key}={value} does not go with run=: a run knows its dataset; leave it out")
    names = None
    if config.what is not None:
        if config.features is not None:
            raise InputError("what= does not go with features=: the file holds one feature; leave it out")
        names = [config.what] if isinstance(config.what, str) else [str(name) for name in config.what]
    load("bdlf.experiment")
    from bdlf.inside.probing import probe_and_write

    probe_and_write(config, names)
    return DONE


def main() -> None:
    """The command."""
    run_command("probe", ProbeConfig, probe, __doc__ or "", folder="on_disk")


if __name__ == "__main__":
    main()
