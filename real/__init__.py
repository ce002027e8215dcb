"""The real backend: the same schedule on GPUs (not part of this release)."""
