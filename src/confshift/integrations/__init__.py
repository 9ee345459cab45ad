"""Trainers' own hooks: one module for each, imported by nobody in the package; see `docs/trainers.md`."""
