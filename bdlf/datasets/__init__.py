"""The datasets: one file for each with all that is special about it, and what their readers share.

The README of this folder says how to add one. Importing this package imports neither NumPy nor pandas.
"""

from bdlf.datasets import llcm, regdb, synthetic, sysu
from bdlf.datasets.description import Dataset
from bdlf.system.errors import InputError

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for dataset in (sysu.DATASET, regdb.DATASET, llcm.DATASET, synthetic.DATASET)
}
"""Every dataset by its name. A new one comes last: the place in this table is part of what `bdlf.synthesize` draws."""


def dataset_named(name: str) -> Dataset:
    """The dataset of this name. Raises `InputError` for an unknown name."""
    if name not in DATASETS:
        raise InputError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]
