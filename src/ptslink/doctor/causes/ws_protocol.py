"""Causes of the layer ws-protocol."""

from __future__ import annotations

from ptslink.doctor.cause import Cause

CAUSES: tuple[Cause, ...] = ()
