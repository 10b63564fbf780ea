"""What a controller and nginx disagree on before a byte of HTTP: versions, suites, certificates.

The machine has to be provisioned with ``machine.yml``. What a controller refuses is refused by a
real TLS library (the simulator's, or openssl's with another clock), not by a made-up alert.
"""

from __future__ import annotations

from typing import Any

from machines.faults.bench import WASH
from machines.faults.fault import (
    ROUTER_CLEAN,
    Fault,
    Step,
    controller,
    host,
    router_rule,
    server,
    well_behaved,
)
from machines.faults.proxy import UNDO, edit

URL = "wss://{server}/ptsWebSocket"
_NAMED = "wss://pts.example.test/ptsWebSocket --address {server}"
_PLAIN = "ws://{server}:443/ptsWebSocket"
#: The authority that the machine's controllers trust.
_TRUSTED = ("--ca", "{authority}/ca.pem")
_TRUSTS = "--ca {authority}/ca.pem"
_GOOD = well_behaved(URL, _TRUSTS)

_TLS = "/etc/ptslink/tls"
_RELOAD = "nginx -t -q && systemctl reload nginx && sleep 0.7"


def device(more: str = "", url: str = URL, seconds: int = 30) -> Step:
    """A controller that tries again each half second."""
    return controller(
        f"{{simulate}} {url} --duration {seconds} --timeout 3 --reconnect 0.5 {more}",
        background=True,
    )


#: So that a controller fails often enough to be taken seriously.
WAIT = host("sleep 4")


def make(kind: str) -> Step:
    """Certificates wrong in one way, in the scratch directory; see support.faulty_pairs."""
    return host(
        f"PYTHONPATH={{root}}/tests {{python}} -m support.faulty_pairs {kind} {{work}}/{kind} "
        "{authority} {server} pts.example.test"
    )


def lay(kind: str) -> tuple[Step, ...]:
    """What *make* made lies on the machine as the generation in force; nginx does not know yet."""
    return (
        make(kind),
        host(
            f"tar -C {{work}}/{kind} -c rsa.pem rsa.key ecdsa.pem ecdsa.key | {{enter}} sh -c '"
            f"mkdir -p {_TLS}/generations/{kind} && tar -C {_TLS}/generations/{kind} -x'"
        ),
        server(
            f"test -e /run/doctor/live || readlink {_TLS}/live > /run/doctor/live && "
            f"touch {_TLS}/generations/{kind} && ln -sfn generations/{kind} {_TLS}/live"
        ),
    )


def serve(kind: str) -> tuple[Step, ...]:
    """The same, as a renewal would: nginx was reloaded."""
    return (*lay(kind), server(_RELOAD))


def put_back(*kinds: str) -> tuple[Step, ...]:
    """The machine's own certificates are in force again."""
    gone = " ".join(f"{_TLS}/generations/{kind}" for kind in kinds)
    return (
        server(
            f"ln -sfn $(cat /run/doctor/live) {_TLS}/live && rm -rf /run/doctor/live {gone} && "
            f"{_RELOAD}"
        ),
        WASH,
    )


def openssl(clock: int) -> Step:
    """A controller whose clock says *clock*, epoch seconds, and that checks certificates by it."""
    return controller(
        "for n in 1 2 3 4 5 6; do timeout 3 openssl s_client -connect {server}:443 -tls1_2 "
        f"-CAfile {{authority}}/ca.pem -verify_return_error -attime {clock} </dev/null "
        ">/dev/null 2>&1; sleep 0.5; done",
        may_fail=True,
    )


def seen(
    id_: str, variant: str, *steps: Step, undo: tuple[Step, ...] = (WASH,), **more: Any
) -> Fault:
    """A row examined on the server, while a controller tries; its twin's controller trusts the
    authority."""
    more = {"url": URL, "twin": _GOOD, **more}
    return Fault(id_, (*steps, WAIT), undo, vantages=("server",), variant=variant, **more)


def tried(
    id_: str, variant: str, *steps: Step, undo: tuple[Step, ...] = (WASH,), **more: Any
) -> Fault:
    """A row examined from the site, by the link itself, and on the server."""
    more = {"url": URL, "site_options": _TRUSTED, **more}
    return Fault(id_, steps, undo, variant=variant, **more)


