"""Inner optimizers: how a peer's weights follow from its gradients, on the flat tensors that a worker holds.

This is what torch.optim would do, were it not that making its first optimizer imports torch's compiler: 3.7 s and
86 MB, which every process of an emulation would pay. What is here agrees with it to rounding; tests compare the two. On
a GPU AdamW is torch's fused one all the same: step by step it would need room for two more tensors as long as the
weights.
"""
