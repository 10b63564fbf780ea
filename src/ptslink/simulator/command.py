"""``ptslink simulate``: controllers on the command line."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import click

from ptslink.doctor.probe.target import TargetError, parse_target
from ptslink.escape import visible
from ptslink.simulator.device import ONCE_KINDS
from ptslink.simulator.head import Credentials, Identity, check_limit
from ptslink.simulator.misbehave import DeviationError, bend, listing
from ptslink.simulator.packets import KINDS
from ptslink.simulator.result import SimulationResult, render
from ptslink.simulator.run import Simulation, new_seed
from ptslink.simulator.setup import Setup, new_identities

OK, NOT_CONFIRMED = 0, 1
MAX_CONTROLLERS = 20000


def _check_id(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    for value in values:
        if not (0 < len(value) <= 24 and all(c in "0123456789abcdefABCDEF" for c in value)):
            raise click.BadParameter(f"{value!r} is not an id of 1 to 24 hex digits")
    return values


@click.command(short_help="Be one or many PTS-2 controllers that dial into a server.")
@click.argument("url", required=False)
@click.option("--controllers", "-n", type=click.IntRange(1, MAX_CONTROLLERS), help="How many (1).")
@click.option("--once", is_flag=True, help="Upload one of each kind, check, close, end.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help=f"What --once uploads; repeatable ({', '.join(ONCE_KINDS)}).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option(
    "--status-period",
    type=click.FloatRange(0.05, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two UploadStatus.",
)
@click.option("--duration", type=click.FloatRange(0), help="Stop after so many seconds.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for a connection, and for open confirmations at the end.",
)
@click.option(
    "--response-timeout",
    type=click.FloatRange(0.05, 65535),
    default=2.0,
    show_default=True,
    help="Seconds after which an unconfirmed upload is sent again.",
)
@click.option(
    "--ping-period",
    type=click.FloatRange(0.05, 3600),
    default=30.0,
    show_default=True,
    help="Seconds between two pings of the controller's.",
)
@click.option(
    "--reconnect",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Seconds before a lost connection is tried again.",
)
@click.option(
    "--ramp",
    type=click.FloatRange(0, min_open=True),
    default=200.0,
    show_default=True,
    help="Controllers switched on in a second.",
)
@click.option("--seed", help="Ids and data follow from it; a new one for each run.")
@click.option("--id", "ids", multiple=True, callback=_check_id, help="X-Pts-Id; repeatable.")
@click.option("--secret", help="Sign the handshake with it; at most 20 characters.")
@click.option("--login", help="Server user for Basic; at most 10 characters, or the own id.")
@click.option(
    "--password", envvar="PTSLINK_PASSWORD", help="At most 10 characters; env PTSLINK_PASSWORD."
)
@click.option("--address", metavar="IP", help="Connect to IP, keep Host as in URL.")
@click.option("--ca", type=click.Path(path_type=Path), help="Verify the server by this PEM file.")
@click.option(
    "--misbehave",
    multiple=True,
    metavar="ID[=VALUE]",
    help="Deviate from the faithful controller; repeatable. 'list' shows all.",
)
def simulate(
    url: str | None,
    controllers: int | None,
    once: bool,
    kinds: tuple[str, ...],
    as_json: bool,
    status_period: float,
    duration: float | None,
    timeout: float,
    response_timeout: float,
    ping_period: float,
    reconnect: float,
    ramp: float,
    seed: str | None,
    ids: tuple[str, ...],
    secret: str | None,
    login: str | None,
    password: str | None,
    address: str | None,
    ca: Path | None,
    misbehave: tuple[str, ...],
) -> None:
    """Be PTS-2 controllers that dial into URL and check every confirmation.

    With --once each controller uploads a status, a sale, a tank measurement and its whole
    configuration, checks what comes back, and closes with 1000. Without it the controllers go
    about a station's business until --duration is over or Ctrl-C, and then finish in order.

    \b
    ptslink simulate ws://192.0.2.1:3000/ptsWebSocket --once
    ptslink simulate ws://192.0.2.1/ptsWebSocket --controllers 50 --duration 60

    Exit status: 0 everything was confirmed, 1 not, 2 bad arguments.
    """
    if "list" in misbehave:
        click.echo(listing(), nl=False)
        return
    if url is None:
        raise click.BadParameter(
            "missing; for example ws://192.0.2.1:3000/ptsWebSocket", param_hint="URL"
        )
    seed = seed or new_seed()
    try:
        manner = bend(misbehave)
    except DeviationError as error:
        raise click.BadParameter(str(error), param_hint="--misbehave") from error
    try:
        target = parse_target(url)
    except TargetError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error
    identities = _identities(
        controllers, ids, seed, _credentials(login, password, ids), _limited("secret", secret)
    )
    setup = Setup(
        target=target,
        identities=identities,
        manner=manner,
        address=address,
        once=once,
        kinds=kinds or ONCE_KINDS,
        status_period=status_period,
        duration=duration,
        timeout=timeout,
        response_seconds=response_timeout,
        ping_period=ping_period,
        reconnect_seconds=reconnect,
        ramp=ramp,
        seed=seed,
        ca=ca,
    )
    try:
        result = asyncio.run(_run(setup))
    except OSError as error:
        raise click.BadParameter(f"{ca}: {error}", param_hint="--ca") from error
    if as_json:
        click.echo(visible(json.dumps(result.as_json(), ensure_ascii=False)))
    else:
        click.echo(render(result), nl=False)
    click.get_current_context().exit(OK if result.ok else NOT_CONFIRMED)


def _limited(name: str, value: str | None, *, exempt: bool = False) -> str | None:
    """*value*, if it could be entered in a controller."""
    wrong = None if value is None else check_limit(name, value, exempt=exempt)
    if wrong:
        raise click.BadParameter(wrong, param_hint=f"--{name}")
    return value


def _credentials(
    login: str | None, password: str | None, ids: tuple[str, ...]
) -> Credentials | None:
    if login is None:
        return None
    _limited("login", login, exempt=login in ids)
    if password is None:
        raise click.BadParameter("--login needs a password too", param_hint="--password")
    _limited("password", password)
    return Credentials(login, password)


def _identities(
    controllers: int | None,
    ids: tuple[str, ...],
    seed: str,
    credentials: Credentials | None,
    secret: str | None,
) -> tuple[Identity, ...]:
    if ids and controllers is not None and controllers != len(ids):
        raise click.BadParameter(
            f"{controllers} controllers but {len(ids)} --id; give one id each",
            param_hint="--controllers",
        )
    count = len(ids) or controllers or 1
    made = new_identities(count, seed, credentials, secret)
    if not ids:
        return made
    return tuple(
        Identity(i, m.firmware, m.configuration_id, credentials, secret)
        for i, m in zip(ids, made, strict=True)
    )


async def _run(setup: Setup) -> SimulationResult:
    simulation = Simulation(setup, progress=lambda line: click.echo(visible(line), err=True))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, simulation.stopping.set)
    return await simulation.run()
