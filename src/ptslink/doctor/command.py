"""``ptslink doctor``: gather evidence, judge it, say what to do."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import click

from ptslink.doctor.admission import ELSEWHERE, VANTAGES, is_port, read
from ptslink.doctor.capture import CaptureError
from ptslink.doctor.capture import gather as capture_evidence
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.collect import gather
from ptslink.doctor.evidence import Case, Evidence
from ptslink.doctor.pattern import gather as pattern_evidence
from ptslink.doctor.probe import TargetError
from ptslink.doctor.probe.request import read_controller_id, read_credentials
from ptslink.doctor.probe.show import wants_colour
from ptslink.doctor.probe.survey import survey
from ptslink.doctor.probe.target import parse_target
from ptslink.doctor.report import render
from ptslink.doctor.verdict import judge
from ptslink.escape import visible

EPILOG = """\b
Examples:
  ptslink doctor ws://192.0.2.1:3000/ptsWebSocket     from the site or a laptop
  sudo ptslink doctor --server                        on the server
  ptslink doctor URL --save-evidence site.json        carry it elsewhere ...
  sudo ptslink doctor --server --evidence site.json   ... and judge both together

Exit status: 0 healthy, 1 findings, 2 the doctor itself could not work,
130 ended by Ctrl-C.
"""

INTERRUPTED = 130
#: What takes longer than this is told of where no line can be overwritten, in seconds.
TOLD_SECONDS = 3.0


class DoctorError(click.ClickException):
    """The doctor cannot work as asked; says what is accepted."""

    exit_code = 2


def _addresses(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise click.BadParameter(
                f"{value!r} is no IP address; accepted is a site's address as this server sees "
                "it, for example 203.0.113.7"
            ) from None
    return values


@click.command(epilog=EPILOG, short_help="Say why a link fails, and the one thing to change.")
@click.argument("url", required=False)
@click.option("--server", is_flag=True, help="Look at this server from inside (best as root).")
@click.option("--port", "ports", type=click.IntRange(1, 65535), multiple=True,
              help="With --server: a port the link uses, repeatable "
              "[default: the URL's, else those nginx and the service listen on].")  # fmt: skip
@click.option("--peer", "peers", multiple=True, metavar="ADDRESS", callback=_addresses,
              help="With --server: a site's address as seen here, repeatable.")  # fmt: skip
@click.option("--watch", type=click.FloatRange(0, 300), default=0.0, metavar="SECONDS",
              help="With --server: count arriving packets for this long, "
              "while the link is tried from elsewhere.")  # fmt: skip
@click.option("--watch-until", type=click.Path(path_type=Path), metavar="FILE",
              help="End the watch as soon as FILE is there.")  # fmt: skip
@click.option("--ask", is_flag=True,
              help="With --server: ask connected controllers for their settings "
              "(GetRemoteServerConfiguration; changes nothing).")  # fmt: skip
@click.option("--pattern", "pattern", is_flag=True,
              help="Read the connection records for patterns over time.")  # fmt: skip
@click.option("--pcap", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="FILE", help="Explain a capture.")  # fmt: skip
@click.option("--evidence", "files", multiple=True, metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Join evidence saved at another vantage point, repeatable.")  # fmt: skip
@click.option("--save-evidence", "save", metavar="FILE",
              type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
              help="Write what was seen as JSON ('-': standard output, no verdict)")  # fmt: skip
@click.option("--vantage", type=click.Choice(["site", "control"]), default="site",
              show_default=True, help="Where the URL is tried from.")  # fmt: skip
@click.option("--idle", type=click.FloatRange(0, 3600), default=0.0, metavar="SECONDS",
              help="Stay connected this long without sending anything.")  # fmt: skip
@click.option("--thorough", is_flag=True,
              help="Try every deviation, path and port even where the link works.")  # fmt: skip
@click.option("--controller-id", "controller_id", metavar="HEX",
              help="X-Pts-Id to come with. A real one takes that controller's place.")  # fmt: skip
@click.option("--basic-env", "basic_env", metavar="NAME",
              help="Environment variable that holds user:password for Basic.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0.1, 120), default=5.0, show_default=True,
              metavar="SECONDS", help="Bound on each step.")  # fmt: skip
@click.option("--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="FILE", help="Trust these certificates, not the system's (PEM).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON.")
@click.pass_context
def doctor(context: click.Context, /, url: str | None, **options: Any) -> None:
    """Say why a controller's link fails, and the one thing to change.

    With a URL the link is tried from here the way a controller does it; with --server this server
    is examined from inside; evidence from several places is judged together.
    """
    try:
        status = run(Asked(url, **options))
    except (TargetError, CaptureError) as error:
        raise DoctorError(str(error)) from error
    except (click.ClickException, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        # click's own exit status for it is 1, which would mean findings.
        click.echo("\ndoctor: interrupted, nothing was judged", err=True)
        status = INTERRUPTED
    except Exception:
        # Python's own exit status for it would mean findings.
        click.echo(visible(traceback.format_exc(), keep="\n"), err=True)
        status = 2
    context.exit(status)


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line: what to look at, and how. The names are those of the options."""

    url: str | None
    server: bool
    ports: tuple[int, ...]
    peers: tuple[str, ...]
    watch: float
    watch_until: Path | None
    ask: bool
    pattern: bool
    pcap: Path | None
    files: tuple[Path, ...]
    save: Path | None
    vantage: str
    idle: float
    thorough: bool
    controller_id: str | None
    basic_env: str | None
    timeout: float
    ca: Path | None
    as_json: bool


