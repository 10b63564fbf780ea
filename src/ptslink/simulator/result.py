"""What a simulation came to, as data and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ptslink.escape import visible
from ptslink.simulator.device import Tally
from ptslink.simulator.wire import Ending


@dataclass
class ControllerResult:
    """One controller's run. ``status`` and ``accept_ok`` are of its last handshake."""

    controller_id: str
    tally: Tally
    status: int | None = None
    accept_ok: bool = False
    connections: int = 0
    ending: Ending | None = None
    error: str | None = None
    errors: int = 0
    first_error: str | None = None
    unconfirmed: Counter[str] = field(default_factory=Counter)

    def fail(self, text: str) -> None:
        """Note that the connection, or the attempt at one, went wrong."""
        self.error = text
        self.errors += 1
        self.first_error = self.first_error or text

    @property
    def ok(self) -> bool:
        """Everything confirmed, nothing rejected, and the last connection closed as agreed."""
        return (
            self.status == 101
            and self.accept_ok
            and self.error is None
            and not self.tally.rejected
            and not self.unconfirmed
            and self.ending is not None
            and self.ending.clean
        )

    def as_json(self) -> dict[str, Any]:
        tally = self.tally
        return {
            "id": self.controller_id,
            "ok": self.ok,
            "status": self.status,
            "accept_ok": self.accept_ok,
            "connections": self.connections,
            "sent": dict(tally.sent),
            "confirmed": dict(tally.confirmed),
            "rejected": dict(tally.rejected),
            "resent": dict(tally.resent),
            "unconfirmed": dict(self.unconfirmed),
            "answered": dict(tally.answered),
            "rejections": [
                {"kind": v.kind, "id": v.packet_id, "why": v.why, "came": v.came}
                for v in tally.rejections
            ],
            "close": self.ending.as_json() if self.ending else None,
            "error": self.error,
            "errors": self.errors,
            "first_error": self.first_error,
        }


@dataclass(frozen=True)
class SimulationResult:
    url: str
    seed: str
    controllers: tuple[ControllerResult, ...]

    @property
    def ok(self) -> bool:
        return bool(self.controllers) and all(c.ok for c in self.controllers)

    def as_json(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "ok": self.ok,
            "seed": self.seed,
            "controllers": [c.as_json() for c in self.controllers],
        }


def summed(counters: list[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def shown(counter: Counter[str]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in sorted(counter.items()) if n) or "nothing"


def progress_line(results: list[ControllerResult], connected: int) -> str:
    """One line of progress, 80 columns at most."""
    sent = sum(r.tally.sent.total() for r in results)
    confirmed = sum(r.tally.confirmed.total() for r in results)
    rejected = sum(r.tally.rejected.total() for r in results)
    errors = sum(r.errors for r in results)
    return (
        f"{connected}/{len(results)} connected, {sent} sent, {confirmed} confirmed, "
        f"{rejected} rejected, {errors} errors"
    )


#: Failing controllers described one by one in the report for people.
MAX_DESCRIBED = 5


def render(result: SimulationResult) -> str:
    """The report for people, ending in a newline."""
    controllers = list(result.controllers)
    good = sum(c.ok for c in controllers)
    sent = summed([c.tally.sent for c in controllers])
    confirmed = summed([c.tally.confirmed for c in controllers])
    lines = [f"{good} of {len(controllers)} controllers had everything confirmed"]
    lines += [f"  {kind:<24}{confirmed[kind]:>8} of {n} confirmed" for kind, n in sent.items()]
    failing = [c for c in controllers if not c.ok]
    for controller in failing[:MAX_DESCRIBED]:
        lines.append(f"{controller.controller_id}:")
        if controller.status is not None and controller.status != 101:
            lines.append(f"  the server answered HTTP {controller.status}")
        if controller.first_error:
            lines.append(f"  {controller.first_error}")
        for verdict in controller.tally.rejections[:3]:
            lines.append(f"  {verdict.kind} {verdict.packet_id} rejected: {verdict.why}")
            lines.append(f"    came: {verdict.came}")
        if controller.unconfirmed:
            lines.append(f"  not confirmed: {shown(controller.unconfirmed)}")
        if controller.ending is not None and not controller.ending.clean:
            lines.append("  the connection ended without a close handshake")
    if len(failing) > MAX_DESCRIBED:
        lines.append(f"... and {len(failing) - MAX_DESCRIBED} more that failed")
    return "\n".join(map(visible, lines)) + "\n"
