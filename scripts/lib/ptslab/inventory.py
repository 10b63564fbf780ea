"""A lab as an Ansible inventory (the JSON of `--list`). Pure."""

from __future__ import annotations

from typing import Any

from ptslab.state import Lab, Machine

#: The group of the product's playbooks.
GROUP = "forecourt_servers"


def host_variables(lab: Lab, machine: Machine) -> dict[str, Any]:
    """How Ansible reaches one machine."""
    return {
        "ansible_host": str(lab.address(machine)),
        "ansible_port": 22,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.ssh_key),
        "ansible_ssh_common_args": f"-F {lab.ssh_config}",
        # Shared connections end with the lab, and never serve its successor.
        "ansible_control_path_dir": str(lab.control_sockets),
        "ansible_python_interpreter": "/usr/bin/python3",
        # By IPv6 a machine has what every interface has: it is reached from this computer alone.
        "lab_link_local": lab.layout.machine_link_local(machine.index),
    }


def inventory(lab: Lab) -> dict[str, Any]:
    """Every machine of the lab, in the group of forecourt servers."""
    return {
        "all": {"children": [GROUP]},
        GROUP: {"hosts": [machine.name for machine in lab.machines]},
        "_meta": {
            "hostvars": {machine.name: host_variables(lab, machine) for machine in lab.machines}
        },
    }
