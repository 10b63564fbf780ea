"""Judging a request on the link path: may it become a WebSocket, and if not, why.

Rules come from RFC 6455 section 4.2.1 and, where the hardware departs from it, from the PTS-2
protocol reference. The ``strict`` profile is the RFC to the letter; ``lenient`` accepts the named
deviations and says each one it needed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ptslink.handshake import basic, signature
from ptslink.handshake.accept import accept_value
from ptslink.handshake.head import BARE_LF, BLANK_IN_NAME, Head
from ptslink.handshake.identity import Identity, identify
from ptslink.handshake.path import link_path

Profile = Literal["strict", "lenient"]

#: Leniencies, by the name they are logged under.
KEY_NOT_16_BYTES: Final = "key-not-16-bytes"
CONNECTION_WITHOUT_UPGRADE: Final = "connection-without-upgrade"
UPGRADE_LETTER_CASE: Final = "upgrade-letter-case"
HTTP_1_0: Final = "http-1.0"
MISSING_HOST: Final = "missing-host"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Rules:
    """What this deployment accepts.

    Attributes:
        path: the link path as configured, without a leading slash; shown in refusals.
        alternatives: other accepted paths.
        profile: ``strict`` or ``lenient``.
        subprotocols: the only sub-protocols ever echoed; empty means any that is offered.
        users: login -> password; empty means no authentication.
        allowed: controller ids in upper case; empty means any.
        secret: the handshake secret; empty means signatures are not looked at.
        secret_required: refuse an unsigned handshake when a secret is set.
    """

    path: str
    alternatives: tuple[str, ...] = ()
    profile: Profile = "lenient"
    subprotocols: tuple[str, ...] = ()
    users: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    secret: str = ""
    secret_required: bool = True
    paths: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        paths = (self.path, *self.alternatives)
        object.__setattr__(self, "paths", frozenset(link_path("/" + path) for path in paths))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one upgrade request.

    Attributes:
        status: 101 when accepted, else the HTTP status of the refusal.
        code: stable short name, ``accepted`` or the name of the fault.
        reason: one sentence for a person: what was wrong and what was expected.
        identity: who called.
        headers: headers the answer must carry besides the usual ones.
        notes: leniencies that were needed, and oddities seen.
    """

    status: int
    code: str
    reason: str
    identity: Identity
    headers: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def asks_to_upgrade(head: Head) -> bool:
    """Whether any part of the request shows that a WebSocket was wanted."""
    return (
        "websocket" in head.tokens("upgrade")
        or head.get("sec-websocket-key") is not None
        or head.get("sec-websocket-version") is not None
    )


def refuse_blanks(head: Head, rules: Rules) -> tuple[int, str, str] | None:
    """Lines that were left out for the blanks in their names, where the profile is strict, common
    to upgrades and uploads: (status, code, reason) or None."""
    if rules.profile != "strict" or BLANK_IN_NAME not in head.flaws:
        return None
    names = ", ".join(f"{name[:40]!r}" for name in head.blank_names())
    reason = f"Blanks in the name of a header line (RFC 9112 section 5.1): {names[:200]}."
    return (400, BLANK_IN_NAME, reason)


def refuse_identity(head: Head, identity: Identity, rules: Rules) -> tuple[int, str, str] | None:
    """Credentials and allow-list, common to upgrades and uploads: (status, code, reason) or None.

    The reason names no credential.
    """
    if rules.users and not basic.permitted(rules.users, head.get("authorization")):
        sent = head.get("authorization") is not None
        if (head.get("authorization") or "").partition(" ")[0].lower() == "digest":
            return (
                401,
                "digest-credentials",
                "The controller is set to Digest authentication, this server speaks Basic; choose"
                " Basic in the controller's settings of the remote server.",
            )
        return (
            401,
            "wrong-credentials" if sent else "missing-credentials",
            "The Basic credentials are not those of a user of this server."
            if sent
            else "This server expects Basic credentials; the request carried none.",
        )
    # A probe may see whether the link works; what it sends is not kept.
    if rules.allowed and identity.controller not in rules.allowed and not identity.probe:
        return (
            403,
            "controller-not-allowed",
            f"Controller {identity.controller or 'without an id'} is not on the allow-list.",
        )
    return None


def judge(head: Head, rules: Rules) -> Verdict:
    """Judge a request for the WebSocket link. Pure: the same head always gets the same verdict."""
    kin = head.kin
    if kin is None or rules.secret:  # a signature covers the key
        return _judge(head, rules)
    if kin.judged is None or kin.judged[0] is not rules:
        kin.judged = (rules, _judge(head, rules))
    known = kin.judged[1]
    assert isinstance(known, Verdict)
    if known.status != 101:
        return known
    accept = ("Sec-WebSocket-Accept", accept_value(head.get("sec-websocket-key") or ""))
    headers = tuple(accept if header[0] == accept[0] else header for header in known.headers)
    return Verdict(101, known.code, known.reason, known.identity, headers, known.notes)


