"""Figures in a document, between markers that name the command that writes them."""

from __future__ import annotations


def replace_block(document: str, name: str, block: str) -> str:
    """The document with what stands between the markers of `name` exchanged.

    Raises:
        ValueError: it has no such markers.
    """
    begin = f"<!-- {name}: written by scripts/bench {name}, do not edit by hand -->"
    end = f"<!-- end of {name} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no markers for {name}")
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"
