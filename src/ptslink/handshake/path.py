"""Matching the request path the way an operator types it (PTS-2 protocol, quirk 4)."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote, urlsplit


@lru_cache(maxsize=128)  # controllers ask for the same few, every time
def link_path(target: str) -> str:
    """The path of a request target, reduced to what is compared.

    Origin form and absolute form are understood; query and fragment are dropped, percent escapes
    undone, doubled, leading and trailing slashes removed and the case folded, because the
    controller adds its own leading slash to whatever was typed into its settings page.
    """
    if target.startswith("/"):
        # urlsplit would take what follows a doubled slash for a host name.
        path = target.partition("?")[0].partition("#")[0]
    else:
        try:
            path = urlsplit(target).path
        except ValueError:
            path = target
    return "/".join(part for part in unquote(path).casefold().split("/") if part)
