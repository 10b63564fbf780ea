"""The survey: what is tried on a link that works, and on one that fails, and what it shows."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Sequence

import pytest

from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.probe import probe_link
from ptslink.doctor.probe import survey as survey_module
from ptslink.doctor.probe.certificate import NotACertificateError, read_certificate
from ptslink.doctor.probe.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload
from ptslink.doctor.probe.survey import survey
from ptslink.doctor.probe.target import parse_target
from ptslink.doctor.verdict import judge
from support.ports import free_port
from unit.probe.conftest import Pair
from unit.probe.scripted import Peer, ScriptedServer, right

Serve = Callable[..., ScriptedServer]


@pytest.fixture(autouse=True)
def _short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "TRIAL_SECONDS", 0.4)


def pieces(url: str, **options: object) -> list[Evidence]:
    return list(survey(url, timeout=2, **options))  # type: ignore[arg-type]


def named(found: Sequence[Evidence], probe: str, **facts: object) -> list[Evidence]:
    return [
        piece
        for piece in found
        if piece.probe == probe and facts.items() <= dict(piece.facts).items()
    ]


def test_a_healthy_link_is_walked_once_and_only_a_large_message_added(serve: Serve) -> None:
    server = serve(right)
    found = pieces(server.url)
    assert {p.status for p in found} <= {Status.OK, Status.SKIPPED}
    assert named(found, "ws.large")[0].facts["steps"][-1]["bytes"] == 65536
    assert named(found, "http.upgrade", variation=True) == []
    server.stop()
    assert len(server.heads) == 3  # GET, the link, the large message
    [window] = named(found, "survey.window")
    assert window.facts["from"] <= window.facts["to"] <= time.time() + 0.001


def test_the_network_card_is_looked_at_where_that_is_allowed(serve: Serve) -> None:
    server = serve(right)
    [card] = named(pieces(server.url), "tcp.packets")
    if card.status is Status.SKIPPED:
        assert "it takes root" in card.seen or "only taken on Linux" in card.seen
    else:
        port = str(parse_target(server.url).port)
        assert card.facts["address"] == "127.0.0.1"
        assert card.facts["sent"][port] == 3  # GET, the link, the large message
        assert card.facts["answered"] == {port: 0}


def test_evidence_survives_json_and_names_its_vantage(serve: Serve) -> None:
    found = pieces(serve(right).url, vantage="control")
    assert all(p.vantage == "control" for p in found)
    for piece in found:
        text = json.dumps(piece.to_json())
        assert Evidence.from_json(json.loads(text)).to_json() == piece.to_json()


def test_the_large_message_is_never_finished_so_that_nothing_is_recorded(serve: Serve) -> None:
    seen: list[Frame] = []

    def watches(peer: Peer) -> None:
        if not peer.read_head():
            return
        if not peer.is_upgrade:
            peer.answer("426 Upgrade Required")
            return
        peer.accept()
        while (frame := peer.next_frame()) is not None:
            seen.append(frame)
            if frame.opcode == PING:
                peer.send_frame(Frame(PONG, frame.payload))
            elif frame.opcode == CLOSE:
                peer.send_frame(Frame(CLOSE, frame.payload))
                return

    found = pieces(serve(watches).url)
    assert named(found, "ws.large")[0].status is Status.OK
    data = [frame for frame in seen if frame.opcode in (TEXT, CONTINUATION)]
    assert sum(len(frame.payload) for frame in data) == 65536
    assert not any(frame.fin for frame in data)


def test_a_server_that_takes_no_large_message_fails_with_its_close_code(serve: Serve) -> None:
    def small(peer: Peer) -> None:
        if not peer.read_head():
            return
        if not peer.is_upgrade:
            peer.answer("426 Upgrade Required")
            return
        peer.accept()
        while (frame := peer.next_frame()) is not None:
            if len(frame.payload) > 8192:
                peer.send_frame(Frame(CLOSE, close_payload(1009, "too big")))
                peer.next_frame()
                return
            if frame.opcode in (PING, CLOSE):
                opcode = PONG if frame.opcode == PING else CLOSE
                peer.send_frame(Frame(opcode, frame.payload))

    [large] = named(pieces(serve(small).url), "ws.large")
    assert large.status is Status.FAILED
    assert (large.facts["at_bytes"], large.facts["code"]) == (65536, 1009)
    assert [step["bytes"] for step in large.facts["steps"]] == [4096]


def only(condition: Callable[[Peer], bool]) -> Callable[[Peer], None]:
    """A server that upgrades what fulfils *condition* and answers 400 to the rest."""

    def run(peer: Peer) -> None:
        if not peer.read_head():
            return
        if condition(peer):
            peer.accept()
            peer.serve_frames()
        else:
            peer.answer("400 Bad Request", "no")

    return run


@pytest.mark.parametrize(
    ("condition", "passing"),
    [
        (lambda p: p.header("Sec-WebSocket-Protocol") == "chat", {"subprotocol-chat"}),
        (lambda p: p.header("User-Agent") is not None and p.is_upgrade, {"user-agent"}),
        (lambda p: p.is_upgrade and p.header("Origin") is None, {"no-origin"}),
        (lambda p: p.is_upgrade and b"HTTP/1.0" in p.head, {"http-1.0"}),
        (lambda p: b"\r\nupgrade: " in p.head, {"lower-case-headers"}),
    ],
)
def test_where_the_upgrade_fails_each_deviation_is_tried_alone(
    serve: Serve, condition: Callable[[Peer], bool], passing: set[str]
) -> None:
    found = pieces(serve(only(condition)).url)
    [asked] = [p for p in named(found, "http.upgrade") if not p.facts.get("variation")]
    assert (asked.status, asked.facts["status"]) == (Status.FAILED, 400)
    varied = named(found, "http.upgrade", variation=True)
    assert {p.facts["tried"] for p in varied if p.status is Status.OK} == passing
    # A variation that fails does not break the link: it is never FAILED.
    assert all(p.status is not Status.FAILED for p in varied)


def test_where_each_answer_has_to_be_waited_for_nothing_more_is_tried(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(peer: Peer) -> None:
        if peer.read_head():
            time.sleep(0.2 if peer.is_upgrade else 0.0)
            peer.answer("504 Gateway Timeout")

    monkeypatch.setattr(survey_module, "LATE_SECONDS", 0.2)
    [skipped] = named(pieces(serve(late).url), "http.upgrade", variation=True)
    assert skipped.status is Status.SKIPPED


def test_another_path_that_is_served_is_found(serve: Serve) -> None:
    found = pieces(serve(only(lambda p: b"GET /jsonPTS HTTP" in p.head and p.is_upgrade)).url)
    served = [
        p.facts["path"] for p in named(found, "http.upgrade", tried="path") if p.status is Status.OK
    ]
    assert served == ["/jsonPTS"]


def test_a_path_that_is_not_there_leads_to_other_paths_and_sites_only(serve: Serve) -> None:
    def missing(peer: Peer) -> None:
        if peer.read_head():
            peer.answer("404 Not Found")

    varied = named(pieces(serve(missing).url), "http.upgrade", variation=True)
    assert {p.facts["tried"] for p in varied} == {"path", "host"}


def test_another_site_of_the_address_is_found_by_a_name_the_server_is_known_by(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getnameinfo", lambda *_: ("pts.example.test", "80"))

    def by_name(peer: Peer) -> None:
        peer.read_head()
        if not (peer.header("Host") or "").startswith("pts.example.test:"):
            return  # as nginx's "return 444" does
        peer.accept()
        peer.serve_frames()

    server = serve(by_name)
    found = pieces(server.url)
    [named_site] = named(found, "http.upgrade", tried="host")
    assert named_site.facts["status"] == 101
    assert named_site.facts["host"] == f"pts.example.test:{server.port}"
    assert named_site.status is Status.OK


def test_a_refusal_that_is_not_let_go_tells_how_long(serve: Serve) -> None:
    def holds(peer: Peer) -> None:
        peer.read_head()
        peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno")
        time.sleep(0.4)

    [asked] = [
        p
        for p in named(pieces(serve(holds).url, idle=5), "http.upgrade")
        if not p.facts.get("variation")
    ]
    assert (asked.facts["status"], asked.facts["held_ended"]) == (503, "fin")
    assert 0.3 <= asked.facts["held_seconds"] <= 2


def test_every_upgrade_of_a_survey_comes_as_whom_it_was_told_to_be(serve: Serve) -> None:
    def knows(peer: Peer) -> None:
        peer.read_head()
        peer.answer("403 Forbidden")

    server = serve(knows)
    pieces(server.url, controller_id="00AB", credentials="station:secret")
    server.stop()
    upgrades = [head for head in server.heads if "upgrade:" in head.lower()]
    assert len(upgrades) > 5
    for head in upgrades:
        assert "authorization: basic c3rhdglvbjpzzwnyzxq=" in head.lower()
    # One deviation leaves the id out on purpose.
    assert sum("x-pts-id: 00ab" in head.lower() for head in upgrades) == len(upgrades) - 1


def after_101(script: Callable[[Peer], None]) -> Callable[[Peer], None]:
    def run(peer: Peer) -> None:
        if not peer.read_head():
            return
        if not peer.is_upgrade:
            peer.answer("426 Upgrade Required")
            return
        peer.accept()
        script(peer)

    return run


def test_a_close_before_its_time_is_shown_with_code_reason_and_age(serve: Serve) -> None:
    def replaced(peer: Peer) -> None:
        peer.send_frame(Frame(CLOSE, close_payload(4000, "replaced")))
        peer.serve_frames()

    [close] = [p for p in named(pieces(serve(after_101(replaced)).url), "ws.close") if p.facts]
    assert close.status is Status.FAILED
    assert (close.facts["code"], close.facts["reason"]) == (4000, "replaced")
    assert close.facts["after_seconds"] < 5


def test_an_end_without_a_close_is_shown_as_fin_or_rst(serve: Serve) -> None:
    def gone(peer: Peer) -> None:
        peer.next_frame()
        peer.reset()

    [close] = [p for p in named(pieces(serve(after_101(gone)).url), "ws.close") if p.facts]
    assert close.facts["ended"] == "rst"


def test_what_the_server_says_unasked_is_kept(serve: Serve) -> None:
    def welcome(peer: Peer) -> None:
        peer.send_frame(Frame(TEXT, "Welcome, Тест".encode()))
        peer.serve_frames()

    [ping] = named(pieces(serve(after_101(welcome)).url), "ws.ping")
    assert ping.facts["unasked"] == ["Welcome, Тест"]


def test_an_idle_link_that_is_cut_says_how_and_when(serve: Serve) -> None:
    def cuts(peer: Peer) -> None:
        for _ in range(2):
            frame = peer.next_frame()
            if frame is not None:
                peer.send_frame(Frame(PONG, frame.payload))

    [idle] = named(pieces(serve(after_101(cuts)).url, idle=1), "ws.idle")
    assert (idle.facts["seconds"], idle.facts["ended"]) == (1, "fin")
    assert idle.facts["after_seconds"] < 1


def test_a_banner_and_three_connects_are_taken_where_no_http_comes(serve: Serve) -> None:
    def ssh(peer: Peer) -> None:
        peer.send("SSH-2.0-OpenSSH_9.2\r\n")
        peer.read_head()

    found = pieces(serve(ssh).url)
    assert named(found, "tcp.banner")[0].facts["text"].startswith("SSH-2.0-OpenSSH_9.2")
    assert len(named(found, "tcp.again")[0].facts["attempts"]) == 3
    [asked] = [p for p in named(found, "http.upgrade") if not p.facts.get("variation")]
    assert bytes.fromhex(asked.facts["first_bytes"]).startswith(b"SSH-2.0")
    on_plain = named(found, "tls.offer", variant="tls-on-plain")[0]
    assert bytes.fromhex(on_plain.facts["first_bytes"]).startswith(b"SSH-2.0")


@pytest.mark.parametrize(("how", "ended"), [("fin", "fin"), ("rst", "rst")])
def test_how_an_unanswered_upgrade_ended_is_a_fact(serve: Serve, how: str, ended: str) -> None:
    def gone(peer: Peer) -> None:
        peer.read_head()
        if how == "rst":
            peer.reset()

    found = pieces(serve(gone).url)
    asked = named(found, "http.upgrade")[0]
    assert asked.facts["ended"] == ended
    assert {"scheme", "port", "path", "host", "at"} <= asked.facts.keys()


def test_a_refused_port_leads_to_the_others() -> None:
    found = pieces(f"ws://127.0.0.1:{free_port()}/x")
    [asked] = named(found, "tcp.connect")
    assert (asked.status, asked.facts["errno"]) == (Status.FAILED, "ECONNREFUSED")
    others = named(found, "tcp.port")
    assert {80, 443, 3000} <= {p.facts["port"] for p in others}
    assert all(p.facts["variation"] is True for p in others)


def test_another_port_that_answers_is_tried_with_the_upgrade(
    serve: Serve, rsa_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, secure, silent = serve(right), serve(right, rsa_pair.context()), serve(lambda _: None)
    ports = [parse_target(one.url).port for one in (plain, secure, silent)]
    monkeypatch.setattr(survey_module, "PORTS", (*ports, free_port()))
    monkeypatch.setattr(survey_module, "TLS_PORTS", frozenset({ports[1]}))
    found = pieces(f"ws://127.0.0.1:{free_port()}/ptsWebSocket")
    tried = {p.facts["port"]: p for p in named(found, "http.upgrade", tried="port")}
    assert tried.keys() == set(ports)  # what refuses a connection is asked nothing
    assert all(p.facts["variation"] for p in tried.values())
    told = [(tried[port].facts.get("status"), tried[port].facts["scheme"]) for port in ports]
    assert told == [(101, "ws"), (101, "wss"), (None, "ws")]
    assert tried[ports[0]].seen == f"ws on port {ports[0]} in port: HTTP 101"
    [finding] = judge(Case("ws://h/", found), CAUSES).findings
    assert finding.id == "tcp-wrong-port"
    assert f"WebsocketsPort = {ports[0]}" in str(finding.fix.controller)


def test_a_name_that_does_not_resolve_leaves_nothing_to_try() -> None:
    found = pieces("ws://no-such-name.invalid:3000/x")
    assert named(found, "dns.resolve")[0].status is Status.FAILED
    assert named(found, "tcp.port")[0].status is Status.SKIPPED


# TLS.


def test_the_certificate_is_read_though_nobody_vouches_for_it(serve: Serve, rsa_pair: Pair) -> None:
    found = pieces(serve(right, rsa_pair.context()).url)
    [asked] = named(found, "tls.handshake")
    assert asked.status is Status.FAILED
    [certificate] = named(found, "tls.certificate")
    facts = certificate.facts
    assert facts["subject"] == "O = Station, CN = pts.example.test"
    assert facts["sans"] == ["DNS:pts.example.test", "IP Address:127.0.0.1"]
    assert (facts["key"], facts["key_bits"], facts["serial"]) == ("rsa", 2048, "1234")
    assert facts["not_before"] < time.time() < facts["not_after"]
    assert facts["verify"] == 18  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    assert facts["chain_bytes"] == [len(rsa_pair.der)]


def test_with_its_ca_the_tls_link_is_healthy_and_each_offer_is_tried(
    serve: Serve, rsa_pair: Pair
) -> None:
    found = pieces(serve(right, rsa_pair.context()).url, ca=rsa_pair.pem)
    assert not [p for p in found if p.status is Status.FAILED]
    offers = {p.facts["variant"]: p for p in named(found, "tls.offer")}
    assert set(offers) == {"tls1.2", "tls1.3", "no-sni", "rsa", "ecdsa", "legacy", "tls1.0"}
    assert offers["tls1.2"].facts["version"] == "TLSv1.2"
    assert offers["rsa"].facts["ok"] is True
    assert (offers["ecdsa"].facts["ok"], offers["ecdsa"].facts["alert"]) == (False, 40)
    assert offers["tls1.0"].facts["ok"] is False
    assert offers["tls1.0"].facts["alert"] in (70, 80)
    assert named(found, "tls.certificate")[0].facts["verify"] == 0


def test_an_ecdsa_certificate_refuses_rsa_clients_with_alert_40(
    serve: Serve, ecdsa_pair: Pair
) -> None:
    found = pieces(serve(right, ecdsa_pair.context()).url, ca=ecdsa_pair.pem)
    offers = {p.facts["variant"]: p.facts for p in named(found, "tls.offer")}
    assert (offers["rsa"]["alert"], offers["ecdsa"]["ok"]) == (40, True)
    facts = named(found, "tls.certificate")[0].facts
    assert (facts["key"], facts["key_bits"]) == ("ecdsa", 256)


def test_an_expired_certificate_is_shown_with_its_dates(serve: Serve, expired_pair: Pair) -> None:
    found = pieces(serve(right, expired_pair.context()).url, ca=expired_pair.pem)
    [certificate] = named(found, "tls.certificate")
    assert certificate.facts["not_after"] < certificate.facts["now"]
    assert certificate.facts["verify"] == 10  # X509_V_ERR_CERT_HAS_EXPIRED
    assert "expired 1 days ago" in certificate.seen


def test_a_tls_1_3_only_server_shows_alert_70_to_a_controllers_tls(
    serve: Serve, rsa_pair: Pair
) -> None:
    context = rsa_pair.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    found = pieces(serve(right, context).url, ca=rsa_pair.pem)
    offers = {p.facts["variant"]: p.facts for p in named(found, "tls.offer")}
    assert (offers["tls1.2"]["ok"], offers["tls1.2"]["alert"]) == (False, 70)
    assert offers["tls1.3"]["ok"] is True


def test_wss_to_a_plain_port_is_tried_plainly_too(serve: Serve) -> None:
    server = serve(right)
    found = pieces(server.url.replace("ws://", "wss://"))
    assert named(found, "tls.handshake")[0].status is Status.FAILED
    [plain] = named(found, "http.upgrade", tried="plain-on-tls")
    assert (plain.facts["status"], plain.facts["scheme"]) == (101, "ws")


def test_where_plain_http_answers_a_client_hello_no_offer_is_tried(serve: Serve) -> None:
    def plain(peer: Peer) -> None:
        peer.sock.recv(4096)
        peer.answer("400 Bad Request")

    found = pieces(serve(plain).url.replace("ws://", "wss://"))
    [handshake] = named(found, "tls.handshake")
    assert handshake.facts["reason"] == "WRONG_VERSION_NUMBER"
    assert [p.status for p in named(found, "tls.offer")] == [Status.SKIPPED]


def test_ws_to_a_tls_port_is_tried_with_tls_too(serve: Serve, rsa_pair: Pair) -> None:
    server = serve(right, rsa_pair.context())
    found = pieces(server.url.replace("wss://", "ws://"))
    [offer] = named(found, "tls.offer", variant="tls-on-plain")
    assert offer.facts["ok"] is True


def test_the_link_probe_verifies_by_a_ca_and_accepts_any_when_told(
    serve: Serve, rsa_pair: Pair
) -> None:
    server = serve(right, rsa_pair.context())
    distrusted = probe_link(server.url, timeout=2)
    assert "self-signed certificate" in str(distrusted.cause)
    assert distrusted.step("tls").facts["verify_code"] == 18
    assert probe_link(server.url, timeout=2, ca=rsa_pair.pem).ok
    assert probe_link(server.url, timeout=2, insecure=True).ok
    wrong = probe_link(server.url, timeout=2, ca=rsa_pair.pem, server_name="other.example.test")
    assert wrong.step("tls").facts["verify_code"] == 62  # X509_V_ERR_HOSTNAME_MISMATCH


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x03\x02\x01\x05", b"not DER at all"])
def test_what_is_no_certificate_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NotACertificateError):
        read_certificate(data)
