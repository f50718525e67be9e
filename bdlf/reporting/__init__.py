"""Makes the paper's tables and figure from run folders, with the published numbers beside ours."""

from bdlf.reporting.intervals import Interval, difference_interval

__all__ = ["Interval", "difference_interval"]
