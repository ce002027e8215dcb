"""The routing contest, simulated."""
