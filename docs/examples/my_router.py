"""A router to start from: see docs/how-to/routing-contest.md.

orionbed contest apex-routing --router docs/examples/my_router.py:MyRouter
"""

# ruff: noqa: INP001 -- a file of a user, no package

from collections import Counter


class MyRouter:
    """Each layer's miner with the least work on its way, by this router's own count, and fewer to whoever loses."""

    def __init__(self) -> None:
        self.epoch = 0
        self.routes = {}  # activation -> its route, while it is on its way
        self.on_their_way = Counter()  # miner -> activations

    def route(self, request) -> list[int]:
        self.strike_out(request)
        route = []
        for layer in request.layers:
            best = min(layer.miners, key=self.work_of)
            route.append(best.miner)
            self.on_their_way[best.miner] += 1
        self.routes[request.activation] = route
        return route

    def work_of(self, miner) -> float:
        # The root favours slow miners a little: all of them have a cache, and caches are what is short.
        return (self.on_their_way[miner.miner] + 1) * (miner.forward_s + miner.backward_s) ** 0.5

    def strike_out(self, request) -> None:
        if request.epoch != self.epoch:  # a merge has flushed everything
            self.epoch = request.epoch
            self.routes.clear()
            self.on_their_way.clear()
        for activation in request.completed + request.lost:
            for miner in self.routes.pop(activation, ()):
                self.on_their_way[miner] -= 1

    def rebalance(self, state) -> dict[int, int]:
        """The fastest first, each miner goes to the layer that has least so far; the first layers get more.

        A layer holds an activation until it has come back from all layers above, so lower layers need more caches.
        """
        num_layers = len(state.layers)
        miners = {miner.miner: miner for layer in state.layers for miner in layer.miners}
        dealt = [0.0] * num_layers
        moves = {}
        for miner in sorted(miners.values(), key=lambda miner: (miner.forward_s, miner.miner)):
            first = min(range(num_layers), key=lambda layer: dealt[layer] / (num_layers - layer + 8))
            for layer in range(first, first + len(miner.layers)):
                dealt[layer % num_layers] += 1.0 / len(miner.layers)
            moves[miner.miner] = first
        return moves
