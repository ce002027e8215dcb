"""How the peers of a stage average their weights: who holds what, how many bytes, how long, and what failures leave.

Pure functions. `sim.merging` runs merges over simulated links, `orionbed.training.merge` over real ones.
"""
