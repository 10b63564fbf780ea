"""What Ansible is told about a lab."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptslab.errors import LabError
from ptslab.inventory import inventory
from ptslab.state import Lab, Machine

LAB = Lab(
    name="demo",
    slot=3,
    phase="up",
    boot="b",
    machines=(
        Machine("server", "bookworm", 0, "/image/bookworm"),
        Machine("second", "trixie", 4, "/image/trixie"),
    ),
)


def test_every_machine_is_a_forecourt_server() -> None:
    assert inventory(LAB)["forecourt_servers"] == {"hosts": ["server", "second"]}
    assert inventory(LAB)["all"] == {"children": ["forecourt_servers"]}


def test_a_machine_is_reached_by_address_key_and_checked_host_key() -> None:
    variables = inventory(LAB)["_meta"]["hostvars"]["second"]
    assert variables["ansible_host"] == "10.77.3.14"
    assert variables["ansible_user"] == "root"
    assert variables["ansible_ssh_private_key_file"].endswith("/demo/id_ed25519")
    assert variables["ansible_ssh_common_args"] == f"-F {LAB.ssh_config}"
    assert variables["ansible_python_interpreter"] == "/usr/bin/python3"


def test_a_machine_is_reached_by_ipv6_through_the_labs_bridge() -> None:
    variables = inventory(LAB)["_meta"]["hostvars"]["second"]
    # EUI-64 of 02:77:03:00:00:0e.
    assert variables["lab_link_local"] == "fe80::77:3ff:fe00:e%ptslab3"


def test_shared_ssh_connections_live_and_die_with_the_lab() -> None:
    directory = Path(inventory(LAB)["_meta"]["hostvars"]["server"]["ansible_control_path_dir"])
    assert directory.is_relative_to(LAB.directory)
    # A Unix socket path holds 107 bytes; ssh adds a hash of 10 and 17 of its own.
    assert len(str(directory)) + 28 <= 107


def test_it_is_json() -> None:
    assert json.loads(json.dumps(inventory(LAB))) == inventory(LAB)


def test_an_unknown_machine_is_named_with_those_known() -> None:
    with pytest.raises(LabError, match=r"no machine 'third' \(it has: server, second\)"):
        LAB.machine("third")
