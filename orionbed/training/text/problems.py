"""What can be wrong with a text, or with what is needed to read it."""


class TextError(ValueError):
    """A text cannot be trained on; the message begins with the key of the scenario and says what to do."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"training.data.{key}: {text}")


def missing(library: str, key: str) -> TextError:
    """Return what to raise when a library of the `data` extra is not there."""
    return TextError(key, f"needs the library {library}; install it with `pip install 'orionbed[data]'`")
