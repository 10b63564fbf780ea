"""The table of variables in a role's README, made from its argument specs.

python tests/unit/roles/role_readme.py     rewrites every table
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).parents[3] / "roles"
BEGIN, END = "<!-- variables -->", "<!-- /variables -->"


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The variables of a role, over all its entry points."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    found: dict[str, dict[str, Any]] = {}
    for entry in specs.values():
        found.update(entry.get("options") or {})
    return found


def words(text: str) -> str:
    """Ansible's C(code) as Markdown's, on one line."""
    return re.sub(r"C\((.*?)\)", r"`\1`", " ".join(text.split())).replace("|", "\\|")


def kind(spec: dict[str, Any]) -> str:
    text = spec["type"]
    if spec.get("elements"):
        text += f" of {spec['elements']}"
    if spec.get("choices"):
        text += ": " + ", ".join(f"`{choice}`" for choice in spec["choices"])
    return text


def default(spec: dict[str, Any]) -> str:
    value = spec.get("default")
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`".replace("|", "\\|") if text else '`""`'


def rows(role: Path) -> Iterator[str]:
    yield "| Variable | Type | Default | Meaning |"
    yield "|---|---|---|---|"
    for name, spec in options(role).items():
        meaning = words(spec["description"])
        for key, sub in (spec.get("options") or {}).items():
            meaning += f"<br>`{key}` ({kind(sub)}): {words(sub['description'])}"
        yield f"| `{name}` | {kind(spec)} | {default(spec)} | {meaning} |"


def table(role: Path) -> str:
    """The block between the two marks, both included."""
    body = "\n".join(rows(role)) if options(role) else "None."
    return f"{BEGIN}\n{body}\n{END}"


def written(readme: str) -> str | None:
    """The block a README has now."""
    found = re.search(f"{BEGIN}.*?{END}", readme, re.DOTALL)
    return found.group(0) if found else None


def roles() -> list[Path]:
    return sorted(path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml"))


def main() -> None:
    for role in roles():
        readme = role / "README.md"
        text = readme.read_text()
        block = written(text)
        if block is None:
            raise SystemExit(textwrap.fill(f"{readme} has no {BEGIN} ... {END}"))
        readme.write_text(text.replace(block, table(role)))


if __name__ == "__main__":
    main()
