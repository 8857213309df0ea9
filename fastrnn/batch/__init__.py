"""Sweeps as batch jobs: described, cut into tasks, stored, resumed and checked."""