def run(asked: Asked) -> int:
    """The exit status; prints the verdict."""
    if not (asked.url or asked.server or asked.pattern or asked.pcap or asked.files):
        raise DoctorError(
            "nothing to look at: give a URL (ws://HOST:3000/ptsWebSocket), --server, --pattern, "
            "--pcap FILE or --evidence FILE"
        )
    _check_files(asked)
    started = time.monotonic()
    say = Progress(sys.stderr)
    try:
        evidence = gathered(asked, say)
    finally:
        say("")
    if asked.save is not None:
        text = json.dumps([piece.to_json() for piece in evidence], indent=1) + "\n"
        text = visible(text, keep="\n")
        if str(asked.save) == "-":
            click.echo(text, nl=False)
            return 0
        try:
            asked.save.write_text(text)
        except OSError as error:
            raise _cannot_save(asked.save, str(error.strerror)) from error
    target = asked.url or _target_of(evidence) or ("this server" if asked.server else "the link")
    verdict = judge(Case(target, evidence), CAUSES, time.monotonic() - started)
    if asked.as_json:
        click.echo(visible(json.dumps(verdict.to_json(), indent=2), keep="\n"))
    else:
        titles = {cause.id: cause.title for cause in CAUSES}
        colour = wants_colour(sys.stdout)
        click.echo(render(verdict, titles=titles, colour=colour), nl=False, color=True)
    if verdict.findings:
        return 1
    return 0 if verdict.examined else 2


def _check_files(asked: Asked) -> None:
    """What would fail after all the looking is said before it.

    Raises:
        DoctorError: ``--ca`` holds no certificates, or ``--save-evidence`` cannot be written.
    """
    if asked.ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(asked.ca)
        except OSError as error:  # ssl.SSLError is one
            why = "it holds none" if isinstance(error, ssl.SSLError) else error.strerror
            raise DoctorError(
                f"--ca {asked.ca}: no certificate can be read from it ({why}); accepted is a file "
                "with certificates in PEM (-----BEGIN CERTIFICATE-----)"
            ) from error
    if asked.save is not None and str(asked.save) != "-" and not asked.save.parent.is_dir():
        raise _cannot_save(asked.save, "there is no such directory")


def _cannot_save(file: Path, why: str) -> DoctorError:
    return DoctorError(
        f"--save-evidence {file}: {why}; accepted is a file that can be written, or '-'"
    )


