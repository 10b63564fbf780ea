"""scripts/lab for real: machines that boot, a network that holds, and nothing left behind.

Needs root and the tools of `scripts/lab prepare`; run on purpose only
(`pytest tests/machines/test_lab.py`). Uses labs of its own names beside whatever
else is up on this computer.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts/lab"
#: Two runs of these tests on one computer do not meet.
NAME = f"labtest-{os.getpid()}"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")


def lab(*arguments: str, check: bool = True, name: str = NAME) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PTSLINK_LAB": name},
        timeout=240,
        check=False,
    )
    if check and done.returncode != 0:
        pytest.fail(f"lab {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done


def up(*machines: str, name: str = NAME) -> dict[str, Any]:
    asked = [word for machine in machines for word in ("--machine", machine)]
    found: dict[str, Any] = json.loads(lab("up", "--json", *asked, name=name).stdout)
    return found


def ssh(machine: str, line: str, *, name: str = NAME, check: bool = True) -> str:
    return lab("ssh", machine, "--", line, name=name, check=check).stdout.strip()


def describe(name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab("status", "--json", "--lab", name).stdout)[0]
    return found


def running(machine: str, name: str = NAME) -> dict[str, Any]:
    """What the machine's supervisor wrote: the processes that make it up."""
    directory = Path(describe(name)["ssh_config"]).parent
    found: dict[str, Any] = json.loads((directory / f"machines/{machine}/running.json").read_text())
    return found


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def traces(described: dict[str, Any]) -> list[str]:
    """Everything on this computer that still bears the lab's marks."""
    prefix = described["bridge"]
    directory = str(Path(described["ssh_config"]).parent)
    found = [
        f"link {link['ifname']}"
        for link in json.loads(output("ip", "-j", "link"))
        if link["ifname"] == prefix or link["ifname"].startswith(f"{prefix}-")
    ]
    found += [
        f"namespace {line}"
        for line in output("ip", "netns").splitlines()
        if line.startswith(f"{prefix}-")
    ]
    found += [
        f"nft {line}"
        for line in output("nft", "list", "tables").splitlines()
        if line.endswith(f" {described['nft_table']}")
    ]
    found += [
        f"route {line}"
        for line in output("ip", "route", "show", "table", "all").splitlines()
        if described["network"].removesuffix(".0/24") + "." in line
    ]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if directory in line or f"/{prefix}-" in line:
            found.append(f"mount {line}")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            groups = (process / "cgroup").read_text()
            ended = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if ended:  # an orphan PID 1 has yet to collect
            continue
        ours = described["lab"] in words or any(f"{prefix}-m" in word for word in words)
        if ours or f"/{prefix}-m" in groups:
            found.append(f"process {process.name} {' '.join(words)}")
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").rglob(f"{prefix}-m*")]
    found += [f"nspawn {path}" for path in Path("/run/systemd/nspawn").rglob(f"{prefix}-m*")]
    found += [f"loop {line}" for line in output("losetup", "-a").splitlines() if directory in line]
    found += [f"directory {directory}"] if Path(directory).exists() else []
    found += [f"lock {p}" for p in Path("/run").glob(f"ptslink-lab-{described['lab']}.lock")]
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[dict[str, Any]]:
    """A lab with a Debian 12 and a Debian 13 machine."""
    yield up("server", "newer=trixie")
    lab("down")


@pytest.fixture
def second() -> Iterator[str]:
    """The name of a further lab, taken down whatever became of it."""
    name = f"{NAME}-b"
    yield name
    lab("down", name=name)


# -- machines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "version"), [("server", "12"), ("newer", "13")])
@pytest.mark.usefixtures("pair")
def test_a_machine_is_a_running_debian_with_no_failed_unit(machine: str, version: str) -> None:
    assert ssh(machine, ". /etc/os-release; echo $ID $VERSION_ID") == f"debian {version}"
    assert ssh(machine, "systemctl is-system-running --wait", check=False) == "running"
    assert ssh(machine, "systemctl --failed --no-legend") == ""
    assert ssh(machine, "cat /proc/1/comm; hostname") == f"systemd\n{machine}"


