"""An exported line is one record, shown safely and counted as data, not as a formula."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_terminal import keep

from ptslink.cli import main
from support.hostile import SENDABLE, acted_upon

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")']


def export(config: Path, form: str, *options: str) -> str:
    arguments = ["export", "--config", str(config), "--format", form, *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def sale(number: int, name: str, *, ascii_only: bool = False, **more: object) -> bytes:
    data = {"DateTime": "2026-03-01T10:01:00", "Transaction": number, "FuelGradeName": name, **more}
    packet = {"Id": 1, "Type": "UploadPumpTransaction", "Data": data}
    text = json.dumps({"Packets": [packet]}, ensure_ascii=ascii_only, indent=1)
    return text.encode()


@pytest.mark.parametrize("name", SENDABLE.values(), ids=SENDABLE)
@pytest.mark.parametrize("options", [[], ["--type", "UploadPumpTransaction"]])
def test_a_record_is_one_line_in_both_formats(
    tmp_path: Path, name: str, options: list[str]
) -> None:
    config = keep(
        tmp_path,
        sale(1, name, ascii_only=True, New=[name]),
        sale(2, name, New={name: 1}),
        b"neither is this: \x1b[2J\n\r\x85\xc2\x85",
    )
    lines = export(config, "jsonl", *options)
    told = [json.loads(line) for line in lines.splitlines()]
    assert len(told) == (2 if options else 3)
    assert told[0]["data"]["FuelGradeName"] == name
    table = export(config, "csv", *options)
    rows = list(csv.reader(io.StringIO(table)))
    assert len(rows) == table.count("\n") == len(told) + 1
    assert len({len(row) for row in rows}) == 1
    assert not acted_upon(lines + table)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_is_no_formula_to_a_spreadsheet(tmp_path: Path, text: str) -> None:
    config = keep(
        tmp_path,
        sale(1, text, DateTime=text, Volume=-1.5),
        json.dumps({"Packets": [{"Id": 1, "Type": "UploadX", "Data": text}]}).encode(),
        text.encode(),
    )
    for options in ([], ["--type", "UploadPumpTransaction"]):
        rows = list(csv.DictReader(io.StringIO(export(config, "csv", *options))))
        cells = [cell for row in rows for cell in row.values()]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
        # A number that a controller sent as one stays one.
        assert {cell for cell in cells if cell[:1] == "-"} <= {"-1.5", ""}
        assert any(cell == "'" + text for cell in cells)
    assert rows[0]["Volume"] == "-1.5"
