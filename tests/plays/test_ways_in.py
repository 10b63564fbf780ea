"""Wherever a run is started, and whatever inventory it is given, it is for the servers alone."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.playbooks import Ended, ansible_playbook, let_it_reload

ROOT = Path(__file__).parents[2]
PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
SPEC = importlib.util.spec_from_file_location(
    "servers", ROOT / "playbooks" / "filter_plugins" / "forecourt_servers.py"
)
assert SPEC
assert SPEC.loader
FILTER = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(FILTER)


def writable_by_all(checkout: Path) -> Path:
    checkout.chmod(0o777)
    return checkout


def another_directory(checkout: Path) -> Path:
    (checkout / "elsewhere").mkdir()
    return checkout / "elsewhere"


@pytest.mark.parametrize("started_from", [writable_by_all, another_directory])
def test_a_run_needs_no_ansible_cfg(
    play: Callable[..., Ended], tmp_path: Path, started_from: Callable[[Path], Path]
) -> None:
    let_it_reload(tmp_path / "roles" / "pts_server")
    ended = play(
        tmp_path / "site.yml",
        cwd=started_from(tmp_path),
        configuration=None,
        d={"fails": "tls_certificate"},
    )
    assert set(ended.with_role("run_record")) == set("abc"), ended.said
    assert ended.with_role("put_back") == ["d"]
    assert set(ended.with_role("reloaded")) == set("abcd"), "also where a later task failed"


def test_a_control_node_that_cannot_build_is_refused_before_a_host_is_reached(
    play: Callable[..., Ended],
) -> None:
    ended = play("site.yml", **{host: {"fails": "pts_server/builder"} for host in "abcd"})
    assert ended.status != 0
    assert ended.done == []


def test_every_role_is_found_beside_the_playbooks() -> None:
    for role in (ROOT / "roles").iterdir():
        assert (ROOT / "playbooks" / "roles" / role.name).readlink() == Path(
            "../../roles"
        ) / role.name


#: Inventories that have hosts for looking from a site: groups, and which hosts are servers.
SITES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a server without a group": (
        {"ungrouped": {"hosts": {"server": {}}}, "site_probes": {"hosts": {"laptop": {}}}},
        {"server"},
    ),
    "a host of both groups": (
        {
            "forecourt_servers": {"hosts": {"server": {}, "laptop": {}}},
            "site_probes": {"hosts": {"laptop": {}}},
        },
        {"server"},
    ),
}


@pytest.mark.parametrize("name", SITES)
def test_no_playbook_is_for_a_host_that_only_looks_from_a_site(tmp_path: Path, name: str) -> None:
    groups, servers = SITES[name]
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(groups))
    inventory = f"--inventory={tmp_path}/hosts.yml"
    done = ansible_playbook("--list-hosts", inventory, *PLAYBOOKS, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    listed = re.findall(r"^      (\S+)$", done.stdout, flags=re.MULTILINE)
    assert set(listed) == servers
    assert len(listed) == done.stdout.count("play #") >= len(PLAYBOOKS)


#: What the inventory has, what was asked for, what of this checkout there is -> what is said.
NOBODY: list[tuple[dict[str, list[str]], list[str], bool, str, str]] = [
    ({"all": []}, ["HOSTS"], False, "There is no inventory HOSTS", "example/. "),
    ({"all": []}, ["/no/such"], True, "There is no inventory /no/such", "-i 203.0.113.7, -u root"),
    ({"all": []}, ["/etc/ansible/hosts"], True, "did not read", "-i HOSTS"),
    ({"all": []}, ["HOSTS"], True, "There is no host in HOSTS", "put the server under forecourt_"),
    (
        {"all": ["laptop"], "site_probes": ["laptop"]},
        ["HOSTS"],
        True,
        "hosts of the group site_probes alone",
        "put the server under forecourt_servers in HOSTS",
    ),
    (
        {"all": ["server", "laptop"], "forecourt_servers": ["laptop"], "site_probes": ["laptop"]},
        ["HOSTS"],
        True,
        "forecourt_servers has no hosts that are not of site_probes too",
        "put the server under forecourt_servers in HOSTS",
    ),
]


@pytest.mark.parametrize(("groups", "asked", "there", "why", "fix"), NOBODY)
def test_what_an_inventory_lacks_is_said(
    tmp_path: Path,
    groups: dict[str, list[str]],
    asked: list[str],
    there: bool,
    why: str,
    fix: str,
) -> None:
    hosts = tmp_path / "hosts.yml"
    if there:
        hosts.touch()
    assert FILTER.pattern(groups) is None
    said = FILTER.nobody(groups, [str(hosts) if one == "HOSTS" else one for one in asked], hosts)
    because, _, remedy = said.partition("\nFix: ")
    assert why.replace("HOSTS", str(hosts)) in because
    assert fix.replace("HOSTS", str(hosts)) in remedy


def test_the_inventory_of_the_checkout_is_read_where_there_is_one(tmp_path: Path) -> None:
    for name in ("ansible.cfg", "site.yml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "playbooks", tmp_path / "playbooks", symlinks=True)
    (tmp_path / "roles").symlink_to(ROOT / "roles")
    refused = ansible_playbook("site.yml", cwd=tmp_path)
    assert refused.returncode == 1
    assert f"Fix: cp -r {tmp_path}/inventory/example/. {tmp_path}/inventory" in refused.stdout
    assert "PLAY" not in refused.stdout
    shutil.copytree(ROOT / "inventory" / "example", tmp_path / "inventory")
    listed = ansible_playbook("--list-hosts", "site.yml", cwd=tmp_path)
    assert listed.stdout.count("      station-12\n") == listed.stdout.count("play #") > 0