@pytest.mark.parametrize("machine", ["server", "newer"])
@pytest.mark.usefixtures("pair")
def test_a_machine_is_bare(machine: str) -> None:
    installed = ssh(machine, "dpkg-query -W -f '${Package}\\n'").split()
    assert "openssh-server" in installed
    assert not {"nginx", "ufw", "firewalld", "python3-venv", "docker.io"} & set(installed)
    assert ssh(machine, "cat /proc/sys/net/ipv4/ip_forward") == "0"


@pytest.mark.usefixtures("pair")
def test_every_machine_has_an_identity_of_its_own() -> None:
    for line in ("cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub"):
        assert ssh("server", line) != ssh("newer", line)
    assert len(ssh("server", "cat /etc/machine-id")) == 32


@pytest.mark.parametrize("machine", ["server", "newer"])
@pytest.mark.usefixtures("pair")
def test_a_machine_reaches_the_package_mirror(machine: str) -> None:
    said = ssh(machine, "apt-get update -q 2>&1")
    assert "Reading package lists" in said
    assert not [line for line in said.splitlines() if line.startswith(("W:", "E:", "Err"))]


def test_a_machine_with_another_host_key_is_refused(pair: dict[str, Any]) -> None:
    known = Path(pair["known_hosts"])
    recorded = known.read_text()
    entries = [line.split() for line in recorded.splitlines()]
    newer = {kind: key for who, kind, key in entries if who.startswith("newer,")}
    try:
        known.write_text(
            "".join(
                f"{who} {kind} {newer[kind]}\n"
                for who, kind, _ in entries
                if who.startswith("server,")
            )
        )
        done = lab("ssh", "server", "--", "true", check=False)
        assert done.returncode == 255
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    finally:
        known.write_text(recorded)
    assert ssh("server", "echo back") == "back"


@pytest.mark.usefixtures("pair")
def test_ssh_passes_words_and_exit_status_on() -> None:
    assert lab("ssh", "server", "--", "printf", "%s|", "a  b", "$c").stdout == "a  b|$c|"
    assert lab("ssh", "server", "--", "exit 7", check=False).returncode == 7


@pytest.mark.usefixtures("pair")
def test_a_reboot_comes_back_with_disk_and_a_new_boot() -> None:
    before = running("server")
    ssh("server", "echo kept > /root/kept; echo gone > /run/gone")
    lab("reboot", "server")
    after = running("server")
    assert after["boots"] == before["boots"] + 1
    assert after["supervisor"] == before["supervisor"]
    assert ssh("server", "cat /root/kept; test ! -e /run/gone && echo new") == "kept\nnew"
    assert ssh("newer", "systemctl is-system-running", check=False) == "running"


@pytest.mark.usefixtures("pair")
def test_a_reboot_asked_for_inside_comes_back_by_itself() -> None:
    boots = running("server")["boots"]
    ssh("server", "systemctl reboot", check=False)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if running("server")["boots"] == boots + 1 and ssh("server", "echo up", check=False):
            break
        time.sleep(0.2)
    assert ssh("server", "echo up") == "up"


@pytest.mark.usefixtures("pair")
def test_a_machine_switched_off_stays_off_until_started_and_keeps_its_disk() -> None:
    ssh("newer", "echo kept > /root/kept && sync")
    lab("stop", "newer", "--hard")
    assert describe()["machines"]["newer"]["running"] is False
    assert lab("ssh", "newer", "--", "true", check=False).returncode == 255
    lab("start", "newer")
    assert ssh("newer", "cat /root/kept") == "kept"


