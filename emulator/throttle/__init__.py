"""Throttled sockets: real TCP connections with real bytes whose rate and delay follow virtual departure times.

Every frame carries the time at which its last bit leaves the sender's uplink and the time at which it reaches the
receiver. Both are computed from the previous reservation, never from the moment at which a process woke up, so a
machine that stalls delivers late but does not change what the network did. `Endpoint` is one peer's end of it all.
"""
