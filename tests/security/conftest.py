from __future__ import annotations

from support.serving import serve, tmp_path

__all__ = ["serve", "tmp_path"]
