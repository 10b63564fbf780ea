"""One change of a healthy system: how it is made and undone, and whose it is. Pure."""

from __future__ import annotations

import base64
import enum
import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from machines.faults.fault import Step, server
from machines.mutations.system import System


class Party(enum.StrEnum):
    """Whose file or act a change is: who has to undo it."""

    NGINX = "nginx"
    FIREWALL = "firewall"
    SERVICE = "service"
    UNIT = "unit"
    FILE = "file"
    CERTIFICATE = "certificate"
    PROCESS = "process"
    MACHINE = "network of the machine"
    PATH = "path"
    SITE = "site"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Truth:
    """What a finding has to name."""

    #: Any of them is right; the first is the owner.
    parties: tuple[Party, ...]
    #: The exact thing: any of these texts, upper and lower case alike, white space alike.
    things: tuple[str, ...]
    #: What was done, for a person.
    told: str


@dataclass(frozen=True, slots=True)
class Way:
    """How a mutation is reached: the URL, and what the controller and the doctor add to it."""

    url: str
    controller: str = ""
    doctor: tuple[str, ...] = ()


PLAIN = Way("ws://{server}/ptsWebSocket")
DIRECT = Way("ws://{server}:3000/ptsWebSocket")
_CA = "{authority}/ca.pem"
SECURE = Way("wss://{server}/ptsWebSocket", f"--ca {_CA}", ("--ca", _CA))
#: Every way that the machine of the bench offers.
WAYS = (PLAIN, DIRECT, SECURE)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One step away from a healthy system."""

    kind: str
    #: Tells it from the others of its kind; the same in every run on the same system.
    what: str
    truth: Truth
    apply: tuple[Step, ...]
    undo: tuple[Step, ...]
    way: Way = PLAIN
    #: Seconds for which a link has to live without a word of the controller's to count as good.
    quiet: float = 0.0
    #: Works now and then: that it did is no sign that nothing is wrong.
    chance: bool = False
    #: A controller that is itself the mutation: arguments of :mod:`machines.mutations.device`.
    device: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"{self.kind}/{self.what}"

    @property
    def fixed_name(self) -> str:
        """The same in every lab, whose networks have numbers of their own: by this it is chosen,
        and named among the fixed inputs."""
        return re.sub(r"\b10\.(7[78])\.\d+\.", r"10.\1.LAB.", self.name)


Generator = Callable[[System], Iterator[Mutation]]
KINDS: dict[str, Generator] = {}


def kind(name: str) -> Callable[[Generator], Generator]:
    """Register a generator of mutations under *name*."""

    def register(generator: Generator) -> Generator:
        KINDS[name] = generator
        return generator

    return register


def quarter(names: Iterable[str]) -> frozenset[str]:
    """The quarter of *names*, rounded, whose hashes are the lowest."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return frozenset(ranked[: round(len(ranked) / 4)])


def generated(system: System, kinds: Iterable[str]) -> dict[str, list[Mutation]]:
    """Every mutation of *kinds*, by kind, each name once."""
    return {
        name: list({one.name: one for one in KINDS[name](system)}.values())
        for name in kinds
    }  # fmt: skip


def sample(found: dict[str, list[Mutation]], seed: str, count: int) -> list[Mutation]:
    """*count* of each kind (0: all), chosen and put in order by *seed* alone.

    What is chosen of one kind does not depend on which other kinds are asked for.
    """

    def rank(one: Mutation) -> bytes:
        return hashlib.sha256(f"{seed}\0{one.fixed_name}".encode()).digest()

    chosen = []
    for mutations in found.values():
        ranked = sorted(mutations, key=rank)
        chosen += ranked[:count] if count else ranked
    return sorted(chosen, key=rank)


# --- Changing files ----------------------------------------------------------------------------

#: Where what a mutation replaces waits for its return.
KEPT = "/run/mutated"


def keep(*paths: str) -> str:
    """A shell line that keeps *paths* as they are, missing ones as missing."""
    quoted = " ".join(map(shlex.quote, paths))
    return (
        f"rm -rf {KEPT}; mkdir -p {KEPT} && "
        f"for p in {quoted}; do if [ -e $p ] || [ -L $p ]; then "
        # Behind a link lies what is written.
        f"cp -a --parents $p $(readlink -e $p) {KEPT}/; fi; done"
    )


def give_back(*paths: str) -> str:
    """A shell line that makes *paths* what :func:`keep` kept."""
    quoted = " ".join(map(shlex.quote, paths))
    return (
        f"for p in {quoted}; do if [ -e {KEPT}$p ] || [ -L {KEPT}$p ]; then "
        f"rm -rf $p; cp -a {KEPT}$p $p; t=$(readlink -m $p); "
        f"[ $t = $p ] || [ ! -e {KEPT}$t ] || cp -a {KEPT}$t $t; else rm -rf $p; fi; done"
    )


def write(path: str, content: str | bytes) -> str:
    """A shell line that writes *content*; owner and mode of a file that exists stay."""
    data = content if isinstance(content, bytes) else content.encode()
    packed = base64.b64encode(data).decode()
    folder = shlex.quote(str(PurePosixPath(path).parent))
    return f"mkdir -p {folder} && printf %s {packed} | base64 -d > {shlex.quote(path)}"


@dataclass(frozen=True, slots=True)
class Restart:
    """How a unit takes over what was changed: a shell line that succeeds whatever comes of it."""

    line: str


def _again(*units: str, settled: str) -> Restart:
    """Stop and start *units*; waits at most 4 s until *settled* runs, fails, or keeps starting."""
    names = " ".join(units)
    return Restart(
        f"systemctl daemon-reload; systemctl stop {names}; systemctl reset-failed {names}; "
        f"systemctl start --no-block {names}; "
        f"for n in $(seq 40); do case $(systemctl is-active {settled}) in "
        "active|failed) break;; esac; sleep 0.1; done; sleep 0.2; true"
    )


NGINX_AGAIN = _again("nginx.service", settled="nginx.service")
SERVICE_AGAIN = _again("ptslink.socket", "ptslink.service", settled="ptslink.service")
#: What each unit of the link needs to be started again.
AGAIN = {
    "nginx.service": NGINX_AGAIN,
    "ptslink.service": SERVICE_AGAIN,
    "ptslink.socket": SERVICE_AGAIN,
}


@dataclass(frozen=True, slots=True)
class Edit:
    """New contents of files, and what then takes them over."""

    files: dict[str, str | bytes] = field(default_factory=dict)
    then: Restart = NGINX_AGAIN
    #: Further shell lines between writing and taking over.
    more: tuple[str, ...] = ()
    #: Paths that those lines change.
    touched: tuple[str, ...] = ()

    @property
    def apply(self) -> tuple[Step, ...]:
        """The steps that make it so."""
        lines = [keep(*self.files, *self.touched)]
        lines += [write(path, content) for path, content in self.files.items()]
        lines += [*self.more]
        return (server(" && ".join(lines)), server(self.then.line, may_fail=True))

    @property
    def undo(self) -> tuple[Step, ...]:
        """The steps back."""
        paths = (*self.files, *self.touched)
        return (server(give_back(*paths)), server(self.then.line, may_fail=True))
