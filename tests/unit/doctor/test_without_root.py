"""Without root a probe that may not look says so, and nothing is inferred from it."""

from __future__ import annotations

import pytest

from ptslink.doctor.collect import host, network
from ptslink.doctor.collect.edge import Output, Stopwatch, journal_refused
from ptslink.doctor.evidence import Status
from unit.doctor.fake_machine import FakeMachine

#: What journalctl 252 says to somebody of no group, with and without lines of his own.
HINT = Output(
    "", 0, "", "Hint: You are currently not seeing messages from other users and the system.\n"
    "      Users in groups 'adm', 'systemd-journal' can see all messages.\n"
)  # fmt: skip
CLOSED = Output("", 1, "", "No journal files were opened due to insufficient permissions.")
NO_MATCH = Output("-- No entries --\n", 1)
#: What ss shows without root: neither processes nor units.
OWNERLESS = (
    "LISTEN 0 511 0.0.0.0:80 0.0.0.0:* ino:1 sk:1\n"
    "LISTEN 0 128 0.0.0.0:22 0.0.0.0:* ino:2 sk:2\n"
    "LISTEN 0 100 127.0.0.1:3000 0.0.0.0:* ino:3 sk:3\n"
)


@pytest.mark.parametrize("refusal", [HINT, CLOSED, Output("", None, "journalctl is not installed")])
def test_a_refused_journal_is_skipped_with_the_reason(refusal: Output) -> None:
    machine = FakeMachine({"journalctl": refusal}, root=False)
    watch = Stopwatch()
    found = [
        host._oom(machine, watch),
        host._trouble(machine, watch, host.UNITS),
        network._limited(machine, watch),
    ]
    assert {piece.probe: piece.status for piece in found} == dict.fromkeys(
        ("host.oom", "host.trouble", "net.limited"), Status.SKIPPED
    )
    assert {piece.seen for piece in found} <= {
        "the journal is shown to root and the group systemd-journal only",
        "journalctl is not installed",
    }


def test_no_line_that_fits_is_not_a_refusal() -> None:
    assert journal_refused(NO_MATCH) == ""
    machine = FakeMachine({"journalctl": NO_MATCH})
    watch = Stopwatch()
    found = [host._oom(machine, watch), host._trouble(machine, watch, host.UNITS)]
    assert [piece.status for piece in found] == [Status.OK, Status.OK]


def test_a_pattern_that_journalctl_does_not_take_is_a_refusal() -> None:
    output = Output("", 1, "", "Compiled without pattern matching support")
    assert journal_refused(output) == "Compiled without pattern matching support"


def test_a_conntrack_log_that_may_not_be_read_is_no_count() -> None:
    files = {
        "/proc/sys/net/netfilter/nf_conntrack_count": "1",
        "/proc/sys/net/netfilter/nf_conntrack_max": "9",
    }
    refused = network._conntrack(FakeMachine({"journalctl": HINT}, files), Stopwatch())
    assert "full_lines" not in refused.facts
    read = network._conntrack(FakeMachine({"journalctl": NO_MATCH}, files), Stopwatch())
    assert read.facts["full_lines"] == 0


@pytest.mark.parametrize(
    ("configured", "ports"), [((80, 3000), (80,)), ((8080, 3000), ()), ((), ())]
)
def test_a_listener_without_an_owner_is_the_links_where_it_is_configured(
    configured: tuple[int, ...], ports: tuple[int, ...]
) -> None:
    listeners = network.read_listeners(OWNERLESS)
    assert network.owners_hidden(listeners)
    assert network.link_ports(listeners, configured) == ports


def test_the_unit_names_the_owner_where_the_process_is_hidden() -> None:
    line = "LISTEN 0 511 0.0.0.0:8080 0.0.0.0:* cgroup:/system.slice/nginx.service"
    assert network.link_ports(network.read_listeners(line)) == (8080,)


@pytest.mark.parametrize(("root", "status"), [(False, Status.UNKNOWN), (True, Status.OK)])
def test_hidden_owners_do_not_mean_that_nothing_listens(
    monkeypatch: pytest.MonkeyPatch, root: bool, status: Status
) -> None:
    monkeypatch.setattr(network, "configured_ports", lambda: (9999,))
    machine = FakeMachine({"ss": Output(OWNERLESS)}, root=root)
    found = network.collect(machine, network.Scope())
    [piece] = [piece for piece in found if piece.probe == "net.listeners"]
    assert piece.status is status
    if not root:
        assert piece.seen == (
            "whose the listeners are is shown to root only; listening are ports 22, 80, 3000"
        )


def test_the_mount_point_of_what_the_link_writes_to() -> None:
    text = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 8:2 / /var/lib rw - ext4 /dev/sdb1 rw\n"
        "31 22 8:3 / /mnt/with\\040blank rw - ext4 /dev/sdc1 rw\n"
    )
    mounts = host.read_mounts(text)
    assert mounts == dict.fromkeys(("/", "/var/lib", "/mnt/with blank"), "ext4")
    assert host.mount_of("/var/lib/ptslink", mounts) == "/var/lib"
    assert host.mount_of("/var/library", mounts) == "/"
    assert host.mount_of("/", []) is None


def test_each_file_system_names_its_mount_point() -> None:
    machine = FakeMachine(files={"/proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw"})
    systems = host._disk(machine, Stopwatch()).facts["file_systems"]
    assert systems
    assert {one["mount"] for one in systems} == {"/"}
