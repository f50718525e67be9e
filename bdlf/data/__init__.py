"""Listings of the datasets, the image store, the identity sampler and the augmentation."""

from bdlf.data.listing import check, fingerprint, is_synthetic, listing

__all__ = ["check", "fingerprint", "is_synthetic", "listing"]
