"""Causes of the layer application."""

from __future__ import annotations

from ptslink.doctor.cause import Cause

CAUSES: tuple[Cause, ...] = ()
