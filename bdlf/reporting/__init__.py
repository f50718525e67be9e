"""From run folders to the paper's tables and figure, with the published numbers beside ours."""

from bdlf.reporting.intervals import Interval, difference_interval

__all__ = ["Interval", "difference_interval"]
