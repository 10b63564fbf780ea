"""Certificates: judged before the host is touched, tested with nginx, swapped in one rename."""

from __future__ import annotations

import datetime
import itertools
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from tests.support import certificates
from tests.support.certificates import Party, certify

NAMES = ["pts.example.test", "203.0.113.7"]
UTIL = "ansible.module_utils.tls_certificate_store"


@pytest.fixture(scope="module", autouse=True)
def keys_are_made_once() -> Iterator[None]:
    """RSA keys take long to make; three in turn are enough to be different ones."""
    rsa = itertools.cycle([certificates.new_key("rsa") for _ in range(3)])
    make = certificates.new_key
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            certificates, "new_key", lambda kind: next(rsa) if kind == "rsa" else make(kind)
        )
        yield


@pytest.fixture(scope="module")
def judge(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("tls_certificate/filter_plugins/tls_certificate")


@pytest.fixture(scope="module")
def store_module(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("tls_certificate/module_utils/tls_certificate_store")


@pytest.fixture(scope="module")
def live_module(plugin: Callable[[str], ModuleType], store_module: Any) -> Iterator[Any]:
    sys.modules[UTIL] = store_module  # where Ansible puts it on the host
    yield plugin("tls_certificate/library/tls_certificate_live")
    del sys.modules[UTIL]


@pytest.fixture(scope="module")
def authority_module(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("tls_certificate/library/tls_certificate_authority")


# Files a person provides.


class Files:
    """A root, an intermediate and leaves, as files a person might provide."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = certify("Root")
        self.intermediate = certify("Intermediate", self.root)
        self.stranger = certify("Stranger")
        self.leaf = certify("Leaf", self.intermediate, "rsa", NAMES)
        self.small = certify("Leaf", self.intermediate, "ecdsa", NAMES)
        self.ca = self.file("ca.pem", self.root.pem)

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def pair(self, *chain: Party, key: Party | None = None) -> dict[str, str]:
        return {
            "certificate": self.file("chain.pem", "".join(party.pem for party in chain)),
            "key": self.file("leaf.key", (key or chain[0]).key_pem),
        }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("provided"))


def test_a_complete_chain_with_its_key_will_do(judge: Any, files: Files) -> None:
    provided = {"rsa": files.pair(files.leaf, files.intermediate)}
    assert judge.complaints(provided, NAMES, 14, files.ca) == []


def test_a_chain_that_has_its_root_will_do(judge: Any, files: Files) -> None:
    provided = {"rsa": files.pair(files.leaf, files.intermediate, files.root)}
    assert judge.complaints(provided, NAMES, 14, files.ca) == []


MISTAKES: dict[str, tuple[Callable[[Files], dict[str, Any]], str]] = {
    "another key": (
        lambda f: {"rsa": f.pair(f.leaf, f.intermediate, key=certify("x", kind="rsa"))},
        "the rsa key does not belong to the rsa certificate",
    ),
    "the key of the other kind": (
        lambda f: {"rsa": f.pair(f.leaf, f.intermediate, key=f.small)},
        "the rsa key does not belong to the rsa certificate",
    ),
    "no intermediate": (
        lambda f: {"rsa": f.pair(f.leaf)},
        "Append the certificate of CN=Intermediate",
    ),
    "another's intermediate": (
        lambda f: {"rsa": f.pair(f.leaf, f.stranger)},
        "CN=Leaf is not signed by CN=Stranger",
    ),
    "an authority nobody trusts": (
        lambda f: {"rsa": f.pair(certify("Leaf", f.stranger, "rsa", NAMES), f.stranger)},
        "the rsa chain is not complete: it ends with CN=Stranger",
    ),
    "kinds exchanged": (
        lambda f: {"rsa": f.pair(f.small, f.intermediate)},
        "the certificate given as rsa has a key of another kind",
    ),
    "expired": (
        lambda f: {
            "rsa": f.pair(certify("Old", f.intermediate, "rsa", NAMES, (-9, -1)), f.intermediate)
        },
        "CN=Old expired on",
    ),
    "about to expire": (
        lambda f: {
            "rsa": f.pair(certify("Late", f.intermediate, "rsa", NAMES, (-9, 5)), f.intermediate)
        },
        "in less than 14 days (tls_certificate_days_left_min)",
    ),
    "an intermediate that expired": (
        lambda f: {
            "rsa": f.pair(
                certify("Leaf", old := certify("Gone", f.root, days=(-9, -1)), "rsa", NAMES), old
            )
        },
        "CN=Gone expired on",
    ),
    "of tomorrow": (
        lambda f: {
            "rsa": f.pair(certify("New", f.intermediate, "rsa", NAMES, (1, 99)), f.intermediate)
        },
        "CN=New is not valid before",
    ),
    "another name": (
        lambda f: {
            "rsa": f.pair(
                certify("Other", f.intermediate, "rsa", ["other.test", NAMES[1]]), f.intermediate
            )
        },
        "does not cover pts.example.test, only other.test, 203.0.113.7",
    ),
    "an address that is no address of it": (
        lambda f: {
            "rsa": f.pair(certify("Name", f.intermediate, "rsa", NAMES[:1]), f.intermediate)
        },
        "does not cover 203.0.113.7",
    ),
    "no such file": (
        lambda f: {"rsa": f.pair(f.leaf) | {"key": "/no/such.key"}},
        "the rsa key /no/such.key cannot be read",
    ),
    "no certificate in the file": (
        lambda f: {"rsa": {"certificate": f.file("e.pem", ""), "key": f.file("k", "")}},
        "e.pem cannot be read",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_files_that_will_not_do_are_refused_by_name(judge: Any, files: Files, mistake: str) -> None:
    provided, says = MISTAKES[mistake]
    found = judge.complaints(provided(files), NAMES, 14, files.ca)
    assert any(says in one for one in found), found


def test_a_refusal_never_quotes_a_key(judge: Any, files: Files) -> None:
    broken = files.leaf.key_pem.replace("A", "B", 9)
    provided = {"rsa": files.pair(files.leaf) | {"key": files.file("broken.key", broken)}}
    (said,) = (one for one in judge.complaints(provided, NAMES, 0, files.ca) if "key" in one)
    assert not any(line in said for line in broken.splitlines()[1:-1])


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("a.example.test", True),
        ("A.Example.Test", True),
        ("a.b.example.test", False),
        ("example.test", False),
    ],
)
def test_a_wildcard_covers_one_label(judge: Any, name: str, covered: bool) -> None:
    leaf = certify("Wild", names=["*.example.test"])
    assert judge.covers(leaf.certificate, name) is covered


@pytest.mark.parametrize(
    "name", ["pts.example.com:443", "wss://pts.example.com", "", "a..b", "größe.test", "*.a.test"]
)
def test_what_is_no_name_is_no_name(judge: Any, name: str) -> None:
    assert judge.not_names([name]) == [name]


def test_names_and_addresses_are_names(judge: Any) -> None:
    assert judge.not_names(["pts.example.com", "203.0.113.7", "2001:db8::1"]) == []
    assert judge.not_names(["pts.example.com", "203.0.113.7"], False) == ["203.0.113.7"]


# The store on the host.


@pytest.fixture
def nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nginx that keeps what it was to test, and refuses what says so."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "nginx"
    program.write_text(
        f"#!/bin/sh\ncat $(dirname $4)/conf.d/site.conf > {tmp_path}/tested\n"
        f"[ ! -e {tmp_path}/refuse ] || {{ echo no such key >&2; exit 1; }}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return program


@pytest.fixture
def store(store_module: Any, tmp_path: Path, nginx: Path) -> Any:
    assert nginx.exists()
    tree = tmp_path / "nginx"
    (tree / "conf.d").mkdir(parents=True)
    (tree / "nginx.conf").write_text(f"include {tree}/conf.d/*.conf;\n")
    live = tmp_path / "tls" / "live"
    (tree / "conf.d" / "site.conf").write_text(f"ssl_certificate_key {live}/rsa.key;\n")
    return store_module.Store(tmp_path / "tls", tree)


@pytest.fixture
def pairs(store_module: Any) -> Callable[..., dict[str, Any]]:
    def make(**kinds: Party) -> dict[str, Any]:
        made = kinds or {kind: certify(kind, kind=kind, names=NAMES) for kind in ("rsa", "ecdsa")}
        return {kind: store_module.Pair(party.pem, party.key_pem) for kind, party in made.items()}

    return make


def test_both_kinds_come_into_force_together(store: Any, pairs: Any) -> None:
    wanted = pairs()
    assert store.install(wanted, NAMES) is True
    assert store.read() == wanted
    assert store.install(wanted, NAMES) is False


def test_keys_are_their_owners_alone(store: Any, pairs: Any) -> None:
    store.install(pairs())
    assert stat.S_IMODE((store.live / "rsa.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.live.resolve().stat().st_mode) == 0o700


def test_nginx_tests_the_new_files_before_the_swap(store: Any, pairs: Any, tmp_path: Path) -> None:
    store.install(pairs())
    tested = (tmp_path / "tested").read_text()
    assert tested == f"ssl_certificate_key {tmp_path}/tls/generations/{store.name()}/rsa.key;\n"


def test_what_nginx_refuses_leaves_what_is_in_force(
    store: Any, store_module: Any, pairs: Any, tmp_path: Path
) -> None:
    store.install(pairs())
    before = store.name()
    (tmp_path / "refuse").touch()
    with pytest.raises(store_module.Refused, match="no such key"):
        store.install(pairs())
    assert store.name() == before
    assert [path.name for path in (tmp_path / "tls" / "generations").iterdir()] == [before]


@pytest.mark.parametrize(
    ("kind", "party", "says"),
    [
        ("rsa", lambda: certify("x", kind="ecdsa", names=NAMES), "is of another kind: ecdsa"),
        ("rsa", lambda: certify("x", kind="rsa", names=["other.test"]), "does not cover 203"),
        ("rsa", lambda: certify("x", kind="rsa", names=NAMES, days=(-9, -1)), "is valid until"),
    ],
)
def test_the_host_judges_too(
    store: Any, store_module: Any, pairs: Any, kind: str, party: Any, says: str
) -> None:
    with pytest.raises(store_module.Refused, match=says):
        store.install(pairs(**{kind: party()}), NAMES)
    assert store.name() == ""


def test_a_key_of_another_certificate_is_refused(store: Any, store_module: Any) -> None:
    one, other = (certify("x", kind="rsa", names=NAMES) for _ in range(2))
    mixed = {"rsa": store_module.Pair(one.pem, other.key_pem)}
    with pytest.raises(store_module.Refused, match="does not belong"):
        store.install(mixed)


def test_the_former_generation_can_be_put_back(store: Any, live_module: Any, pairs: Any) -> None:
    store.install(pairs())
    before = store.name()
    store.install(pairs())
    assert live_module.former(store, {"former": before}, dry=True) == {"changed": True}
    assert store.name() != before
    live_module.former(store, {"former": before}, dry=False)
    assert store.name() == before


def test_generations_are_forgotten_but_never_the_one_in_force(
    store: Any, store_module: Any, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "GENERATIONS_KEPT", 2)
    for _ in range(4):
        store.install(pairs(ecdsa=certify("x", kind="ecdsa", names=NAMES)))
    kept = [path.name for path in (store.directory / "generations").iterdir()]
    assert len(kept) == 2
    assert store.name() in kept


def test_a_stand_in_is_made_only_where_there_is_nothing(store: Any, live_module: Any) -> None:
    assert live_module.stood_in(store, {"names": NAMES}, dry=True) == {"changed": True}
    assert store.name() == ""
    live_module.stood_in(store, {"names": NAMES}, dry=False)
    assert set(store.read()) == {"rsa", "ecdsa"}
    assert live_module.stood_in(store, {"names": NAMES}, dry=False) == {"changed": False}


# An authority of one's own.


@pytest.fixture(scope="module")
def authority(authority_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("authority") / "tls"
    authority_module.make(directory, "Own", b"secret")
    return directory


def test_what_the_authority_signs_for_a_host_will_do(
    authority_module: Any, authority: Path, store: Any, live_module: Any, judge: Any
) -> None:
    key, certificate = authority_module.load(authority, b"secret")
    asked = {"names": NAMES, "kinds": ["rsa", "ecdsa"], "days": 30, "keys": {}}
    asked |= {"authority": (authority / "ca.pem").read_text()}
    requests = live_module.requested(store, asked, dry=False)["requests"]
    chains = {
        kind: authority_module.sign(key, certificate, request, 90)
        for kind, request in requests.items()
    }
    live_module.present(store, asked | {"chains": chains}, dry=False)
    now = datetime.datetime.now(datetime.UTC)
    for kind, pair in store.read().items():
        leaf = x509.load_pem_x509_certificate(pair.chain.encode())
        own_key = judge.serialization.load_pem_private_key(pair.key.encode(), None)
        assert judge.judge(kind, [leaf], own_key, NAMES, 80, [certificate], now) == []
    assert live_module.requested(store, asked, dry=False)["needed"] is False
    assert not (store.directory / "pending").exists()
    # Another name, fewer days left than asked for, another authority: each is a reason.
    for change in ({"names": ["new.test"]}, {"days": 91}, {"authority": certify("Else").pem}):
        assert live_module.requested(store, asked | change, dry=True)["needed"] is True, change


def test_the_authoritys_key_is_its_owners_alone_and_encrypted(
    authority_module: Any, authority: Path
) -> None:
    assert stat.S_IMODE((authority / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.stat().st_mode) == 0o700
    with pytest.raises(authority_module.Refused, match="tls_certificate_ca_passphrase"):
        authority_module.load(authority, None)


def test_the_authority_is_kept_where_its_inventory_is_not_read(judge: Any) -> None:
    assert judge.authority_place("/srv/inventory/mysite") == "/srv/inventory/secrets/mysite"
    assert judge.authority_place("") == "", "-i HOST, has no place"


def test_an_authority_is_moved_whole_from_where_it_was_kept(
    authority_module: Any, judge: Any, tmp_path: Path
) -> None:
    inventory = tmp_path / "inventory" / "mysite"
    place = Path(judge.authority_place(str(inventory)))
    former = Path(judge.former_place(str(place), str(inventory)))
    assert former == inventory / "tls"
    assert judge.former_place("/srv/named", str(inventory)) == "", "what is named stays"
    authority_module.make(former, "Own", None)
    pem = (former / "ca.pem").read_text()
    assert judge.authority_certificate(str(place), str(former)) == str(former / "ca.pem")
    (former / "site.pem").touch()
    # Killed after the key, and finished by the next run.
    authority_module.prepare(place)
    (former / "ca.key").rename(place / "ca.key")
    authority_module.move(former, place)
    assert [one.name for one in former.iterdir()] == ["site.pem"]
    assert judge.authority_certificate(str(place), str(former)) == str(place / "ca.pem")
    assert authority_module.load(place, None)
    assert (place / "ca.pem").read_text() == pem
    assert {stat.S_IMODE(one.stat().st_mode) for one in (place, place.parent)} == {0o700}
    assert stat.S_IMODE((place / "ca.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("directory", "says"),
    [
        ("", "no place of its own"),
        ("tls", "no place of its own"),
        ("/", "no place of its own"),
        ("{0}/roles/tls", "would be shared"),
        ("{0}/inventory/mysite", "would be shared"),
        ("{0}/inventory/secrets/mysite", ""),
        ("{0}/secrets/inventory", ""),
        ("{0}/../kept", ""),
        ("/proc/secrets/mysite", "you may not write in /proc"),
    ],
)
def test_a_place_that_cannot_keep_an_authority_is_refused(
    judge: Any, tmp_path: Path, directory: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    # Root may write anywhere: /proc, where nobody can make anything, stands for the others.
    monkeypatch.setattr(judge.os, "access", lambda path, _: path != Path("/proc"))
    said = judge.place_complaint(directory.format(checkout), str(checkout))
    assert (says in said) if says else said == ""


def test_the_authority_signs_no_other_authority(
    authority_module: Any, authority: Path, store_module: Any, tmp_path: Path
) -> None:
    (tmp_path / "k").write_text(certify("x", kind="rsa").key_pem)
    request = store_module.run(
        [
            *("openssl", "req", "-new", "-key", str(tmp_path / "k"), "-subj", "/CN=x"),
            *("-addext", "basicConstraints=CA:TRUE"),
        ]
    )
    with pytest.raises(authority_module.Refused, match="authority itself"):
        authority_module.sign(*authority_module.load(authority, b"secret"), request, 9)


# What the proof says of a certificate.


@pytest.mark.parametrize(
    ("left", "ok", "warning"), [(90, True, False), (15, True, True), (2, False, False)]
)
def test_days_left_warn_first_and_then_break_the_proof(
    plugin: Callable[[str], ModuleType], left: int, ok: bool, warning: bool
) -> None:
    certificates = plugin("link_check/library/link_check_certificates")
    said = certificates.verdict(
        {"ok": True, "text": ""}, {"not_after": left * 86400 + 10.0}, 0.0, 21, 3
    )
    assert (said["ok"], said["warning"], said["days"]) == (ok, warning, left)
    assert bool(said["cause"]) is not ok


def test_certbot_is_asked_only_for_what_is_missing(store_module: Any, tmp_path: Path) -> None:
    acme = store_module.Acme(NAMES[:1], "https://one/dir", "", tmp_path, tmp_path / "acme")
    assert acme.missing() == ["rsa", "ecdsa"]
    for kind in ("rsa", "ecdsa"):
        acme.lineage(kind).mkdir(parents=True)
        party = certify(kind, kind=kind, names=NAMES)
        (acme.lineage(kind) / "fullchain.pem").write_text(party.pem)
        (acme.lineage(kind) / "privkey.pem").write_text(party.key_pem)
        settings = acme.directory / "renewal" / f"ptslink-{kind}.conf"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text("[renewalparams]\nserver = https://one/dir\n")
    assert acme.missing() == []
    settings.write_text("[renewalparams]\nserver = https://other/dir\n")
    assert acme.missing() == ["ecdsa"]
    acme = store_module.Acme(["new.test"], "https://one/dir", "", tmp_path, tmp_path / "acme")
    assert acme.missing() == ["rsa", "ecdsa"]
