"""What a healthy machine is, as its own tools tell it: texts, and how they are read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class System:
    """The texts that mutations are generated from."""

    #: Path -> text of every file of nginx's effective configuration, as ``nginx -T`` prints it.
    nginx: Mapping[str, str]
    #: Unit -> its fragment, without drop-ins.
    units: Mapping[str, str]
    #: The service's configuration, and its path.
    toml: str
    toml_path: str
    #: ``systemctl show`` of the service and of nginx: unit -> property -> value.
    shown: Mapping[str, Mapping[str, str]]
    #: ``nft -a list ruleset``.
    ruleset: str
    #: /etc/ufw/user.rules.
    user_rules: str
    #: ``stat -c '%n|%U|%G|%a|%F'`` of what the link needs, a line each.
    files: str
    #: ``ip route``, a line each.
    routes: str
    #: The machine's own address, the site's as the machine sees it, the interface between.
    address: str
    site: str
    interface: str = "eth0"


# --- nginx -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive of nginx where it stands in its file."""

    file: str
    line: int
    #: It is text[start:end] of its file, block and final semicolon included.
    start: int
    end: int
    name: str
    args: tuple[str, ...]
    #: Names of the blocks around it, outermost first.
    context: tuple[str, ...]
    #: Where its block begins, behind the brace; None for a simple directive.
    body: int | None = None

    @property
    def words(self) -> str:
        """The directive on one line, without semicolon or block."""
        return " ".join((self.name, *self.args))


_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|(?:\\.|\$\{[^}]*\}|[^\s{};])+""",
    re.DOTALL,
)


def directives(file: str, text: str) -> list[Directive]:
    """Every directive of one file, in the order in which they begin."""
    found: list[Directive] = []
    open_blocks: list[tuple[int, str]] = []
    words: list[str] = []
    start = 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word.isspace() or word.startswith("#"):
            continue
        if word in ("{", ";") and words:
            context = tuple(name for _, name in open_blocks)
            line = text.count("\n", 0, start) + 1
            if word == "{":
                found.append(Directive(file, line, start, -1, words[0], tuple(words[1:]), context,
                                       token.end()))  # fmt: skip
                open_blocks.append((len(found) - 1, words[0]))
            else:
                found.append(
                    Directive(file, line, start, token.end(), words[0], tuple(words[1:]), context)
                )
            words = []
        elif word == "}":
            number, _ = open_blocks.pop()
            one = found[number]
            found[number] = Directive(one.file, one.line, one.start, token.end(), one.name,
                                      one.args, one.context, one.body)  # fmt: skip
        else:
            if not words:
                start = token.start()
            words.append(word)
    return found


#: Blocks whose lines are data, not directives.
_DATA = frozenset({"types", "map", "geo"})


def effective(system: System) -> Iterator[Directive]:
    """Every directive of the effective configuration that is no line of a table."""
    for file, text in system.nginx.items():
        for one in directives(file, text):
            if not _DATA & {*one.context}:
                yield one


def split_configuration(printed: str) -> dict[str, str]:
    """``nginx -T`` as path -> text."""
    parts = re.split(r"^# configuration file (\S+):\n", printed, flags=re.MULTILINE)
    return {
        path: text.removesuffix("\n") for path, text in zip(parts[1::2], parts[2::2], strict=True)
    }


# --- units and settings ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """A ``key = value`` line of a unit or of a TOML file."""

    section: str
    key: str
    value: str
    #: It is text[start:end], without the line break.
    start: int
    end: int


_SECTION = re.compile(r"\[([^\]]+)\]\s*$")
_SETTING = re.compile(r"([A-Za-z_][\w-]*)\s*=\s*(.*)$")


def settings(text: str) -> list[Setting]:
    """Every setting of a text made of ``[section]`` and ``key = value`` lines."""
    found, section, place = [], "", 0
    for line in text.splitlines(keepends=True):
        if named := _SECTION.match(line):
            section = named[1]
        elif told := _SETTING.match(line):
            end = place + len(line.rstrip("\n"))
            found.append(Setting(section, told[1], told[2].strip(), place, end))
        place += len(line)
    return found


def replaced(text: str, start: int, end: int, by: str) -> str:
    """*text* with what is between *start* and *end* replaced."""
    return text[:start] + by + text[end:]


# --- firewall and files ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in force, as ``nft -a list ruleset`` has it."""

    family: str
    table: str
    chain: str
    text: str
    handle: str


_TABLE = re.compile(r"table (\w+) (\S+) \{")
_CHAIN = re.compile(r"\s+chain (\S+) \{")
_RULE = re.compile(r"\s+(.+?) # handle (\d+)$")


def rules(ruleset: str) -> Iterator[Rule]:
    """Every rule of the ruleset."""
    family = table = chain = ""
    for line in ruleset.splitlines():
        if named := _TABLE.match(line):
            family, table, chain = named[1], named[2], ""
        elif named := _CHAIN.match(line):
            chain = named[1]
        elif (rule := _RULE.match(line)) and chain:
            yield Rule(family, table, chain, rule[1], rule[2])


def allowed_ports(user_rules: str) -> list[int]:
    """The TCP ports that ufw's own rules allow from anywhere, ssh's left out."""
    found = re.findall(r"^### tuple ### allow tcp (\d+) 0\.0\.0\.0/0", user_rules, re.MULTILINE)
    return [int(port) for port in found if port != "22"]


@dataclass(frozen=True, slots=True)
class Needed:
    """A file or directory that the link needs."""

    path: str
    owner: str
    group: str
    mode: str
    what: str

    @property
    def directory(self) -> bool:
        return self.what == "directory"


def needed(files: str) -> list[Needed]:
    """What ``stat`` told, a line each."""
    return [Needed(*line.split("|")) for line in files.splitlines() if line.count("|") == 4]
