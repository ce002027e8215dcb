"""What becomes of the micro-batches in flight when a peer is lost: ten policies, chosen by `recovery.in_flight`."""
