"""What does this peer do next? One policy per peer, shared by all backends.

A policy is a pure state machine: no clock, no I/O, and no randomness but a generator it is handed.
"""
