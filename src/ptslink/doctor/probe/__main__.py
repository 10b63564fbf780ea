"""``python -m ptslink.doctor.probe URL``: the link probe where only Python is installed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ptslink.doctor.probe.link import probe_link
from ptslink.doctor.probe.request import PROBE_ID_PREFIX, read_controller_id, read_credentials
from ptslink.doctor.probe.show import render, wants_colour
from ptslink.doctor.probe.target import TargetError
from ptslink.escape import visible

OK, BROKEN, UNUSABLE = 0, 1, 2

_DESCRIPTION = """\
Walk the way a controller walks to URL and tell what each step saw: resolve,
connect, TLS, plain GET, Upgrade with a controller's exact headers, accept hash,
ping, close. Needs no root and changes nothing on the server.
"""

_EPILOG = f"""\
examples:
  %(prog)s ws://192.0.2.1:3000/ptsWebSocket
  %(prog)s wss://pts.example.test/ptsWebSocket --address 192.0.2.1 --ca ca.pem
  PTS_LOGIN=station:secret %(prog)s URL --basic-env PTS_LOGIN --json

The probe presents itself under a controller id that begins with sixteen zeros
({PROBE_ID_PREFIX}xxxxxxxx), a range no real controller has.

exit status: 0 the link works, 1 it does not, 2 the probe could not work
"""


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return value


def _timeout(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 would wait for nothing; use for example 10")
    return value


def _controller_id(text: str) -> str:
    try:
        return read_controller_id(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser(program: str) -> argparse.ArgumentParser:
    """The options, for this module and for ``ptslink probe`` alike."""
    parsed = argparse.ArgumentParser(
        prog=program,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parsed.add_argument("url", metavar="URL", help="ws://HOST:PORT/PATH or wss://...")
    parsed.add_argument("--json", action="store_true", help="print one JSON object")
    parsed.add_argument("--address", metavar="IP", help="connect to IP, keep Host as in URL")
    parsed.add_argument(
        "--timeout", type=_timeout, default=10.0, metavar="S", help="seconds a step may take (10)"
    )
    parsed.add_argument(
        "--idle", type=_seconds, default=0.0, metavar="S", help="then stay idle for S seconds"
    )
    parsed.add_argument(
        "--origin", metavar="TEXT", help="Origin to send (http://own address); '' sends none"
    )
    parsed.add_argument(
        "--controller-id",
        type=_controller_id,
        metavar="HEX",
        help="X-Pts-Id to send. Beware: a real id replaces that controller's connection",
    )
    parsed.add_argument(
        "--basic-env",
        "--basic",
        metavar="NAME",
        help="environment variable that holds user:password for Basic",
    )
    parsed.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust (PEM)")
    parsed.add_argument("--insecure", action="store_true", help="accept any certificate")
    parsed.add_argument("--server-name", metavar="NAME", help="name for SNI and verification")
    parsed.add_argument("--no-get", action="store_true", help="leave the plain GET out")
    parsed.add_argument(
        "--survey",
        action="store_true",
        help="look around as the doctor does and print its evidence as a JSON list, "
        "for ptslink doctor --evidence",
    )
    parsed.add_argument(
        "--vantage",
        choices=("site", "control"),
        default="site",
        help="where --survey looks from (site)",
    )
    return parsed


def run(arguments: Sequence[str], program: str) -> int:
    """Parse *arguments*, probe, print; the exit status. Bad arguments raise ``SystemExit(2)``."""
    options_parser = parser(program)
    options = options_parser.parse_args(arguments)
    credentials = None
    if options.basic_env is not None:
        try:
            credentials = read_credentials(options.basic_env)
        except ValueError as error:
            options_parser.error(str(error))
    if options.ca is not None and options.insecure:
        options_parser.error("--ca and --insecure exclude each other")
    if options.survey:
        return _survey(options_parser, options, credentials)
    try:
        result = probe_link(
            options.url,
            address=options.address,
            timeout=options.timeout,
            idle=options.idle,
            origin=options.origin,
            controller_id=options.controller_id,
            credentials=credentials,
            ca=options.ca,
            insecure=options.insecure,
            server_name=options.server_name,
            get=not options.no_get,
        )
    except TargetError as error:
        options_parser.error(str(error))
    except OSError as error:
        options_parser.error(f"--ca {options.ca}: {error}")
    if options.json:
        print(visible(json.dumps(result.as_json(), ensure_ascii=False)))
    else:
        sys.stdout.write(render(result, colour=wants_colour(sys.stdout)))
    return OK if result.ok else BROKEN


#: What a survey has its own way of doing.
_NOT_WITH_SURVEY = {
    "--origin": "origin", "--insecure": "insecure", "--server-name": "server_name",
    "--no-get": "no_get",
}  # fmt: skip


def _survey(
    options_parser: argparse.ArgumentParser, options: argparse.Namespace, credentials: str | None
) -> int:
    """Print the survey's evidence; BROKEN when a step of the link failed."""
    from ptslink.doctor.evidence import Status
    from ptslink.doctor.probe.survey import survey

    given = [name for name, key in _NOT_WITH_SURVEY.items() if getattr(options, key)]
    if given:
        options_parser.error(f"--survey and {', '.join(given)} exclude each other")
    try:
        found = list(
            survey(
                options.url,
                vantage=options.vantage,
                idle=options.idle,
                timeout=options.timeout,
                ca=options.ca,
                address=options.address,
                controller_id=options.controller_id,
                credentials=credentials,
            )
        )
    except TargetError as error:
        options_parser.error(str(error))
    except OSError as error:
        options_parser.error(f"--ca {options.ca}: {error}")
    text = json.dumps([piece.to_json() for piece in found], ensure_ascii=False, indent=1)
    print(visible(text, keep="\n"))
    return BROKEN if any(piece.status is Status.FAILED for piece in found) else OK


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], "python -m ptslink.doctor.probe"))