#: What the internet sends to every open port: one kind of handshake after the other.
_SCAN = controller(
    "for n in 1 2; do for kind in '-tls1_1 -cipher ALL:@SECLEVEL=0' '-tls1_2 -cipher "
    "ARIA128-GCM-SHA256' '-tls1 -cipher ALL:@SECLEVEL=0' '-tls1_2 -cipher CAMELLIA128-SHA'; do "
    "timeout 3 openssl s_client -connect {server}:443 $kind </dev/null >/dev/null 2>&1; done; "
    "curl -s -o /dev/null http://{server}:443/; sleep 1; done",
    may_fail=True,
)
#: One kind of key less.
_ECDSA_ALONE = edit("/rsa[.]/d")
_OWN_SUITES = "s/ssl_ciphers .*/ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;/"
#: A stranger's server block is the default of the port, ours has a name.
_NAMED_ALONE = (
    "s/listen \\(.*443 ssl\\) default_server/listen \\1/",
    "s/server_name .*/server_name pts.example.test;/",
)
_NAMELESS_REFUSED = edit(
    *_NAMED_ALONE,
    "$a server { listen 443 ssl default_server; listen [::]:443 ssl default_server; "
    "ssl_reject_handshake on; }",
)
_NAMELESS_ELSEWHERE = (
    server("openssl req -x509 -newkey rsa:2048 -nodes -keyout /run/doctor/k.pem "
           "-out /run/doctor/c.pem -days 2 -subj /CN=elsewhere.example.test 2>/dev/null"),
    edit(
        *_NAMED_ALONE,
        "$a server { listen 443 ssl default_server; listen [::]:443 ssl default_server; "
        "ssl_certificate /run/doctor/c.pem; ssl_certificate_key /run/doctor/k.pem; "
        "error_log /var/log/nginx/error.log info; }",
    ),
)  # fmt: skip
_CLIENTS_CERTIFIED = edit(
    f"s#ssl_prefer_server_ciphers on;#ssl_verify_client on; ssl_client_certificate {_TLS}/live/"
    "rsa.pem;#"
)
#: A controller with little memory, and RSA alone.
_SMALL = "--misbehave tls-ecdsa-cert-rsa-client --misbehave tls-record-too-large=4096"
_YEAR_2000, _YEAR_2040 = 946_684_800, 2_208_988_800

