"""Certificates on the disk and on the wire, over what openssl really printed."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import certify

from ptslink.doctor.collect import nginx, service, tls
from ptslink.doctor.collect.edge import Output
from ptslink.doctor.evidence import Evidence, Status
from unit.doctor.fake_machine import FakeMachine
from unit.doctor.traces import CAPTURES, seen

CERTIFICATE, KEY = "/etc/ssl/pts.pem", "/etc/ssl/pts.key"
EXPIRED = certify("pts", names=["pts.example.test"], days=(-90, -30))

pytestmark = pytest.mark.usefixtures("configured")


def printed(name: str) -> str:
    return (CAPTURES / name).read_text()


def sites(
    certificate: str = CERTIFICATE, names: tuple[str, ...] = ("pts.example.test",)
) -> Evidence:
    settings = {"ssl_certificate": [certificate], "ssl_certificate_key": [KEY]}
    listen = [{"port": 443, "ssl": True}, {"port": 80, "ssl": False}]
    site = {"listen": listen, "names": list(names), "settings": settings}
    return seen("nginx.config", sites=[site])


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what nginx and the service are configured with."""

    def set_to(web: Evidence, **own: Any) -> None:
        monkeypatch.setattr(nginx, "configured", lambda _watch: web)
        monkeypatch.setattr(
            service, "configured", lambda _watch: seen("service.config", config=own)
        )

    set_to(sites())
    return set_to


def machine(**more: Any) -> FakeMachine:
    commands = {
        f"openssl x509 -in {CERTIFICATE} -noout -pubkey": Output("PUBLIC\n"),
        f"openssl pkey -in {KEY}": Output("PUBLIC\n"),
        "openssl s_client": Output(printed("openssl-s-client-ok.txt")),
    }
    return FakeMachine(
        commands | more.pop("commands", {}), {CERTIFICATE: EXPIRED.pem, **more}, root=True
    )


def gathered(host: FakeMachine, probe: str) -> list[Evidence]:
    return [piece for piece in tls.collect(host) if piece.probe == probe]


def test_a_certificate_on_the_disk_is_read_with_its_key_and_ports() -> None:
    (piece,) = gathered(machine(), "tls.disk")
    assert piece.status is Status.OK
    facts = piece.facts
    assert (facts["file"], facts["ports"], facts["key_matches"]) == (CERTIFICATE, [443], True)
    assert facts["not_after"] < facts["now"]
    assert facts["not_after"] == EXPIRED.certificate.not_valid_after_utc.timestamp()
    assert (facts["key"], facts["key_bits"], facts["sans"]) == (
        "ecdsa", 256, ["DNS:pts.example.test"]
    )  # fmt: skip
    assert piece.seen == f"{CERTIFICATE}: CN = pts, ecdsa, expired 30 days ago"


def test_a_key_that_is_anothers_is_told() -> None:
    host = machine(commands={f"openssl pkey -in {KEY}": Output("ANOTHER\n")})
    assert gathered(host, "tls.disk")[0].facts["key_matches"] is False


def test_a_key_that_cannot_be_read_is_no_mismatch() -> None:
    host = machine(commands={f"openssl pkey -in {KEY}": Output("", 1, "", "Permission denied")})
    assert gathered(host, "tls.disk")[0].facts["key_matches"] is None


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "there is no certificate in it"),
     ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a certificate")],
)  # fmt: skip
def test_what_is_not_a_certificate_fails_and_says_so(text: str, why: str) -> None:
    (piece,) = gathered(machine(**{CERTIFICATE: text}), "tls.disk")
    assert piece.status is Status.FAILED
    assert why in piece.facts["error"]


@pytest.mark.parametrize(
    ("exists", "root", "status", "error"),
    [(False, True, Status.FAILED, "missing"), (True, True, Status.FAILED, "may not be read"),
     (True, False, Status.SKIPPED, None)],
)  # fmt: skip
def test_an_unreadable_file_is_a_fault_only_where_it_ought_to_be_readable(
    configured: Any, tmp_path: Path, exists: bool, root: bool, status: Status, error: str | None
) -> None:
    file = tmp_path / "pts.pem"
    if exists:
        file.touch()
    configured(sites(str(file)))
    host = FakeMachine(root=root)
    (piece,) = gathered(host, "tls.disk")
    assert (piece.status, piece.facts.get("error")) == (status, error)


def test_a_certificate_named_by_a_variable_is_left_alone(configured: Any) -> None:
    configured(sites("/etc/ssl/$ssl_server_name.pem"))
    assert gathered(machine(), "tls.disk")[0].status is Status.SKIPPED


def test_the_port_is_asked_with_the_sites_own_name_and_in_every_variant() -> None:
    host = machine()
    (served,) = gathered(host, "tls.served")
    assert served.status is Status.OK
    assert served.facts["ok"]
    assert (served.facts["port"], served.facts["key"]) == (443, "rsa")
    assert len(served.facts["chain"]) == 1
    asked = [line for line in host.ran if line.startswith("openssl s_client")]
    assert len(asked) == 1 + len(tls.VARIANTS)
    assert all("127.0.0.1:443" in line for line in asked)
    assert sum("-servername pts.example.test" in line for line in asked) == len(tls.VARIANTS)
    assert [line for line in asked if "-noservername" in line]


