"""Training for real what a simulated run did: the simulator says who does what when, real tensors follow."""
