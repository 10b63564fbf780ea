"""Causes of the layer l3."""

from __future__ import annotations

from ptslink.doctor.cause import Cause

CAUSES: tuple[Cause, ...] = ()
