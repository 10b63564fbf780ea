"""What a controller asks for: simulators that deviate, direct and through nginx."""

from __future__ import annotations

from machines.faults.bench import WASH
from machines.faults.fault import Fault, Step, controller, host, server, well_behaved

PROXIED = "ws://{server}/ptsWebSocket"
DIRECT = "ws://{server}:3000/ptsWebSocket"
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


def pinged_every(interval: int, timeout: int | None = None) -> Step:
    """The service pings each *interval* seconds (0: never), and waits as long for the answer."""
    wait = interval if timeout is None else timeout
    edits = f"-e 's/^ping_interval_seconds = .*/ping_interval_seconds = {interval}/'"
    if wait:
        edits += f" -e 's/^ping_timeout_seconds = .*/ping_timeout_seconds = {wait}/'"
    return server(f"cp {_TOML} {_KEPT} && sed -i {edits} {_TOML} && {_RESTART}")


def station(misbehaviour: str, seconds: int = 12, port: int = 3000, more: str = "") -> Step:
    """A controller that deviates and tries again each second."""
    return controller(
        f"{{simulate}} ws://{{server}}:{port}/ptsWebSocket --misbehave {misbehaviour} "
        f"--duration {seconds} --timeout 3 {more}",
        background=True,
    )


def row(
    misbehaviour: str,
    *setting: Step,
    variant: str = "",
    proxied: bool = False,
    wait: int = 4,
    twin: str = "",
) -> Fault:
    """A deviating controller, seen from the server while it tries; *setting* is how the server has
    to be for that, *twin* what a controller needs to get through all the same."""
    url = PROXIED if proxied else DIRECT
    return Fault(
        misbehaviour.partition("=")[0],
        (station(misbehaviour, port=80 if proxied else 3000), host(f"sleep {wait}")),
        (WASH,),
        vantages=("server",),
        variant=variant,
        url=url,
        setting=setting,
        clear=(UNDO_CONFIG, WASH) if setting else (),
        twin=well_behaved(url, twin),
    )  # fmt: skip


_LISTED = "AABBCCDDEEFF001122334455"
_LIST = config("controllers", f'allowed = ["{_LISTED}"]')

FAULTS = (
    row("hs-wrong-path=/nowhere"),
    row("hs-wrong-path=/nowhere", proxied=True, variant="through nginx"),
    row("hs-uri-no-slash", proxied=True, variant="through nginx"),
    row("hs-bad-key=missing"),
    row("hs-bad-key", STRICT, variant="strict"),
    row("hs-bad-version"),
    row("hs-bad-version", proxied=True, variant="through nginx"),
    row("hs-device-no-connection", STRICT),
    row("hs-device-no-upgrade"),
    row("hs-device-no-upgrade", proxied=True, variant="through nginx"),
    row("hs-http10-device", STRICT),
    # A lenient server takes lines that end in LF alone.
    row("hs-malformed-request", STRICT, variant="strict"),
    row("hs-malformed-request=body", variant="a body"),
    row("hs-malformed-request=garbage", variant="no HTTP"),
    row("hs-half-close-499", proxied=True, variant="through nginx"),
    row("hs-id-missing", _LIST, twin=f"--id {_LISTED}"),
    row("hs-id-unknown", _LIST, twin=f"--id {_LISTED}"),
    row("hs-auth-mismatch", config("controllers", 'users = { pump = "right" }'),
        twin="--login pump --password right"),
    # Three tries, each of which takes four seconds.
    row("hs-slow-handshake", wait=16),
    Fault("hs-bad-accept",
          (server("cp /etc/nginx/conf.d/ptslink.conf /run/doctor/nginx.kept && sed -i "
                  "'/proxy_pass http/i proxy_hide_header Sec-WebSocket-Accept;' "
                  "/etc/nginx/conf.d/ptslink.conf && systemctl reload nginx && sleep 0.7"),),
          (server("cp /run/doctor/nginx.kept /etc/nginx/conf.d/ptslink.conf && "
                  "systemctl reload nginx && sleep 0.7"),)),
)  # fmt: skip
