"""What a controller asks for: simulators that deviate, direct and through nginx."""

from __future__ import annotations

from machines.faults.bench import WASH
from machines.faults.fault import Fault, Step, controller, host, server

_TOML = "/etc/ptslink/ptslink.toml"
_KEPT = "/run/doctor/toml.kept"
_RESTART = "systemctl restart ptslink && sleep 1"

STRICT = server(f'cp {_TOML} {_KEPT} && sed -i \'s/"lenient"/"strict"/\' {_TOML} && {_RESTART}')
UNDO_CONFIG = server(f"cat {_KEPT} > {_TOML} && {_RESTART}")


def config(table: str, line: str) -> Step:
    """A line in a table of the service's configuration, in its old one's place, in force."""
    key = line.split()[0]
    return server(
        f"cp {_TOML} {_KEPT} && sed -i '/^{key} *=/d' {_TOML} && "
        f"if grep -q '^\\[{table}\\]' {_TOML}; "
        f"then sed -i '/^\\[{table}\\]/a {line}' {_TOML}; "
        f"else printf '\\n[{table}]\\n%s\\n' '{line}' >> {_TOML}; fi && {_RESTART}"
    )


def station(misbehaviour: str, seconds: int = 12, port: int = 3000, more: str = "") -> Step:
    """A controller that deviates and tries again each second."""
    return controller(
        f"{{simulate}} ws://{{server}}:{port}/ptsWebSocket --misbehave {misbehaviour} "
        f"--duration {seconds} --timeout 3 {more}",
        background=True,
    )


def row(misbehaviour: str, *before: Step, undo: tuple[Step, ...] = (), **more: object) -> Fault:
    """A deviating controller, seen from the server while it tries."""
    port = 80 if more.pop("proxied", False) else 3000
    fault = misbehaviour.partition("=")[0]
    wait = host(f"sleep {more.pop('wait', 4)}")
    return Fault(
        fault,
        (*before, station(misbehaviour, port=port), wait),
        (*undo, WASH),
        vantages=("server",),
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


FAULTS = (
    row("hs-wrong-path=/nowhere"),
    row("hs-wrong-path=/nowhere", proxied=True, variant="through nginx"),
    row("hs-uri-no-slash", proxied=True, variant="through nginx"),
    row("hs-bad-key=missing"),
    row("hs-bad-key", STRICT, undo=(UNDO_CONFIG,), variant="strict"),
    row("hs-bad-version"),
    row("hs-bad-version", proxied=True, variant="through nginx"),
    row("hs-device-no-connection", STRICT, undo=(UNDO_CONFIG,)),
    row("hs-device-no-upgrade"),
    row("hs-device-no-upgrade", proxied=True, variant="through nginx"),
    row("hs-http10-device", STRICT, undo=(UNDO_CONFIG,)),
    # A lenient server takes lines that end in LF alone.
    row("hs-malformed-request", STRICT, undo=(UNDO_CONFIG,), variant="strict"),
    row("hs-malformed-request=body", variant="a body"),
    row("hs-malformed-request=garbage", variant="no HTTP"),
    row("hs-half-close-499", proxied=True, variant="through nginx"),
    row("hs-id-missing", config("controllers", 'allowed = ["AABBCCDDEEFF001122334455"]'),
        undo=(UNDO_CONFIG,)),
    row("hs-id-unknown", config("controllers", 'allowed = ["AABBCCDDEEFF001122334455"]'),
        undo=(UNDO_CONFIG,)),
    row("hs-auth-mismatch", config("controllers", 'users = { pump = "right" }'),
        undo=(UNDO_CONFIG,)),
    row("hs-slow-handshake", wait=10),
    Fault("hs-bad-accept",
          (server("cp /etc/nginx/conf.d/ptslink.conf /run/doctor/nginx.kept && sed -i "
                  "'/proxy_pass http/i proxy_hide_header Sec-WebSocket-Accept;' "
                  "/etc/nginx/conf.d/ptslink.conf && systemctl reload nginx && sleep 0.7"),),
          (server("cp /run/doctor/nginx.kept /etc/nginx/conf.d/ptslink.conf && "
                  "systemctl reload nginx && sleep 0.7"),)),
)  # fmt: skip
