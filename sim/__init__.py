"""The discrete-event backend: nothing is real, everything is modelled."""
