"""Published measurements, run again on the simulator: how far its predictions can be trusted."""