@pytest.mark.usefixtures("pair")
def test_a_power_off_inside_is_no_reboot() -> None:
    ssh("newer", "systemctl poweroff", check=False)
    deadline = time.monotonic() + 20
    while describe()["machines"]["newer"]["running"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert running("newer")["phase"] == "halted"
    lab("up", "--machine", "server", "--machine", "newer=trixie")
    assert ssh("newer", "echo up") == "up"


@pytest.mark.usefixtures("pair")
def test_exec_enters_a_machine_whose_ssh_is_shut() -> None:
    ssh("server", "systemctl stop ssh", check=False)
    try:
        assert lab("ssh", "server", "--", "true", check=False).returncode == 255
        assert lab("exec", "server", "--", "hostname").stdout == "server\n"
    finally:
        lab("exec", "server", "--", "systemctl", "start", "ssh")
    assert ssh("server", "echo back") == "back"


@pytest.mark.usefixtures("pair")
def test_a_small_disk_fills_up_and_is_there_after_a_reboot() -> None:
    ssh("server", "mkdir -m 750 /srv/small && chown daemon /srv/small")
    lab("disk", "server", "/srv/small", "--megabytes", "16")
    assert ssh("server", "stat -c '%U %a' /srv/small") == "daemon 750"
    said = ssh("server", "head -c 20M /dev/zero 2>&1 > /srv/small/zeros || true")
    full = lab("ssh", "server", "--", "dd if=/dev/zero of=/srv/small/more bs=1M", check=False)
    assert full.returncode == 1, said
    assert "No space left on device" in full.stderr
    assert ssh("server", "touch /root/elsewhere && echo fine") == "fine"
    lab("reboot", "server")
    assert ssh("server", "findmnt -no FSTYPE /srv/small; ls /srv/small") == "ext4\nmore\nzeros"


# -- network ------------------------------------------------------------------------------------


def test_the_server_sees_a_controller_as_the_routers_address(pair: dict[str, Any]) -> None:
    seen = lab(
        "exec", "controller", "--",
        "ssh", "-F", pair["ssh_config"], "server", "echo $SSH_CONNECTION",
    ).stdout.split()  # fmt: skip
    assert seen[0] == pair["router"]["wan_address"]
    assert seen[2:] == [pair["machines"]["server"]["address"], "22"]


def test_every_controller_address_gets_out(pair: dict[str, Any]) -> None:
    for address in (pair["controller"]["addresses"][0], pair["controller"]["addresses"][-1]):
        lab("exec", "controller", "--", "ssh", "-F", pair["ssh_config"], "-b", address,
            "server", "true")  # fmt: skip


def test_the_site_cannot_be_entered_from_outside(pair: dict[str, Any]) -> None:
    network = pair["controller"]["network"]
    ssh("server", f"ip route replace {network} via {pair['router']['wan_address']}")
    target = pair["controller"]["addresses"][0]
    blocked = lab("ssh", "server", "--", f"ping -c1 -W1 {target}", check=False)
    assert blocked.returncode == 1
    lab("exec", "router", "--", "nft", "add", "rule", "ip", "site", "faults", "accept")
    assert lab("ssh", "server", "--", f"ping -c1 -W1 {target}").returncode == 0
    lab("exec", "router", "--", "nft", "flush", "chain", "ip", "site", "faults")


@pytest.mark.usefixtures("pair")
def test_a_cut_machine_reaches_the_lab_and_nothing_beyond(pair: dict[str, Any]) -> None:
    fetch = "timeout 20 apt-get update -q -o Acquire::Retries=0 2>&1"
    lab("cut-mirror", "server")
    assert "Failed to fetch" in ssh("server", fetch, check=False)
    assert ssh("server", "echo reached") == "reached"
    assert ssh("server", f"ping -c1 -W1 {pair['gateway']} > /dev/null && echo yes") == "yes"
    lab("exec", "controller", "--", "ssh", "-F", pair["ssh_config"], "server", "true")
    assert "Failed to fetch" not in ssh("newer", fetch)
    lab("restore-mirror")
    assert "Failed to fetch" not in ssh("server", fetch)


# -- faults a router can have: the commands of docs/lab.md ---------------------------------------

ECHO = """\
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            self.wfile.write(b"%d\\n" % len(line))
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
Server(("", 3000), Echo).serve_forever()
"""

#: A controller that sends lines of so many bytes with pauses between, and says what came of it.
CALLER = """\
import socket, sys, time
try:
    with socket.create_connection((sys.argv[1], 3000), 3) as link:
        answers = link.makefile("rb")
        for word in sys.argv[2:]:
            pause, size = map(float, word.split(":"))
            time.sleep(pause)
            link.sendall(b"x" * (int(size) - 1) + b"\\n")
            print(answers.readline().decode().strip(), end=" ")
except OSError as error:
    print(type(error).__name__, end="")
"""


@pytest.fixture
def call(pair: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Call an echo server on port 3000 of the machine; afterwards the router is well again."""
    script = tmp_path / "caller.py"
    script.write_text(CALLER)
    subprocess.run(
        ["ssh", "-F", pair["ssh_config"], "server", "cat > /root/echo.py"],
        input=ECHO, text=True, check=True,
    )  # fmt: skip
    ssh("server", "systemctl is-active -q echo || systemd-run -q --unit=echo python3 /root/echo.py")
    address = pair["machines"]["server"]["address"]

    def make(*words: str) -> str:
        return lab(
            "exec", "controller", "--", "/usr/bin/python3", str(script), address, *words
        ).stdout.strip()  # fmt: skip

    deadline = time.monotonic() + 10
    while make("0:2") != "2" and time.monotonic() < deadline:
        time.sleep(0.1)
    former = {
        name: router("sysctl", "-n", name)
        for name in (
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            "net.netfilter.nf_conntrack_tcp_loose",
        )
    }
    yield make
    router("nft", "flush", "chain", "ip", "site", "faults")
    for name, value in former.items():
        router("sysctl", "-qw", f"{name}={value}")
    assert make("0:2") == "2"


def router(*command: str) -> str:
    return lab("exec", "router", "--", *command).stdout.strip()


def test_fault_packets_vanish(call: Callable[..., str]) -> None:
    router("nft", "add", "rule", "ip", "site", "faults", "tcp", "dport", "3000", "drop")
    assert call("0:2") == "TimeoutError"


def test_fault_the_port_is_refused(call: Callable[..., str]) -> None:
    router("nft", "add", "rule", "ip", "site", "faults",
           "tcp", "dport", "3000", "reject", "with", "tcp", "reset")  # fmt: skip
    assert call("0:2") == "ConnectionRefusedError"


def test_fault_large_packets_vanish_and_small_ones_pass(call: Callable[..., str]) -> None:
    assert call("0:200", "0:30000") == "200 30000"
    router("nft", "add", "rule", "ip", "site", "faults", "meta", "length", ">", "1200", "drop")
    assert call("0:200", "0:1000", "0:200") == "200 1000 200"
    assert call("0:200", "0:30000") == "200 TimeoutError"


def test_no_packet_is_larger_than_the_cable_carries(call: Callable[..., str]) -> None:
    router("nft", "add", "rule", "ip", "site", "faults", "meta", "length", ">", "1500", "counter")
    assert call("0:200", "0:30000", "0:200") == "200 30000 200"
    assert "counter packets 0 " in router("nft", "list", "chain", "ip", "site", "faults")


def test_fault_the_router_forgets_an_idle_connection(call: Callable[..., str]) -> None:
    router("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_established=2")
    assert call("0:2", "1:2", "1:2", "1:2") == "2 2 2 2"
    router("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
    assert call("0:2", "1:2", "1:2", "1:2") == "2 2 2 2"
    assert call("0:2", "5:2") == "2 TimeoutError"


# -- labs ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pair")
def test_two_labs_stand_side_by_side_and_do_not_touch(pair: dict[str, Any], second: str) -> None:
    other = up("server", name=second)
    assert other["slot"] != pair["slot"]
    assert other["network"] != pair["network"]
    ssh("server", "systemctl stop ssh", name=second, check=False)
    assert ssh("server", "systemctl is-active ssh") == "active"
    lab("exec", "server", "--", "systemctl", "start", "ssh", name=second)
    address = other["machines"]["server"]["address"]
    assert lab("ssh", "server", "--", f"ping -c1 -W1 {address}", check=False).returncode != 0
    lab("down", name=second)
    assert traces(other) == []
    assert ssh("server", "echo still here") == "still here"


def test_a_machine_is_added_to_a_lab_that_is_up(pair: dict[str, Any]) -> None:
    before = running("server")["supervisor"]
    after = up("server", "newer=trixie", "third")
    assert list(after["machines"]) == ["server", "newer", "third"]
    assert ssh("third", "echo up") == "up"
    assert running("server")["supervisor"] == before
    assert after["slot"] == pair["slot"]


@pytest.mark.usefixtures("pair")
def test_another_suite_for_a_machine_that_is_up_is_refused() -> None:
    done = lab("up", "--machine", "server=trixie", check=False)
    assert done.returncode == 2
    assert "runs bookworm, not trixie" in done.stderr
    assert ssh("server", "echo still here") == "still here"


def test_four_machines_boot_side_by_side(second: str) -> None:
    names = [f"m{number}" for number in range(1, 5)]
    described = up(*names, name=second)
    assert len({m["address"] for m in described["machines"].values()}) == 4
    for name in names:
        assert ssh(name, "systemctl is-system-running --wait", name=second, check=False) == (
            "running"
        )
    lab("down", name=second)
    assert traces(described) == []


def test_packages_one_machine_fetched_are_there_for_the_next(second: str) -> None:
    archive = "/var/cache/apt/archives"
    up(name=second)
    ssh("server", "apt-get install -q -y less", name=second)
    lab("down", name=second)
    up(name=second)
    assert "/less_" in ssh("server", f"ls {archive}/*.deb", name=second)
    said = ssh("server", "apt-get install -q -y less 2>&1", name=second)
    assert "Need to get 0 B" in said


def test_a_machine_begins_from_what_another_one_left(second: str, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_text("as it was")
    of, name = f"--of={part}", f"labtest-{os.getpid()}"
    none = lab("up", f"--from={name}", of, name=second, check=False)
    assert none.returncode == 1
    assert "no snapshot" in none.stderr
    up(name=second)
    identity = ssh(
        "server", "echo kept > /root/kept; rm /etc/issue; cat /etc/machine-id", name=second
    )
    kept = Path(lab("snapshot", "server", name, of, name=second).stdout.strip())
    try:
        assert ssh("server", "cat /root/kept", name=second) == "kept", "it goes on where it was"
        lab("down", name=second)
        described = json.loads(lab("up", "--json", f"--from={name}", of, name=second).stdout)
        assert ssh("server", "cat /root/kept; ls /etc/issue 2>&1", name=second, check=False) == (
            "kept\nls: cannot access '/etc/issue': No such file or directory"
        )
        assert ssh("server", "cat /etc/machine-id", name=second) != identity
        assert ssh("server", "systemctl is-system-running --wait", name=second) == "running"
        lab("down", name=second)
        assert traces(described) == []
        part.write_text("changed")
        assert lab("up", f"--from={name}", of, name=second, check=False).returncode == 1
    finally:
        shutil.rmtree(kept)


# -- going away ---------------------------------------------------------------------------------


def test_down_leaves_no_trace_whatever_was_going_on(second: str) -> None:
    described = up(name=second)
    lab("disk", "server", "/srv/small", "--megabytes", "8", name=second)
    ssh("server", "nohup sleep 600 > /dev/null 2>&1 < /dev/null &", name=second)
    with subprocess.Popen(
        ["ip", "netns", "exec", described["controller"]["namespace"], "sleep", "600"]
    ) as left:
        assert traces(described) != []
        try:
            lab("down", name=second)
            assert left.wait(5) == -signal.SIGTERM
        finally:
            left.kill()
    assert traces(described) == []


@pytest.mark.parametrize("whom", ["nspawn", "both"])
def test_down_leaves_no_trace_after_its_own_processes_were_killed(second: str, whom: str) -> None:
    described = up(name=second)
    processes = running("server", second)
    for which in ("supervisor", "nspawn") if whom == "both" else (whom,):
        os.kill(processes[which]["pid"], signal.SIGKILL)
    lab("down", name=second)
    assert traces(described) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGKILL, "network"),
        (signal.SIGKILL, "boot"),
        (signal.SIGTERM, "boot"),
        (signal.SIGINT, "network"),
    ],
)
def test_an_interrupted_up_is_undone_or_cleared(
    second: str, number: signal.Signals, moment: str
) -> None:
    state = Path("/var/lib/ptslink-lab/labs") / second
    sign = {"network": state / "lab.json", "boot": state / "machines/server/running.json"}[moment]
    rising = subprocess.Popen(
        [str(SCRIPT), "up", "--lab", second],
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Started in the background these tests have Ctrl-C ignored, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not sign.exists():
        assert time.monotonic() < deadline
        assert rising.poll() is None
        time.sleep(0.01)
    described = describe(second)
    rising.send_signal(number)
    rising.communicate(timeout=30)
    assert rising.returncode in {
        signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (1,), signal.SIGINT: (130,),
    }[number]  # fmt: skip
    if number == signal.SIGKILL:
        assert traces(described) != []
        assert lab("ssh", "server", "--", "true", name=second, check=False).returncode == 1
        again = up(name=second)
        assert ssh("server", "echo up", name=second) == "up"
        lab("down", name=second)
        assert traces(again) == []
    assert traces(described) == []


def test_a_foreign_table_of_the_same_name_is_named_and_kept(second: str) -> None:
    table = f"ptslab_{second}"
    subprocess.run(("nft", "add", "table", "ip", table), check=True)
    try:
        done = lab("up", name=second, check=False)
        assert done.returncode == 2
        assert f"nft delete table ip {table}" in done.stderr
        assert not (Path("/var/lib/ptslink-lab/labs") / second).exists()
        assert table in output("nft", "list", "tables")
    finally:
        subprocess.run(("nft", "delete", "table", "ip", table), check=True)


# -- the computer a lab stands on ------------------------------------------------------------------


def test_a_bare_debian_run_by_systemd_holds_a_lab_after_prepare(second: str) -> None:
    """A machine of a lab plays the user's computer: real systemd, nothing installed."""
    described = up(name=second)
    into = ["ssh", "-F", described["ssh_config"], "server"]
    # An overlay does not stand on an overlay; and the image is handed over, not made again.
    lab("disk", "server", "/var/lib/ptslink-lab", "--megabytes", "512", name=second)
    image = Path(json.loads((Path(described["ssh_config"]).parent / "lab.json").read_text())
                 ["machines"][0]["image"])  # fmt: skip
    for base, what, where in (
        (REPOSITORY, ["scripts/lab", "scripts/lib"], "/root/ptslink"),
        (image.parent, [image.name], str(image.parent)),
    ):
        with subprocess.Popen(
            ["tar", "-c", "--exclude=__pycache__", "-C", str(base), *what], stdout=subprocess.PIPE
        ) as archive:
            subprocess.run(
                [*into, f"mkdir -p {where} && tar -x -C {where}"], stdin=archive.stdout, check=True
            )
    inner = "cd /root/ptslink && scripts/lab"

    refused = lab("ssh", "server", "--", f"{inner} up", name=second, check=False)
    assert refused.returncode == 2
    assert "mmdebstrap nftables systemd-container; install them with" in refused.stderr
    ssh("server", f"{inner} prepare", name=second)

    # A firewall that forwards nothing it was not told about, bridged packets included.
    ssh(
        "server",
        "nft add table ip foreign && nft 'add chain ip foreign forward "
        "{ type filter hook forward priority filter; policy drop; }'",
        name=second,
    )
    filtered = lab("ssh", "server", "--", f"{inner} up", name=second, check=False)
    assert "chain 'ip foreign forward' drops" in filtered.stderr
    if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        assert filtered.returncode == 1
        assert "not in the controllers' namespace" in filtered.stderr
        assert ssh("server", "ip -br link | grep -c ptslab", name=second, check=False) == "0"
    ssh("server", "nft delete table ip foreign", name=second)

    ssh("server", f"{inner} up", name=second)
    assert ssh("server", "systemctl is-active ptslab*.scope", name=second) == "active"
    assert ssh("server", f"{inner} ssh server -- systemctl is-system-running --wait",
               name=second, check=False) == "running"  # fmt: skip
    ssh("server", f"{inner} reboot server", name=second)
    ssh("server", f"{inner} down", name=second)
    look = "ip -br link | grep ptslab; ip netns; ls /run/netns; pgrep -a systemd-nspawn; " \
           "cat /proc/sys/net/ipv4/ip_forward; nft list ruleset"  # fmt: skip
    assert ssh("server", f"{{ {look}; }} 2>/dev/null", name=second) == "0"


# -- Ansible ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pair")
def test_ansible_reaches_every_machine_through_the_inventory() -> None:
    listed = json.loads(
        subprocess.run(
            [str(REPOSITORY / "inventory/lab/machines.sh"), "--list"],
            capture_output=True, text=True, check=True, env={**os.environ, "PTSLINK_LAB": NAME},
        ).stdout
    )  # fmt: skip
    assert {"server", "newer"} <= set(listed["forecourt_servers"]["hosts"])
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "-i", "inventory/lab",
         "forecourt_servers", "-m", "ansible.builtin.ping"],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env={**os.environ, "PTSLINK_LAB": NAME},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(listed["forecourt_servers"]["hosts"])
