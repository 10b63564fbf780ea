#!/usr/bin/python
"""The certificates nginx serves: asked for, judged, tested with nginx, put in force at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tls_certificate_store import (
    KINDS,
    Acme,
    Pair,
    Refused,
    Store,
    complaints,
)

DOCUMENTATION = r"""
module: tls_certificate_live
short_description: Keys and certificates of the proxy, RSA and ECDSA changed in the same instant
description:
  - >-
    C(requested) makes keys on the host where the certificates in force do not do, and returns
    signing requests as C(requests) (kind to PEM) and C(needed).
  - >-
    C(present) puts pairs in force: judged, tested with C(nginx -t) on a copy of its tree, then
    swapped in one rename. A pair that is refused leaves what is in force.
  - >-
    C(stood_in) sees to it that there is something for nginx to start with: if nothing is in
    force, pairs signed by nobody.
  - C(obtained) gets both kinds from an ACME server through certbot and puts them in force.
  - C(former) puts an earlier generation back in force.
  - >-
    Returns C(former), the generation in force before. No private key is ever returned.
options:
  state:
    type: str
    choices: [requested, present, stood_in, obtained, former]
    required: true
    description: What will be true afterwards.
  directory: {type: path, default: /etc/ptslink/tls, description: Where generations are kept.}
  names: {type: list, elements: str, default: [], description: Names to be covered.}
  kinds: {type: list, elements: str, default: [rsa, ecdsa], description: Kinds of key.}
  days: {type: int, default: 0, description: How long what is in force must still be valid.}
  authority: {type: str, default: "", description: PEM of the authority it must be of.}
  chains: {type: dict, default: {}, description: Kind to full chain.}
  keys: {type: dict, default: {}, description: Kind to key; without one, the pending key.}
  former: {type: str, default: "", description: The generation to put back.}
  acme: {type: dict, default: {}, description: "server, email, webroot, authority."}
author: ptslink authors
"""


def in_force_will_do(store: Store, parameters: dict[str, Any]) -> bool:
    """Whether nothing has to be asked for."""
    live = store.read()
    return all(
        kind in live
        and not complaints(
            kind, live[kind], parameters["names"], parameters["days"], parameters["authority"]
        )
        for kind in parameters["kinds"]
    )


def offered(store: Store, parameters: dict[str, Any]) -> dict[str, Pair]:
    """The pairs to put in force; a kind without a key takes the one made here."""
    return {
        kind: Pair(chain, parameters["keys"].get(kind) or store.pending_key(kind))
        for kind, chain in parameters["chains"].items()
    }


def requested(store: Store, parameters: dict[str, Any], dry: bool) -> dict[str, Any]:
    if in_force_will_do(store, parameters):
        return {"changed": False, "needed": False, "requests": {}}
    requests = {
        kind: store.request(kind, parameters["names"]) for kind in parameters["kinds"] if not dry
    }
    return {"changed": True, "needed": True, "requests": requests}


def present(store: Store, parameters: dict[str, Any], dry: bool) -> dict[str, Any]:
    if dry and not parameters["chains"]:  # they would have been signed by now
        return {"changed": True}
    pairs = offered(store, parameters)
    if dry:
        return {"changed": store.name_of(pairs) != store.name()}
    return {"changed": store.install(pairs, parameters["names"])}


def stood_in(store: Store, parameters: dict[str, Any], dry: bool) -> dict[str, Any]:
    if set(store.read()) == set(KINDS):
        return {"changed": False}
    if not dry:
        store.install(store.stand_in(parameters["names"], days=30))
    return {"changed": True}


def obtained(store: Store, parameters: dict[str, Any], dry: bool) -> dict[str, Any]:
    wanted = parameters["acme"]
    acme = Acme(
        names=parameters["names"],
        server=wanted["server"],
        email=wanted.get("email") or "",
        webroot=Path(wanted["webroot"]),
        directory=store.directory / "acme",
        authority=Path(wanted["authority"]) if wanted.get("authority") else None,
    )
    missing = acme.missing()
    if dry:
        return {"changed": bool(missing) or store.name_of(acme.pairs()) != store.name()}
    for kind in missing:
        acme.obtain(kind)
    return {"changed": store.install(acme.pairs(), parameters["names"]), "obtained": missing}


def former(store: Store, parameters: dict[str, Any], dry: bool) -> dict[str, Any]:
    if parameters["former"] == store.name():
        return {"changed": False}
    if not dry:
        store.point(parameters["former"])
    return {"changed": True}


STATES = {
    "requested": requested,
    "present": present,
    "stood_in": stood_in,
    "obtained": obtained,
    "former": former,
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "directory": {"type": "path", "default": "/etc/ptslink/tls"},
            "names": {"type": "list", "elements": "str", "default": []},
            "kinds": {"type": "list", "elements": "str", "default": list(KINDS)},
            "days": {"type": "int", "default": 0},
            "authority": {"type": "str", "default": ""},
            "chains": {"type": "dict", "default": {}},
            "keys": {"type": "dict", "default": {}, "no_log": True},
            "former": {"type": "str", "default": ""},
            "acme": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    store = Store(Path(module.params["directory"]))
    can_read = shutil.which("openssl") is not None
    if module.check_mode and not can_read:  # a bare machine: everything is still to be done
        module.exit_json(changed=True, needed=True, requests={}, former="")
    before, text = store.name(), store.text()
    try:
        result = STATES[module.params["state"]](store, module.params, module.check_mode)
    except Refused as refused:
        module.fail_json(msg=f"{refused}. The certificates in force stay as they were.")
    except OSError as error:
        module.fail_json(msg=f"{error}. The certificates in force stay as they were.")
    if result["changed"] and not module.check_mode and module.params["state"] != "requested":
        result["diff"] = {
            "before_header": str(store.live),
            "after_header": str(store.live),
            "before": text,
            "after": store.text(),
        }
    module.exit_json(former=before, **result)


if __name__ == "__main__":
    main()
