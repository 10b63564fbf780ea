from __future__ import annotations

from support.serving import Serve, serve, tmp_path

__all__ = ["Serve", "serve", "tmp_path"]
