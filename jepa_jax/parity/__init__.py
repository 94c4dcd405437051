"""Parity with the study: compares stored inputs, outputs and gradients of the study's code with this package's.

Each `*_cases` module makes cases from some of the stored files; `python -m jepa_jax.parity FOLDER` runs them all.
"""
