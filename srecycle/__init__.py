"""srecycle: Selective Reflection-Tuning (arXiv:2402.10110) as an experiment-tracking research harness."""

__version__ = "0.1.0"
