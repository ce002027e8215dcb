"""The queue-driven policy on hardware: peers that train at their true size, in real time, over tcp."""
