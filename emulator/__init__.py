"""The emulator backend: a process per peer, real torch, real gradients, real connections that are throttled."""