def _judge(head: Head, rules: Rules) -> Verdict:
    identity = identify(head)
    notes: list[str] = list(identity.notes)

    def refuse(status: int, code: str, reason: str, *headers: tuple[str, str]) -> Verdict:
        return Verdict(status, code, reason, identity, headers, tuple(notes))

    blanks = refuse_blanks(head, rules)
    if blanks is not None:
        return refuse(*blanks)
    if BLANK_IN_NAME in head.flaws:
        notes.append(BLANK_IN_NAME)
    if link_path(head.target) not in rules.paths:
        return refuse(
            404,
            "wrong-path",
            f"The path {head.target[:100]} is not served; the link is at /{rules.path}.",
        )
    if head.method != "GET":
        return refuse(
            405,
            "wrong-method",
            f"A WebSocket handshake is a GET, not {head.method}.",
            ("Allow", "GET, HEAD, POST"),
        )
    upgrade = head.all("upgrade")
    if "websocket" not in head.tokens("upgrade"):
        wanted = asks_to_upgrade(head)
        return refuse(
            426,
            "upgrade-header-missing" if wanted else "upgrade-required",
            "The request has WebSocket headers but no 'Upgrade: websocket'; a proxy on the way "
            "probably removed it."
            if wanted
            else "This is a WebSocket endpoint; connect with an Upgrade request.",
            *UPGRADE_HEADERS,
        )
    strict = rules.profile == "strict"
    for name, status, reason in _deviations(head):
        if strict:
            return refuse(status, name, reason)
        notes.append(name)
    if not strict and not any("websocket" in value for value in upgrade):
        # RFC 6455 compares without regard to case, so strict accepts it as well, without a word.
        notes.append(UPGRADE_LETTER_CASE)
    if len(head.all("host")) > 1:
        return refuse(400, "repeated-host", "The request has more than one Host header.")
    fault = _version_fault(head) or _key_fault(head)
    if fault is not None:
        return refuse(*fault)
    key = head.get("sec-websocket-key") or ""
    if not _is_16_bytes(key):
        if strict:
            return refuse(
                400, KEY_NOT_16_BYTES, "Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455 4.1)."
            )
        notes.append(KEY_NOT_16_BYTES)
    if (head.get("content-length") or "0") != "0" or head.get("transfer-encoding") is not None:
        return refuse(400, "handshake-with-body", "A WebSocket handshake must not carry a body.")
    denied = refuse_identity(head, identity, rules)
    if denied is not None:
        status, code, reason = denied
        challenge = (("WWW-Authenticate", 'Basic realm="ptslink"'),) if status == 401 else ()
        return refuse(status, code, reason, *challenge)
    denied = _signature_fault(head, rules)
    if denied is not None:
        return refuse(*denied)
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_value(key)),
    ]
    chosen = choose_subprotocol(head, rules)
    if chosen is not None:
        headers.append(("Sec-WebSocket-Protocol", chosen))
    notes.extend(flaw for flaw in head.flaws if flaw not in notes)
    return Verdict(101, "accepted", "Accepted.", identity, tuple(headers), tuple(notes))


#: What every 426 carries (RFC 9110 section 15.5.22, RFC 6455 section 4.2.2).
UPGRADE_HEADERS: Final = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
)


def choose_subprotocol(head: Head, rules: Rules) -> str | None:
    """The sub-protocol to answer with: the first acceptable one that was offered, or None.

    Answering one that was not offered would break a correct client (RFC 6455 section 4.1).
    """
    for value in head.all("sec-websocket-protocol"):
        for part in value.split(","):
            offered = part.strip()
            if not _TOKEN.fullmatch(offered):
                continue
            if not rules.subprotocols or offered in rules.subprotocols:
                return offered
    return None


Fault = tuple[int, str, str]


def _deviations(head: Head) -> list[tuple[str, int, str]]:
    """What departs from RFC 6455 and may be forgiven: name, status and reason, in order."""
    found = []
    if head.version == "1.0":
        found.append((HTTP_1_0, 505, "A WebSocket handshake needs HTTP/1.1, not 1.0."))
    if BARE_LF in head.flaws:
        found.append((BARE_LF, 400, "A line of the request ends in LF without CR."))
    if head.version != "1.0" and not head.get("host"):
        reason = "The request has no Host header (RFC 9112 section 3.2)."
        found.append((MISSING_HOST, 400, reason))
    if "upgrade" not in head.tokens("connection"):
        reason = "The Connection header does not contain 'Upgrade' (RFC 6455 section 4.2.1)."
        found.append((CONNECTION_WITHOUT_UPGRADE, 400, reason))
    return found


def _version_fault(head: Head) -> tuple[int, str, str, *tuple[tuple[str, str], ...]] | None:
    versions = head.tokens("sec-websocket-version")
    if versions == ["13"]:
        return None
    if not versions:
        reason = "Sec-WebSocket-Version is missing; 13 is spoken here."
        return (426, "version-missing", reason, *UPGRADE_HEADERS)
    reason = f"Sec-WebSocket-Version {', '.join(versions)[:40]} is not spoken here; 13 is."
    return (426, "version-unsupported", reason, *UPGRADE_HEADERS)


def _key_fault(head: Head) -> Fault | None:
    keys = head.all("sec-websocket-key")
    if not keys or not keys[0]:
        return (400, "key-missing", "Sec-WebSocket-Key is missing or empty.")
    if len(keys) > 1:
        return (400, "key-repeated", "Sec-WebSocket-Key appears more than once.")
    return None


def _signature_fault(head: Head, rules: Rules) -> Fault | None:
    if not rules.secret:
        return None
    sent = head.get("x-data-signature")
    if sent is None:
        if not rules.secret_required:
            return None
        return (401, "signature-missing", "A secret key is set here; the handshake is not signed.")
    covered = signature.signed_part(head.raw)
    if covered is None:
        return (401, "signature-without-datetime", "X-Data-Signature came without X-DateTime.")
    if not signature.verify(rules.secret, covered, sent):
        return (
            401,
            "signature-wrong",
            "X-Data-Signature does not match: the secret keys differ, or a proxy changed the head.",
        )
    return None


def _is_16_bytes(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
