"""HTTP upload mode: the same messages by POST (PTS-2 protocol 2.5)."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from ptslink.handshake import signature
from ptslink.handshake.answer import document
from ptslink.handshake.head import Head
from ptslink.handshake.identity import Identity
from ptslink.handshake.judge import Rules
from ptslink.journal.entry import Clock, Entry, Journal, Transport
from ptslink.journal.filing import file
from ptslink.jsonpts.confirmation import confirm, expects_answer, refuse
from ptslink.jsonpts.envelope import decode
from ptslink.server.intake import Intake
from ptslink.server.seam import Answer, Peer

_HEADERS: Final = (("Content-Type", "application/json; charset=utf-8"),)


def signature_fault(head: Head, body: bytes, rules: Rules) -> tuple[str, str] | None:
    """What is wrong with an upload's signature: (code, reason), or None.

    The signature covers the body's bytes as received, a trailing CRLF included. The controller
    sends UploadConfiguration unsigned.
    """
    if not rules.secret:
        return None
    sent = head.get("x-data-signature")
    if sent is not None:
        if signature.verify(rules.secret, body, sent):
            return None
        return "signature-wrong", "X-Data-Signature does not match the body: the secrets differ."
    if not rules.secret_required:
        return None
    packets = decode(body).packets
    if packets and all(packet.type == "UploadConfiguration" for packet in packets):
        return None
    return "signature-missing", "A secret key is set here; the upload is not signed."


def take(
    peer: Peer,
    identity: Identity,
    body: bytes,
    *,
    journal: Journal,
    intake: Intake,
    remote: str,
    clock: Clock,
    secret: str,
) -> tuple[Entry, Answer | None]:
    """File an upload; the peer is answered once it is durable, or now with an error.

    Args:
        remote: the sender's address.

    Returns:
        what was read of it, and the answer to one that is not taken.
    """
    entry = file(
        body,
        controller=identity.controller,
        clock=clock,
        received=time.time_ns() // 1_000_000,
        transport=Transport.HTTP,
        link=peer.number,
        settled=partial(_settled, peer, secret),
    )
    reason = intake.refusal(entry, remote)
    if reason is None:
        journal.append(entry)
        return entry, None
    packets = [refuse(packet, reason.text) for packet in entry.packets if expects_answer(packet)]
    if not packets:
        return entry, refusal(400, reason.code, reason.text)
    return entry, _answer(b",".join(packets), secret)


def _settled(peer: Peer, secret: str, entry: Entry) -> None:
    render = confirm if entry.stored else refuse
    packets = b",".join(render(packet) for packet in entry.packets if expects_answer(packet))
    peer.answer(_answer(packets, secret))


def nothing_taken(secret: str) -> Answer:
    """The answer to a probe's upload: well received, and none of it kept or confirmed."""
    return _answer(b"", secret)


def _answer(packets: bytes, secret: str) -> Answer:
    body = b'{"Protocol":"jsonPTS","Packets":[' + packets + b"]}"
    headers: tuple[tuple[str, str], ...] = _HEADERS
    if secret:
        # With a secret set, the controller rejects an answer that is not signed.
        headers = (*_HEADERS, ("X-Data-Signature", signature.sign(secret, body)))
    return Answer(200, headers, body)


def refusal(status: int, code: str, reason: str, *headers: tuple[str, str]) -> Answer:
    """The answer to an upload that is not taken."""
    content = {"error": code, "message": reason}
    return Answer(status, (("Content-Type", "application/json"), *headers), document(content))
