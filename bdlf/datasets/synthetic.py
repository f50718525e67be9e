"""The synthetic dataset: pedestrians that the program draws itself, with known factors; nothing lies on disk.

This file says what it is called and how it is scored. The drawing is in `bdlf.data.synthetic`.
"""

from __future__ import annotations

from bdlf.datasets import regdb
from bdlf.datasets.description import Dataset, Place, Published, Size
from bdlf.datasets.galleries import EVERYTHING
from bdlf.datasets.protocol import Protocol

DATASET = Dataset(
    name="synthetic",
    title="the synthetic dataset",
    paper="not published: this program draws it",
    protocol=Protocol(
        rule=regdb.RULE,
        galleries={"all": EVERYTHING},
        modes={"all": ()},
        remark=(
            "There are as many queries as gallery images: dataset.synthetic.test_identities x "
            "dataset.synthetic.images_per_identity of each."
        ),
        source="The same as of RegDB",
    ),
)


def asked_for(train_identities: int, test_identities: int, images_per_identity: int) -> Published:
    """What the dataset holds when it is drawn in these sizes; images are counted for each identity and modality."""
    sizes: dict[Place, Size] = {}
    for split, count in {"train": train_identities, "test": test_identities}.items():
        images = count * images_per_identity
        sizes[split, None, None] = Size(count, 2 * images)
        sizes |= {(split, modality, None): Size(count, images) for modality in ("vis", "ir")}
    return Published("dataset.synthetic", sizes)
