"""Causes of the layer controller."""

from __future__ import annotations

from ptslink.doctor.cause import Cause

CAUSES: tuple[Cause, ...] = ()
