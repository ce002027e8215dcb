"""Versions that the code is tied to, where a bare installation would bring another one."""

from typing import Final

TORCH: Final = "2.13.0"