FAULTS = (
    tried("tls-plain-client-to-tls-port", "", url=_PLAIN, twin_url=URL),
    seen("tls-plain-client-to-tls-port", "from the server", device(url=_PLAIN)),
    tried("tls-client-to-plain-port", "", url="wss://{server}:80/ptsWebSocket",
          twin_url="ws://{server}:80/ptsWebSocket"),
    tried("tls-client-to-plain-port", "direct", url="wss://{server}:3000/ptsWebSocket",
          twin_url="ws://{server}:3000/ptsWebSocket"),
    seen("tls-client-to-plain-port", "from the server",
         device(url="wss://{server}:80/ptsWebSocket"),
         twin=well_behaved("ws://{server}:80/ptsWebSocket")),
    seen("tls-client-version-too-old", "from the server",
         device("--misbehave tls-client-version-too-old")),
    tried("tls-client-version-too-old", "behind the address of the doctor",
          device("--misbehave tls-client-version-too-old"), WAIT,
          twin=_GOOD),
    tried("tls-client-version-too-old", "a scanner", _SCAN, healthy=True),
    seen("tls-seclevel-mismatch", "",
         edit("s/ssl_protocols .*/ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;/"),
         device("--misbehave tls-seclevel-mismatch"), undo=UNDO),
    tried("tls-server-min-too-high", "", edit("s/ssl_protocols .*/ssl_protocols TLSv1.3;/"),
          undo=UNDO),
    seen("tls-server-min-too-high", "from the server",
         edit("s/ssl_protocols .*/ssl_protocols TLSv1.3;/"), device(), undo=UNDO),
    seen("tls-ecdsa-cert-rsa-client", "", _ECDSA_ALONE,
         device("--misbehave tls-ecdsa-cert-rsa-client"), undo=UNDO),
    tried("tls-ecdsa-cert-rsa-client", "behind the address of the doctor", _ECDSA_ALONE,
          device("--misbehave tls-ecdsa-cert-rsa-client"), WAIT, undo=UNDO,
          twin=_GOOD),
    tried("tls-ecdsa-cert-rsa-client", "controllers that know ECDSA", _ECDSA_ALONE, device(),
          WAIT, undo=UNDO, healthy=True),
    seen("tls-no-shared-cipher", "", edit(_OWN_SUITES),
         device("--misbehave tls-no-shared-cipher"), undo=UNDO),
    tried("tls-no-shared-cipher", "behind the address of the doctor", edit(_OWN_SUITES),
          device("--misbehave tls-no-shared-cipher"), WAIT, undo=UNDO,
          twin=_GOOD),
    tried("tls-cert-expired", "", *serve("expired"), undo=put_back("expired")),
    seen("tls-cert-expired", "from the server", *serve("expired"), device(_TRUSTS),
         undo=put_back("expired")),
    tried("tls-cert-expired", "renewed, not reloaded", *serve("expired"), *lay("fresh"),
          undo=put_back("expired", "fresh")),
    tried("tls-untrusted-ca", "", site_options=(), twin_options=_TRUSTED),
    seen("tls-untrusted-ca", "from the server", make("other-authority"),
         device("--ca {work}/other-authority/ca.pem")),
    seen("tls-root-rotated", "another authority", *serve("other-authority"), device(_TRUSTS),
         device("--ca {work}/other-authority/ca.pem"), undo=put_back("other-authority")),
    seen("tls-root-rotated", "of the same name", *serve("authority-anew"), device(_TRUSTS),
         device("--ca {work}/authority-anew/ca.pem"), undo=put_back("authority-anew")),
    tried("tls-root-rotated", "renewed, the same authority", *serve("fresh"), device(_TRUSTS),
          undo=put_back("fresh"), healthy=True),
    tried("tls-name-mismatch", "", *serve("other-name"), undo=put_back("other-name")),
    seen("tls-name-mismatch", "from the server", *serve("other-name"), device(_TRUSTS),
         undo=put_back("other-name")),
    seen("tls-device-clock", "", device(_TRUSTS), device("--misbehave tls-device-clock")),
    seen("tls-device-clock", "behind: 2000", openssl(_YEAR_2000)),
    seen("tls-device-clock", "ahead: 2040", openssl(_YEAR_2040)),
    tried("tls-sni-missing", "", _NAMELESS_REFUSED, undo=UNDO),
    seen("tls-sni-missing", "from the server", _NAMELESS_REFUSED,
         device(f"--misbehave tls-sni-missing {_TRUSTS}", url=_NAMED), undo=UNDO),
    seen("tls-sni-missing", "another certificate", *_NAMELESS_ELSEWHERE,
         device(f"--misbehave tls-sni-missing {_TRUSTS}", url=_NAMED), undo=UNDO),
    tried("tls-sni-missing", "another certificate, an address dialled", *_NAMELESS_ELSEWHERE,
          undo=UNDO),
    tried("tls-mtls-required", "", _CLIENTS_CERTIFIED, undo=UNDO),
    seen("tls-mtls-required", "from the server", _CLIENTS_CERTIFIED, device(_TRUSTS), undo=UNDO),
    seen("tls-record-too-large", "a long chain", *serve("long-chain"), device(_SMALL),
         undo=put_back("long-chain")),
    seen("tls-record-too-large", "without a word", *serve("long-chain"), device(f"{_SMALL},silent"),
         undo=put_back("long-chain")),
    tried("tls-record-too-large", "controllers with room", *serve("long-chain"), device(_TRUSTS),
          WAIT, undo=put_back("long-chain"), healthy=True),
    tried("l3-mtu-blackhole", "at the certificate", *serve("long-chain"),
          router_rule("iifname wan oifname lan tcp sport 443 meta length > 1000 drop"),
          undo=(ROUTER_CLEAN, *put_back("long-chain"))),
)  # fmt: skip
