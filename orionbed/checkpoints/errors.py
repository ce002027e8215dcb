"""What can be wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint is refused or cannot be written; the message names what of it is wrong."""


class NoCheckpointError(CheckpointError):
    """There is no checkpoint at a path, whole or not."""
