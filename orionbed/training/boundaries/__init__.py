"""What stands at the cuts of a model: layers that narrow what crosses, and packings of it into fewer bytes."""