def test_a_refused_handshake_is_unknown_and_keeps_the_alert() -> None:
    refused = Output(printed("openssl-s-client-nocipher.txt"), 1)
    offers = gathered(machine(commands={"openssl s_client": refused}), "tls.offer")
    assert {piece.status for piece in offers} == {Status.UNKNOWN}
    assert {piece.facts["variation"] for piece in offers} == {True}
    assert {piece.facts["alert"] for piece in offers} == {40}


def test_each_kind_of_client_is_told_with_the_certificate_it_was_shown() -> None:
    offers = gathered(machine(), "tls.offer")
    (served,) = gathered(machine(), "tls.served")
    assert {piece.facts["fingerprint"] for piece in offers} == {served.facts["fingerprint"]}
    refused = Output(printed("openssl-s-client-nosni.txt"), 1)
    offers = gathered(machine(commands={"openssl s_client": refused}), "tls.offer")
    assert {piece.facts["fingerprint"] for piece in offers} == {None}


def test_without_openssl_the_wire_is_skipped() -> None:
    host = machine()
    del host.commands["openssl s_client"]
    (piece,) = [p for p in tls.collect(host) if p.probe in ("tls.served", "tls.offer")]
    assert (piece.status, piece.seen) == (Status.SKIPPED, "openssl is not installed")


def test_no_tls_is_no_fault(configured: Any) -> None:
    configured(seen("nginx.config", sites=[]))
    (piece,) = tls.collect(machine())
    assert piece.status is Status.SKIPPED


def test_the_services_own_tls_port_is_looked_at_too(configured: Any) -> None:
    own = {"port": 3443, "rsa_certificate": CERTIFICATE, "rsa_key": KEY}
    configured(seen("nginx.config", sites=[]), tls=own)
    host = machine()
    assert gathered(host, "tls.disk")[0].facts["ports"] == [3443]
    assert any("127.0.0.1:3443" in line for line in host.ran)


def test_a_chain_is_told_with_its_dates_and_whose_key_signed_it() -> None:
    root = certify("Root")
    between = certify("Between", root)
    leaf = certify("pts", between, names=["pts.example.test"])
    (piece,) = gathered(machine(**{CERTIFICATE: leaf.pem + between.pem}), "tls.disk")
    chain = piece.facts["chain"]
    assert [one["issuer"] for one in chain] == ["CN = Between", "CN = Root"]
    keys = [one["authority_key"] for one in chain]
    assert len(set(keys)) == 2
    assert all(len(key) == 40 for key in keys)
    assert chain[0]["not_after"] == leaf.certificate.not_valid_after_utc.timestamp()
    assert piece.facts["chain_bytes"] == [
        len(ssl.PEM_cert_to_DER_cert(party.pem)) for party in (leaf, between)
    ]
    assert piece.facts["before"] is None


def generation(store: Path, name: str, at: float) -> Path:
    """A generation of our store that was put in force at *at*."""
    place = store / "generations" / name
    place.mkdir(parents=True)
    (place / "rsa.pem").write_text("")
    os.utime(place, (at, at))
    return place / "rsa.pem"


def test_what_a_generation_took_the_place_of_is_the_one_in_force_before(tmp_path: Path) -> None:
    generation(tmp_path, "oldest", 1e9)
    before = generation(tmp_path, "before", 2e9)
    generation(tmp_path, "now", 3e9)
    generation(tmp_path, ".partial", 4e9)
    live = tmp_path / "live"
    live.symlink_to("generations/now")
    assert tls.replaced(live / "rsa.pem") == (before, 3e9)


def test_what_certbot_renewed_is_the_number_before(tmp_path: Path) -> None:
    archive, live = tmp_path / "archive" / "pts", tmp_path / "live" / "pts"
    for place in (archive, live):
        place.mkdir(parents=True)
    for number in (9, 10):
        (archive / f"fullchain{number}.pem").touch()
    os.utime(archive / "fullchain10.pem", (3e9, 3e9))
    (live / "fullchain.pem").symlink_to("../../archive/pts/fullchain10.pem")
    assert tls.replaced(live / "fullchain.pem") == (archive / "fullchain9.pem", 3e9)


@pytest.mark.parametrize(
    "name", ["generations/only/rsa.pem", "archive/pts/fullchain1.pem", "a.pem"]
)
def test_a_first_certificate_took_nobodys_place(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert tls.replaced(file) is None


def test_the_certificate_before_is_read_too(tmp_path: Path, configured: Any) -> None:
    before, now = (generation(tmp_path, name, at) for name, at in (("a", 1e9), ("b", 2e9)))
    configured(sites(str(now)))
    texts = {
        str(file): certify("pts", certify(issuer)).pem
        for file, issuer in ((now, "New"), (before, "Old"))
    }
    (piece,) = gathered(machine(**texts), "tls.disk")
    told = piece.facts["before"]
    assert (told["file"], told["until"]) == (str(before), 2e9)
    assert told["chain"][-1]["issuer"] == "CN = Old"


def test_a_port_is_asked_by_a_name_of_any_of_its_server_blocks(configured: Any) -> None:
    web = sites()
    nameless = {**web.facts["sites"][0], "names": ["_"]}
    configured(seen("nginx.config", sites=[nameless, *web.facts["sites"]]))
    assert gathered(machine(), "tls.served")[0].facts["name"] == "pts.example.test"
