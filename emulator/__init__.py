"""The emulator backend: real processes, sockets and torch on one machine (not part of this release)."""
