"""What went over the connections of a run, told by each end of them, and the law that nothing is lost."""

from typing import Any


def counted(endpoint: Any) -> dict[str, Any]:
    c = endpoint.counters()
    return {"sent": list(c["sent"].items()), "received": list(c["received"].items()),
            "departed_bytes": sum(c["sent"].values()), "delivered_bytes": sum(c["received"].values())}


def told_telemetry(endpoint: Any) -> list[dict[str, Any]]:
    return []
