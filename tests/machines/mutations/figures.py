"""What the results of mutations come to, and whether a finding names what was done. Pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from machines.mutations.mutation import Party, Truth

#: From here on a finding is said to be sure.
SURE = 0.9

_P = Party
#: Whom a finding blames, by the beginning of its id; the longest that fits counts. An unlisted
#: finding blames whoever makes its layer.
BLAMED: Mapping[str, tuple[Party, ...]] = {
    "dns": (_P.SITE,),
    "l3-device": (_P.SITE,),
    "l3-wrong-server-ip": (_P.DEVICE,),
    "l3-no-return-route": (_P.MACHINE,),
    "l3-interface": (_P.MACHINE,),
    "l3-rp-filter": (_P.MACHINE,),
    "l3": (_P.PATH,),
    "tcp-service-down": (_P.UNIT, _P.SERVICE, _P.NGINX),
    "tcp-bind-loopback": (_P.SERVICE, _P.UNIT),
    "tcp-wrong-port": (_P.DEVICE,),
    "tcp-half-open": (_P.DEVICE, _P.SITE),
    "tcp-conntrack-full": (_P.MACHINE,),
    "tcp-port-taken": (_P.PROCESS,),
    "tcp-accept-queue": (_P.SERVICE, _P.PROCESS),
    "fw": (_P.FIREWALL,),
    "fw-upstream-drop": (_P.PATH,),
    "fw-site-egress-block": (_P.SITE,),
    "nat": (_P.PATH,),
    "nat-redirect": (_P.FIREWALL,),
    "tls-plain-client": (_P.DEVICE,),
    "tls-client": (_P.DEVICE,),
    "tls-device": (_P.DEVICE,),
    "tls-cert": (_P.CERTIFICATE,),
    "tls-name": (_P.CERTIFICATE,),
    "tls-untrusted": (_P.CERTIFICATE,),
    "tls-root": (_P.CERTIFICATE,),
    "tls-ecdsa": (_P.CERTIFICATE, _P.NGINX),
    "tls": (_P.NGINX,),
    "px": (_P.NGINX,),
    "px-certificate": (_P.CERTIFICATE, _P.FILE),
    "px-proxy-protocol-sent": (_P.PATH, _P.DEVICE),
    "px-upstream": (_P.SERVICE, _P.UNIT),
    "px-connect-failed": (_P.MACHINE, _P.FIREWALL),
    "px-selinux": (_P.MACHINE,),
    "px-other-idle": (_P.PATH,),
    "px-forward": (_P.SITE,),
    "px-captive": (_P.SITE,),
    "px-sandboxed": (_P.UNIT,),
    "hs": (_P.DEVICE,),
    "hs-bad-accept": (_P.NGINX,),
    "hs-origin": (_P.SERVICE,),
    "hs-id-unknown": (_P.SERVICE,),
    "hs-auth": (_P.SERVICE, _P.DEVICE),
    "ws": (_P.DEVICE,),
    "ws-too-big": (_P.DEVICE, _P.SERVICE),
    "app": (_P.SERVICE,),
    "host": (_P.UNIT, _P.MACHINE),
    "host-crash-loop": (_P.UNIT, _P.SERVICE, _P.FILE),
    "host-disk-full": (_P.FILE,),
    "dev": (_P.DEVICE,),
    "unlisted-l3": (_P.PATH,),
    "unlisted-proxy": (_P.NGINX,),
    "unlisted-application": (_P.SERVICE,),
    "unlisted-host": (_P.UNIT, _P.MACHINE),
    "unlisted-ws": (_P.DEVICE,),
    "unlisted-controller": (_P.DEVICE,),
}  # fmt: skip


def blamed(finding_id: str) -> tuple[Party, ...]:
    """Whom a finding blames; nobody where its id says nothing of it."""
    fits = [start for start in BLAMED if finding_id.startswith(start)]
    return BLAMED[max(fits, key=len)] if fits else ()


@dataclass(frozen=True, slots=True)
class Score:
    """How right a first finding is."""

    party: bool
    exact: bool


def score(truth: Truth, finding: Mapping[str, Any]) -> Score:
    """Compare a finding, as the verdict's JSON has it, with what was done.

    Whom it blames follows from its id. One of no listed cause locates: it is right about the party
    where its text names the thing that was changed.
    """
    text = _plain(" ".join(_texts(finding)))
    named = any(_plain(thing) in text for thing in truth.things)
    of = blamed(str(finding["id"]))
    party = bool({*of} & {*truth.parties})
    if str(finding["id"]).startswith("unlisted-"):
        party = party or named
    return Score(party, party and named)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("id", "layer", "ruled_out", "auto"):
                yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def _plain(text: str) -> str:
    return re.sub(r"[\s'\"]+", " ", text).lower()


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was counted, of how many, and its goal in per cent."""

    what: str
    count: int
    of: int
    #: At least, or at most, so many per cent; which of both.
    goal: float
    least: bool = False

    @property
    def share(self) -> float:
        """In per cent; 0 of nothing."""
        return 100.0 * self.count / self.of if self.of else 0.0

    @property
    def met(self) -> bool:
        """Nothing counted meets nothing."""
        return self.of > 0 and (self.share >= self.goal if self.least else self.share <= self.goal)


#: Seconds to a verdict that half of the mutations may not exceed.
MEDIAN_GOAL = 10.0


def figures(results: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """The table of the mutations that were judged."""
    judged = [one for one in results if "error" not in one]
    broken = [one for one in judged if not one["works"]]
    whole = [one for one in judged if one["works"] and not one.get("elsewhere")]
    fixes = [one for one in broken if one.get("mended") is not None]

    def count(of: Sequence[Mapping[str, Any]], key: str) -> int:
        return sum(bool(one.get(key)) for one in of)

    sure = [one for one in broken if (one.get("confidence") or 0) >= SURE and not one["party"]]
    return [
        Figure('"healthy" although a controller cannot get in or is cut', count(broken, "healthy"),
               len(broken), 0),
        Figure("right party in the first finding", count(broken, "party"), len(broken), 95, True),
        Figure("right party and the exact thing", count(broken, "exact"), len(broken), 80, True),
        Figure(f"confidence at least {SURE:.0%} and wrong party", len(sure), len(broken), 1),
        Figure("fix of class yes offered and not mending",
               sum(not one["mended"] for one in fixes), len(fixes), 0),
        Figure("nothing broken, and a finding calls the link broken",
               sum(not one["healthy"] for one in whole), len(whole), 1),
    ]  # fmt: skip


def median_seconds(results: Iterable[Mapping[str, Any]]) -> float | None:
    """Half of the verdicts took no longer; None without any."""
    seconds = [one["seconds"] for one in results if "seconds" in one]
    return statistics.median(seconds) if seconds else None
