"""Base-Detail Feature Learning for visible-infrared person re-identification, as a framework for ablation sweeps."""

__version__ = "0.1.0"
