"""Causes of the layer http-upgrade."""

from __future__ import annotations

from ptslink.doctor.cause import Cause

CAUSES: tuple[Cause, ...] = ()
