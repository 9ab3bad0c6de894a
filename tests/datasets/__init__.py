"""The fixture folder of every dataset: `in/` is what a mirror of its source holds, `expected/` what must become of it.

Installed as the package medvec_samples (setup.py), so that each dataset can be run without its source.
"""
