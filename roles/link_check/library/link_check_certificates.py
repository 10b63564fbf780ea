#!/usr/bin/python
"""The certificates a TLS port shows to clients of each kind: verified, and until when valid."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: link_check_certificates
short_description: Asks TLS ports for their certificates as RSA-only and ECDSA-only clients do
description:
  - >-
    For each port and kind one TLS 1.2 handshake that offers nothing else, verified against
    C(trust): chain complete, name covered, in date. Changes nothing. What is wrong is a result,
    not a failure: C(seen) says of each C(ok), C(cause), C(days) left and C(warning).
  - Works with the project's own probe, in C(source).
options:
  source: {type: path, required: true, description: Directory holding the ptslink package.}
  host: {type: str, required: true, description: Name or address to connect to.}
  ports: {type: list, elements: int, required: true, description: TLS ports.}
  name: {type: str, required: true, description: The name or address that must be covered.}
  kinds: {type: list, elements: str, required: true, description: rsa, ecdsa.}
  trust: {type: str, default: "", description: PEM of the authorities; empty means the system's.}
  warn_days: {type: int, required: true, description: Fewer days left are warned of.}
  fail_days: {type: int, required: true, description: Fewer days left are a fault.}
  timeout: {type: int, required: true, description: Seconds for each handshake.}
author: ptslink authors
"""


def verdict(
    shaken: dict[str, Any], certificate: dict[str, Any], now: float, warn_days: int, fail_days: int
) -> dict[str, Any]:
    """What one handshake says: ``ok``, ``cause``, ``days``, ``warning``."""
    not_after = certificate.get("not_after")
    days = math.floor((not_after - now) / 86400) if not_after is not None else None
    result = {"ok": bool(shaken["ok"]), "cause": None, "days": days, "warning": False}
    if not shaken["ok"]:
        result["cause"] = shaken["text"]
    elif days is None:
        result |= {"ok": False, "cause": "its certificate cannot be read"}
    elif days < fail_days:
        result |= {
            "ok": False,
            "cause": f"the certificate is valid for {days} more days only "
            f"(link_check_certificate_fail_days is {fail_days}): renew it",
        }
    elif days < warn_days:
        result["warning"] = True
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "host": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "name": {"type": "str", "required": True},
            "kinds": {"type": "list", "elements": "str", "required": True},
            "trust": {"type": "str", "default": ""},
            "warn_days": {"type": "int", "required": True},
            "fail_days": {"type": "int", "required": True},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    sys.path.insert(0, asked["source"])
    from ptslink.doctor.probe.secure import OFFERS, client_context, shake_hands
    from ptslink.doctor.probe.stream import resolve

    offers = {offer.variant: offer for offer in OFFERS}
    seen = []
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as trust:
        trust.write(asked["trust"])
        trust.flush()
        ca = Path(trust.name) if asked["trust"] else None
        for port in asked["ports"]:
            for kind in asked["kinds"]:
                about = {
                    "name": f"{kind} certificate",
                    "url": f"{asked['host']}:{port} as {asked['name']}",
                    "status": "TLS",
                }
                try:
                    address = resolve(asked["host"], port, asked["timeout"])[0]
                    context = client_context(offers[kind], ca=ca, verify=True)
                except OSError as error:
                    said = {"ok": False, "cause": str(error), "days": None, "warning": False}
                else:
                    shaken = shake_hands(address, context, asked["name"], asked["timeout"])
                    said = verdict(
                        {"ok": shaken.ok, "text": shaken.text()},
                        shaken.certificate_facts(),
                        time.time(),
                        asked["warn_days"],
                        asked["fail_days"],
                    )
                seen.append(about | said)
    module.exit_json(changed=False, seen=seen)


if __name__ == "__main__":
    main()
