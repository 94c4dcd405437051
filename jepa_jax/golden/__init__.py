"""Comparison with golden numbers: inputs, outputs and gradients of the study's own code, stored in a folder.

Each module here turns some files of such a folder into cases; `jepa_jax.parity` runs them all.
"""
