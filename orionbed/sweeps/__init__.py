"""Sweeps: one scenario many times, with a few of its keys varied and everything else, chance included, the same."""
