"""From a job to one participant's end of the throttled network: its links, its paths, what faults do to them."""

from math import inf
from typing import Any

from emulator.job import Job
from emulator.routes import Ways
from emulator.throttle.changes import BlockChange, CorruptChange, PathChange
from emulator.throttle.endpoint import Endpoint
from emulator.throttle.paths import Path
from emulator.throttle.rates import Rate
from orionbed.emulation import Scales
from orionbed.fault_effects import change_times, link_state
from orionbed.faults import ResolvedFault
from orionbed.fleet.clock import PacedClock

DRAWN_AHEAD_S = 12 * 3600.0
CHUNK_REAL_S = 0.001
"""A chunk takes about so long in real time: finer sharing costs processor time that the model needs."""
MOST_CHUNK_REAL_S = 0.020
LEAST_CHUNK_BYTES = 64
MOST_CHUNK_BYTES = 64 * 1024


def make_endpoint(  # noqa: PLR0917  (each is something else, and there is one caller)
    job: Job, index: int, life: int, clock: PacedClock, scales: Scales, deliver: Any, failed: Any
) -> Endpoint:
    """Return the end of the network of a peer, or of the store; bytes, rates and windows scaled down."""
    ways = Ways(job.plan, job.seed)
    scale = scales.payload_scale
    is_store = index == job.store
    uplink = _rate(ways, ("store", "out") if is_store else ("up", index), scale)
    downlink = _rate(ways, ("store", "in") if is_store else ("down", index), scale)
    fastest = 0.0 if is_store else uplink.at(0.0)
    endpoint = Endpoint(
        index,
        clock,
        uplink=uplink,
        downlink=downlink,
        path=lambda peer: _path(job, ways, index, peer, scale),
        deliver=deliver,
        failed=failed,
        seed=job.seed,
        token=bytes.fromhex(job.token),
        chunk_bytes=_chunk_bytes(fastest, scales),
        life=life,
        host=job.host,
        site_out=job.site_clock("out", index),
        site_in=job.site_clock("in", index),
        server_tls=None if job.tls is None else job.tls.server,
        client_tls=None if job.tls is None else job.tls.client,
    )
    _announce(job, ways, index, endpoint, scale)
    return endpoint


def _rate(ways: Ways, resource: tuple[str | int, ...], scale: float) -> Rate:
    if resource[0] == "store" and ways.plan.scenario.network.storage.rate is None:
        return Rate.constant(inf)
    profile = ways.profile(resource)
    rate, until_s = profile(0.0)
    if until_s == inf:
        return Rate.constant(rate / scale)
    return Rate.recorded(ways.fresh_profile(resource), DRAWN_AHEAD_S, 1.0 / scale)


def _chunk_bytes(rate: float, scales: Scales) -> tuple[int, int]:
    """Return bounds of chunks: so long in real time, on a link of `rate` bytes per run second."""
    per_real_s = rate / scales.time_dilation
    low = int(max(LEAST_CHUNK_BYTES, min(MOST_CHUNK_BYTES, per_real_s * CHUNK_REAL_S)))
    high = int(max(low, min(MOST_CHUNK_BYTES, per_real_s * MOST_CHUNK_REAL_S))) if rate else MOST_CHUNK_BYTES
    return low, high


def _path(job: Job, ways: Ways, index: int, peer: int, scale: float) -> Path:
    if peer == index:
        return Path(0.0)
    network = job.plan.scenario.network
    jitter, transport = network.jitter, network.transport
    window = ways.window_bytes(index, peer) / scale
    spike = None if isinstance(jitter, str) else jitter.spike
    to_store = job.store in {index, peer}
    return Path(
        owd_s=ways.way_s(index, peer),
        window_bytes=window,
        initial_window_bytes=min(window, ways.initial_window_bytes(index, peer) / scale),
        rate=ways.rate_ceiling(index, peer) / scale,
        jitter_sd_s=0.0 if isinstance(jitter, str) else jitter.sd,
        spike_probability=0.0 if isinstance(jitter, str) else jitter.spike_probability,
        spike_median_s=0.02 if spike is None else spike.median,
        spike_sigma=float(getattr(spike, "sigma", 0.0)),
        handshake_s=ways.handshake_s(index, peer),
        crosses_site=to_store or job.plan.peers[index].site != job.plan.peers[peer].site,
        wan=None if to_store or transport is None else job.wan_clock(index, peer),
    )


def _announce(job: Job, ways: Ways, index: int, endpoint: Endpoint, scale: float) -> None:
    """Tell the endpoint what faults will do to its ways out, and to its credits on the ways in."""
    touching = tuple(fault for fault in job.faults if any(index in pair for pair in fault.pairs))
    for at_s in change_times(touching):
        for peer in range(job.store):
            if peer != index and any((index, peer) in fault.pairs for fault in touching):
                _announce_pair(touching, ways, index, peer, at_s, endpoint, scale)


def _announce_pair(  # noqa: PLR0917
    faults: tuple[ResolvedFault, ...], ways: Ways, index: int, peer: int, at_s: float, endpoint: Endpoint, scale: float
) -> None:
    state, before = (link_state(faults, index, peer, second) for second in (at_s, _before(faults, at_s)))
    if state == before:
        return
    peers = ways.plan.peers
    pair_bps = min(peers[index].uplink_bps, peers[peer].downlink_bps)
    disturbed = state.capacity_bps is not None or state.capacity_factor != 1.0
    owd_s = ways.delay_s(index, peer)
    endpoint.change(
        at_s,
        PathChange(
            peer,
            added_owd_s=state.delay(owd_s) - owd_s,
            jitter_sd_s=state.jitter_sd_s or None,
            loss=state.loss or None,
            rate_ceiling=state.capacity(pair_bps) / 8.0 / scale if disturbed else inf,
        ),
    )
    endpoint.change(at_s, BlockChange(peer, blocked=state.blocked is not None))
    endpoint.change(at_s, CorruptChange(peer, state.corrupt))


def _before(faults: tuple[ResolvedFault, ...], at_s: float) -> float:
    """Return a second just before `at_s`, after any earlier change."""
    earlier = [time for time in change_times(faults) if time < at_s]
    return (earlier[-1] + at_s) / 2.0 if earlier else at_s - 1.0
