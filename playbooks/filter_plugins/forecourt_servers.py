"""The hosts a playbook is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import pass_context

CHECKOUT = Path(__file__).parents[2]
INVENTORY = CHECKOUT / "inventory" / "hosts.yml"
#: What Ansible reads where neither -i nor an ansible.cfg names another.
ANSIBLES_OWN = "/etc/ansible/hosts"


def nobody(groups: Mapping[str, Iterable[str]], sources: Iterable[str], inventory: Path) -> str:
    """Why no host is meant, and what to do.

    Args:
        groups: the inventory's groups, each with its hosts.
        sources: the inventories that were asked for (``-i``), or the one of ansible.cfg.
        inventory: the one that ansible.cfg names.
    """
    read = [str(source) for source in sources]
    if groups.get("site_probes") and set(groups["all"]) <= set(groups["site_probes"]):
        why = "The inventory has hosts of the group site_probes alone, and those are never servers."
        fix = f"put the server under forecourt_servers in {', '.join(read)}."
    elif groups["all"]:
        why = "The group forecourt_servers has no hosts that are not of site_probes too."
        fix = f"put the server under forecourt_servers in {', '.join(read)}."
    elif inventory.is_file() and read == [ANSIBLES_OWN]:
        why = f"No inventory was named, and Ansible did not read {CHECKOUT}/ansible.cfg."
        fix = f"ansible-playbook -i {inventory} ..."
    elif any(Path(source).exists() for source in read):
        why = f"There is no host in {', '.join(read)}."
        fix = "put the server under forecourt_servers there, as inventory/example/hosts.yml has it."
    else:
        why = f"There is no inventory {', '.join(read)}."
        fix = (
            f"cp -r {CHECKOUT}/inventory/example/. {inventory.parent}, put your server into "
            f"{inventory} and run this again;\n     or name the server: "
            "ansible-playbook -i 203.0.113.7, -u root ..."
        )
    return f"{why}\nFix: {fix}"


def pattern(groups: Mapping[str, Iterable[str]]) -> str | None:
    """Hosts of the group forecourt_servers, or all where there is none; never those of site_probes.

    Returns:
        What ``hosts`` of a play takes; None where that is nobody.
    """
    probes = groups.get("site_probes")
    name = "forecourt_servers" if "forecourt_servers" in groups else "all"
    if not set(groups[name]) - set(probes or ()):
        return None
    return name if probes is None else f"{name}:!site_probes"


@pass_context
def forecourt_servers(context: Any, groups: Mapping[str, Iterable[str]]) -> str:
    """The pattern of hosts a playbook is for.

    Raises:
        SystemExit: nobody is meant. Ansible would skip the play and call that a success; what a
            filter raises otherwise it wraps into words of its own.
    """
    hosts = pattern(groups)
    if hosts is None:
        raise SystemExit(nobody(groups, context.get("ansible_inventory_sources") or (), INVENTORY))
    return hosts


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"forecourt_servers": forecourt_servers}
