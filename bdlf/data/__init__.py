"""Listings of the datasets, the image store, the identity sampler and the augmentation."""

from bdlf.data.listing import fingerprint, listing
from bdlf.datasets.record import is_synthetic
from bdlf.datasets.table import check

__all__ = ["check", "fingerprint", "is_synthetic", "listing"]
