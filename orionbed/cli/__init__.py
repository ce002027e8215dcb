"""The command line: verbs only; `--help` and `check` import nothing heavy."""

from orionbed.cli.app import app, main

__all__ = ["app", "main"]
