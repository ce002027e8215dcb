"""A process group of torch.distributed over the transport: backend `orionbed`, for pipelines across the internet."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from orionbed.transport import collectives
from orionbed.transport.endpoint import Endpoint
from orionbed.transport.inbox import LEAVING, Inbox
from orionbed.transport.staging import from_wire, to_wire
from orionbed.transport.works import WaitingWork, running, sent

if TYPE_CHECKING:
    from orionbed.fleet.tls import Credentials

BACKEND: Final = "orionbed"
_FLUSH_S: Final = 5.0
_PATIENCE_S: Final = 5.0
_SLACK_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.1


class Store(Protocol):
    """What is needed of torch's store."""

    def set(self, key: str, value: str, /) -> object: ...
    def get(self, key: str, /) -> bytes: ...


class Group(dist.ProcessGroup):
    """A rank's end of a group. Tensors on CPU or CUDA, of any dtype; contiguous where they are written in place.

    Sends leave at once: a wait for one returns when its tensor may be written again, and no receiver must be waiting.
    The k-th receive from a peer (of a tag) gets its k-th message. Collectives run one after the other in a thread of
    their own. No wait is longer than `timeout`; when a peer is lost, who waits for it gets LostPeerError with its
    rank within seconds.
    """

    def __init__(self, endpoint: Endpoint, inbox: Inbox, size: int, timeout: timedelta) -> None:
        super().__init__(endpoint.index, size)  # type: ignore[call-arg]
        self._endpoint, self._inbox = endpoint, inbox
        self._within_s = timeout.total_seconds()
        self._ranks = _Ranks(endpoint, inbox, size, self._within_s)
        self._worker = ThreadPoolExecutor(1, f"group-{endpoint.index}")
        self._closed = False
        self._name = self._description = BACKEND

    def getBackendName(self) -> str:  # noqa: N802 - torch's name
        """Return the name of the backend."""
        return BACKEND

    # A group of C++ keeps these in its backend, and this one has none.
    def _set_group_name(self, name: str) -> None:
        self._name = name

    def _set_group_desc(self, description: str) -> None:
        self._description = description

    @property
    def group_name(self) -> str:  # type: ignore[override]
        return self._name

    @property
    def group_desc(self) -> str:
        return self._description

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint beneath, for its counters and telemetry."""
        return self._endpoint

    def send(self, tensors: list[Tensor], dst: int, tag: int) -> WaitingWork:
        """Send a tensor to a rank of the group."""
        self._inbox.check(dst)
        body, settle = to_wire(_only(tensors))
        self._endpoint.send(dst, _tagged(tag), body)
        return sent(settle)

    def recv(self, tensors: list[Tensor], src: int, tag: int) -> WaitingWork:
        """Receive a tensor from a rank of the group."""
        tensor = _only(tensors)
        ticket = self._inbox.ask(src, _tagged(tag))
        return WaitingWork(
            lambda seconds: from_wire(self._inbox.take(ticket, seconds), tensor),
            lambda: self._inbox.is_here(ticket),
            self._within_s,
        )

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> WaitingWork:  # type: ignore[override]
        """Reduce a tensor over all ranks, in place."""
        operation = "SUM" if opts is None else _name_of(opts.reduceOp)
        return self._run(_only(tensors), lambda host: collectives.all_reduce(self._ranks, host, operation))

    def broadcast(self, tensors: list[Tensor], opts: Any) -> WaitingWork:  # type: ignore[override]
        """Give the tensor of one rank to all."""
        return self._run(_only(tensors), lambda host: collectives.broadcast(self._ranks, host, opts.rootRank))

    def allgather(  # type: ignore[override]
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None,  # noqa: ARG002
    ) -> WaitingWork:  # fmt: skip
        """Give the tensors of all ranks to all."""
        own, into = _only(inputs), outputs[0]
        gathered = [torch.empty_like(one, device="cpu") for one in into]

        def settle() -> None:
            for one, host in zip(into, gathered, strict=True):
                one.copy_(host)

        host, _ = _on_host(own)
        future = self._worker.submit(lambda: collectives.all_gather(self._ranks, gathered, host()))
        return running(future, settle, self._within_s + _SLACK_S)

    def barrier(self, opts: Any = None) -> WaitingWork:  # noqa: ARG002
        """Wait for all ranks."""
        future = self._worker.submit(lambda: collectives.barrier(self._ranks))
        return running(future, lambda: None, self._within_s + _SLACK_S)

    def shutdown(self) -> None:
        """Leave the group: what was sent still arrives, if it can within seconds."""
        if self._closed:
            return
        self._closed = True
        others = set(range(self._ranks.size)) - {self._ranks.rank}
        for peer in others - self._inbox.left:
            self._endpoint.send(peer, LEAVING, b"")
        deadline_s = monotonic() + _FLUSH_S
        while not self._endpoint.flush(_LOOK_EVERY_S) and monotonic() < deadline_s:
            for peer in self._inbox.left:
                self._endpoint.set_address(peer, None)
        self.abort()

    def abort(self) -> None:
        """Leave the group at once; who waits raises LostPeerError."""
        self._closed = True
        self._inbox.close()
        self._worker.shutdown(cancel_futures=True)
        self._endpoint.close()

    def _run(self, tensor: Tensor, collective: Callable[[Tensor], None]) -> WaitingWork:
        """Let a collective work on a tensor, or on its copy in the host's memory that is then copied back."""
        host, settle = _on_host(tensor)
        future = self._worker.submit(lambda: collective(host()))
        return running(future, settle, self._within_s + _SLACK_S)


