"""The detail of evidence, cut to a size of which a disk holds a million."""

from __future__ import annotations

import json
from typing import Any, Final

#: A head of the usual length fits many times; a stranger's may be as long as `limits.head_bytes`.
MAX_DETAIL: Final = 4096
_TEXT: Final = 200
_ITEMS: Final = 40
#: Of the least that is kept when even that is too much.
_SHORT: Final = ("status", "reason", "method", "local_port", "message")


def capped(detail: str) -> str:
    """The detail, or as much of it as fits; ``cut`` then says how long it was."""
    if len(detail) <= MAX_DETAIL:
        return detail
    try:
        content = json.loads(detail)
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    less = {**_shorter(content), "cut": len(detail)}
    text = _written(less)
    if len(text) <= MAX_DETAIL:
        return text
    return _written({name: less[name] for name in (*_SHORT, "cut") if name in less})


def _written(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True)


def _shorter(value: Any) -> Any:
    match value:
        case str():
            return value if len(value) <= _TEXT else value[:_TEXT] + "..."
        case list():
            return [_shorter(item) for item in value[:_ITEMS]]
        case dict():
            return {name[:_TEXT]: _shorter(item) for name, item in [*value.items()][:_ITEMS]}
    return value