def gathered(asked: Asked, say: Callable[[str], None]) -> list[Evidence]:
    """The evidence from everywhere that was asked for.

    Raises:
        DoctorError, TargetError, CaptureError: something asked for cannot be looked at.
    """
    # With --server this server speaks for itself, and no file does.
    places = ELSEWHERE if asked.server else VANTAGES
    evidence = [piece for file in asked.files for piece in read_evidence(file, places)]
    ports = asked.ports
    if asked.url:
        ports = ports or (parse_target(asked.url).port,)
        who = _who(asked)
        say(f"trying {asked.url}")
        evidence += survey(
            asked.url,
            vantage=asked.vantage,
            idle=asked.idle,
            timeout=asked.timeout,
            ca=asked.ca,
            thorough=asked.thorough,
            **who,
        )
    if asked.server:
        evidence += gather(
            ports=ports or _ports_seen(evidence),
            peers=asked.peers,
            watch=asked.watch,
            until=asked.watch_until,
            ask=asked.ask,
            say=say,
        )
    if asked.pattern and not asked.server:
        # With --server all of it is looked at anyway.
        evidence += pattern_evidence(say=say)
    if asked.pcap:
        say(f"reading {asked.pcap}")
        evidence += capture_evidence(asked.pcap)
    return evidence


def _who(asked: Asked) -> dict[str, str | None]:
    """Whom the probe is to be, as ``survey`` takes it.

    Raises:
        DoctorError: no such id, or no such variable.
    """
    try:
        return {
            "controller_id": asked.controller_id and read_controller_id(asked.controller_id),
            "credentials": asked.basic_env and read_credentials(asked.basic_env),
        }
    except ValueError as error:
        raise DoctorError(str(error)) from error


def read_evidence(file: Path, places: Sequence[str] = VANTAGES) -> list[Evidence]:
    """Evidence saved by ``--save-evidence``, of any of *places*.

    Raises:
        DoctorError: the file is not such a list; names the file and what is wrong.
    """
    try:
        return read(file.read_text(), str(file), places=places)
    except (OSError, ValueError) as error:
        raise DoctorError(
            f"{file}: not evidence of the doctor ({type(error).__name__}: {error}); "
            "accepted is what --save-evidence writes"
        ) from error


def _ports_seen(evidence: Iterable[Evidence]) -> tuple[int, ...]:
    """The ports that were tried from elsewhere."""
    tried = [
        piece.facts["port"]
        for piece in evidence
        if piece.probe == "tcp.connect" and is_port(piece.facts.get("port"))
    ]
    return tuple(dict.fromkeys(tried))


def _target_of(evidence: Iterable[Evidence]) -> str | None:
    """What was tried elsewhere, as far as the evidence tells."""
    host = next((p.facts.get("host") for p in evidence if p.probe == "dns.resolve"), None)
    port = next(iter(_ports_seen(evidence)), None)
    path = next((p.facts.get("path") for p in evidence if p.probe == "http.upgrade"), None)
    if not host:
        return None
    return f"{host}:{port}{path or ''}" if port else str(host)


class Progress:
    """What is being done, on standard error: a line that is overwritten on a terminal.

    Elsewhere a plain line, once something takes longer than :data:`TOLD_SECONDS`; at once where
    somebody has to act on it (``now`` in its words).
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._overwrites = wants_colour(stream)
        self._timer: threading.Timer | None = None

    def __call__(self, text: str) -> None:
        """Say *text*; "" when nothing is being done any more."""
        shown = visible(f"doctor: {text} ...")[:79] if text else ""
        if self._overwrites:
            self._write(f"\r{shown:<79}\r{shown}")
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if not shown:
            return
        if text.endswith(" now"):
            self._write(f"{shown}\n")
            return
        self._timer = threading.Timer(TOLD_SECONDS, self._write, (f"{shown}\n",))
        self._timer.daemon = True
        self._timer.start()

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            self._stream.write(text)
            self._stream.flush()