class _Ranks:
    """How collectives speak with other ranks; what belongs to them is kept apart from single messages."""

    def __init__(self, endpoint: Endpoint, inbox: Inbox, size: int, within_s: float) -> None:
        self.rank, self.size = endpoint.index, size
        self._endpoint, self._inbox, self._within_s = endpoint, inbox, within_s

    def give(self, target: int, tensor: Tensor) -> None:
        body, _ = to_wire(tensor)
        self._endpoint.send(target, b"collective", body)

    def get(self, source: int, tensor: Tensor) -> None:
        ticket = self._inbox.ask(source, b"collective")
        from_wire(self._inbox.take(ticket, self._within_s, needs_all=True), tensor)


def _on_host(tensor: Tensor) -> tuple[Callable[[], Tensor], Callable[[], object]]:
    """Return how to get at a tensor in the host's memory, and how to put back what became of it."""
    if not tensor.is_cuda:
        if not tensor.is_contiguous():
            raise ValueError("collectives take contiguous tensors")
        return tensor.detach, lambda: None
    body, _ = to_wire(tensor)
    copied: list[Tensor] = []

    def host() -> Tensor:
        copied.append(torch.from_numpy(body()).view(tensor.dtype).view(tensor.shape))
        return copied[0]

    def settle() -> None:
        with torch.no_grad():
            tensor.copy_(copied[0], non_blocking=True)

    return host, settle


def _only(tensors: list[Tensor]) -> Tensor:
    (tensor,) = tensors
    return tensor


def _tagged(tag: int) -> bytes:
    return b"tensor %d" % tag


def _name_of(operation: Any) -> str:
    names = ("SUM", "AVG", "PRODUCT", "MIN", "MAX")
    return next((name for name in names if operation == getattr(dist.ReduceOp, name)), str(operation))


@dataclass(slots=True)
class _Settings:
    """What all groups of a process share, given by `register`."""

    token: bytes = b""
    credentials: "Credentials | None" = None
    host: str = "127.0.0.1"


_settings: Final = _Settings()


def register(token: bytes, credentials: "Credentials | None" = None, host: str = "127.0.0.1") -> None:
    """Make backend `orionbed` known to torch; groups made from now on listen on `host` and use these secrets."""
    _settings.token, _settings.credentials, _settings.host = token, credentials, host
    if BACKEND not in dist.Backend.backend_list:
        dist.Backend.register_backend(BACKEND, make_group, devices=["cpu", "cuda"])


def make_group(store: Store, rank: int, size: int, timeout: timedelta) -> Group:
    """Return this rank's end of a group, its connections open; the ranks find one another through the store."""
    inbox = Inbox(size, lambda peer: endpoint.absent_s(peer))  # noqa: PLW0108 - the endpoint is made next
    endpoint = Endpoint(
        rank, token=_settings.token, deliver=inbox.deliver, failed=inbox.failed, host=_settings.host,
        credentials=_settings.credentials, patience_s=_PATIENCE_S,
    )  # fmt: skip
    try:
        store.set(f"address/{rank}", json.dumps(endpoint.address))
        others = [peer for peer in range(size) if peer != rank]
        for peer in others:
            host, port = json.loads(store.get(f"address/{peer}"))
            endpoint.set_address(peer, (host, port))
        endpoint.warm(others)
    except BaseException:
        endpoint.close()
        raise
    return Group(endpoint, inbox, size, timeout)
