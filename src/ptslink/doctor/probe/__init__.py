"""The link probe. Standard library only, Python 3.11 or newer.

    from ptslink.doctor.probe import probe_link
    result = probe_link("ws://192.0.2.1:3000/ptsWebSocket")
    assert result.ok, result.cause

The pure parts are ``target``, ``request``, ``response`` and ``frames``; ``stream`` is the only
one that opens sockets; ``link`` walks the steps.
"""

from ptslink.doctor.probe.link import ProbeOptions, probe_link
from ptslink.doctor.probe.request import PROBE_ID_PREFIX
from ptslink.doctor.probe.result import LinkResult, Step, link_result_from_json
from ptslink.doctor.probe.target import TargetError

__all__ = [
    "PROBE_ID_PREFIX",
    "LinkResult",
    "ProbeOptions",
    "Step",
    "TargetError",
    "link_result_from_json",
    "probe_link",
]
