"""The routing contest: which rule sends activations through unreliable miners fastest."""
