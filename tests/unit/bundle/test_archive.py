"""A bundle follows from its content alone, and is refused once anything in it is changed."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ptsbundle import Refused, cli, layout, signature
from ptsbundle.archive import File, Reader, manifest, parse_sums, sums, write

FACTS = {
    "format": layout.FORMAT,
    "release": "0.1.0-abc",
    "revision": None,
    "targets": [{"python": "3.11", "machine": "x86_64"}],
    "systems": [{"suite": "bookworm", "architecture": "amd64"}],
}
WHEELS = layout.wheelhouse("3.11", "x86_64", "0.1.0-abc")
CONTENT = {
    "debian/bookworm-amd64/Packages": b"Package: ufw\n",
    "debian/bookworm-amd64/ufw_1_all.deb": b"a deb" * 1000,
    WHEELS: b"wheels" * 1000,
}


def key(directory: Path, name: str) -> Path:
    path = directory / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@example", "-f", path],
        check=True,
    )
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("keys")
    return {name: key(directory, name) for name in ("ours", "stranger")}


@pytest.fixture
def signers(tmp_path: Path, keys: dict[str, Path]) -> Path:
    path = tmp_path / "signers"
    path.write_text(signature.signers_line(keys["ours"]) + "\n")
    return path


@pytest.fixture
def build(tmp_path: Path, keys: dict[str, Path]) -> Callable[..., Path]:
    """A bundle, with content, sums or members other than a good one's where asked for."""

    def made(
        name: str = "site.bundle",
        *,
        signed: str | None = "ours",
        after: dict[str, bytes] | None = None,
        without: str = "",
        more: list[File] | None = None,
        facts: dict[str, object] | None = None,
    ) -> Path:
        files = [File(key, value) for key, value in CONTENT.items()]
        files.append(File(layout.MANIFEST, manifest({**FACTS, **(facts or {})}, [])))
        listed = sums(files)
        head = [File(layout.SUMS, listed)]
        if signed:
            head.append(File(layout.SIGNATURE, signature.sign(listed, keys[signed])))
        members = {file.name: file for file in [*head, *files]}
        members |= {key: File(key, value) for key, value in (after or {}).items()}
        members.pop(without, None)
        path = tmp_path / name
        write(path, [*members.values(), *(more or [])])
        return path

    return made


def judge(path: Path, signers: Path | None, *, unsigned: bool = False) -> str:
    with Reader(path) as reader:
        return cli.judge(reader, signers, unsigned)[1]


def test_a_good_bundle_names_who_signed_it(build: Callable[..., Path], signers: Path) -> None:
    assert judge(build(), signers) == "ours@example"


def test_the_same_content_makes_the_same_bytes(build: Callable[..., Path]) -> None:
    assert build("a").read_bytes() == build("b").read_bytes()


def test_sums_are_what_sha256sum_reads(build: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "--extract", "--file", build()], cwd=tmp_path / "out", check=True)
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", layout.SUMS],
        cwd=tmp_path / "out",
        check=True,
    )


def with_own_sums(content: bytes) -> dict[str, bytes]:
    """What somebody without the key can do: change a file, and the list of sums with it."""
    files = {**CONTENT, WHEELS: content}
    members = [File(key, value) for key, value in files.items()]
    members.append(File(layout.MANIFEST, manifest(FACTS, [])))
    return {WHEELS: content, layout.SUMS: sums(members)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"after": {WHEELS: b"other"}}, "was changed or damaged"),
        ({"after": with_own_sums(b"other")}, "signature is not of its content"),
        ({"signed": "stranger"}, "signed by a key that"),
        ({"signed": None}, "it is not signed"),
        ({"after": {layout.SIGNATURE: b"no signature"}}, "signed by a key that"),
        ({"without": WHEELS}, f"lacks {WHEELS}"),
        ({"without": layout.SUMS}, f"lacks {layout.SUMS}"),
        ({"more": [File("extra", b"x")]}, "holds, unlisted, extra"),
        ({"more": [File(WHEELS, b"x")]}, "twice"),
        ({"more": [File("../evil", b"x")]}, "no plain file"),
        ({"more": [File("/evil", b"x")]}, "no plain file"),
        ({"facts": {"format": 99}}, "of format 99"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bundle_that_is_not_as_it_was_signed_is_refused(
    build: Callable[..., Path], signers: Path, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(Refused, match=says.replace("(", r"\(")):
        judge(build(**arguments), signers)


@pytest.mark.parametrize("size", [0, 1, 512, 5000, -2000])
def test_part_of_a_bundle_is_refused(build: Callable[..., Path], signers: Path, size: int) -> None:
    path = build()
    whole = path.read_bytes()
    path.write_bytes(whole[: size if size >= 0 else CONTENT_END(whole) + size])
    with pytest.raises(Refused):
        judge(path, signers)


def CONTENT_END(whole: bytes) -> int:  # noqa: N802 (reads as a constant where it is used)
    """Where the last member ends: what a tar pads behind it is of no account."""
    return len(whole.rstrip(b"\0"))


@pytest.mark.parametrize("place", range(0, 20))
def test_one_byte_changed_anywhere_in_a_file_is_found(
    build: Callable[..., Path], signers: Path, place: int
) -> None:
    path = build()
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        spans = [(m.offset_data, m.size) for m in tar.getmembers()]
    total = sum(size for _, size in spans)
    position = total * place // 20
    for offset, size in spans:
        if position < size:
            content[offset + position] ^= 1
            break
        position -= size
    path.write_bytes(content)
    with pytest.raises(Refused):
        judge(path, signers)


def test_without_anybody_named_a_signed_bundle_is_refused(build: Callable[..., Path]) -> None:
    with pytest.raises(Refused, match="nobody is named"):
        judge(build(), None)


def test_signers_that_are_not_there_are_named(build: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nowhere, is not there"):
        judge(build(), tmp_path / "nowhere")


def test_a_signature_for_another_purpose_does_not_count(
    build: Callable[..., Path], signers: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    with tarfile.open(build()) as tar:
        listed = tar.extractfile(layout.SUMS)
        assert listed
        (tmp_path / "message").write_bytes(listed.read())
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", keys["ours"], "-n", "file", tmp_path / "message"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    other = (tmp_path / "message.sig").read_bytes()
    with pytest.raises(Refused):
        judge(build(after={layout.SIGNATURE: other}), signers)


def test_told_so_an_unsigned_bundle_is_taken_but_no_damaged_one(
    build: Callable[..., Path],
) -> None:
    assert judge(build(signed=None), None, unsigned=True) == ""
    with pytest.raises(Refused, match="changed or damaged"):
        judge(build(after={WHEELS: b"other"}), None, unsigned=True)


@pytest.mark.parametrize(
    "line",
    ["", "abc  name", "0" * 64 + " name", "0" * 64 + "  ../name", "0" * 64 + "  /name", "\xff"],
)
def test_a_line_of_sums_is_of_one_form(line: str) -> None:
    with pytest.raises(Refused):
        parse_sums(f"{line}\n".encode("latin-1"))


def test_a_name_listed_twice_is_refused() -> None:
    line = f"{hashlib.sha256(b'').hexdigest()}  name\n".encode()
    assert list(parse_sums(line)) == ["name"]
    with pytest.raises(Refused):
        parse_sums(line * 2)


def test_what_the_roles_need_is_taken_out(build: Callable[..., Path], tmp_path: Path) -> None:
    with Reader(build()) as reader:
        reader.verify()
        found = cli.extract(reader, tmp_path / "cache", ["bookworm-amd64", "ufw_1_all.deb"])
    home = Path(found["home"])
    assert (home / WHEELS).read_bytes() == CONTENT[WHEELS]
    with tarfile.open(found["packages"]) as tar:
        assert tar.getnames() == ["Packages", "ufw_1_all.deb"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--verify", "a", "--unpack", "b", "--to", "c"], "one of them"),
        (["--verify", "a", "--suite", "trixie"], "do not go with --verify"),
        (["--signers", "a"], "go with --verify"),
        (["--unpack", "a"], "go together"),
        (["--suite", "sarge"], "bookworm"),
    ],
)
def test_arguments_that_do_not_go_together_are_named(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_help_fits_eighty_columns() -> None:
    assert max(map(len, cli.parser().format_help().splitlines())) <= 80


def test_what_was_taken_out_before_is_believed_by_its_hash_alone(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    """Same sizes, other bytes: whoever may write to the cache must not choose what machines get."""
    cache, pick = tmp_path / "cache", ["bookworm-amd64", "ufw_1_all.deb"]
    with Reader(build()) as reader:
        reader.verify()
        found = cli.extract(reader, cache, pick)
        kept = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
        assert len(kept) == 3
        for path, content in kept.items():
            path.write_bytes(bytes(len(content)))
        (Path(found["home"]) / WHEELS).unlink()
        (Path(found["home"]) / WHEELS).symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").write_bytes(CONTENT[WHEELS])
        assert cli.extract(reader, cache, pick) == found
    assert {path: path.read_bytes() for path in kept} == kept
    assert not (Path(found["home"]) / WHEELS).is_symlink()


def test_a_bundle_that_changes_while_it_is_read_is_refused(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    path = build()
    with Reader(path) as reader:
        reader.verify()
        content = path.read_bytes().replace(CONTENT[WHEELS], bytes(len(CONTENT[WHEELS])))
        path.write_bytes(content)
        with pytest.raises(Refused, match="changed while it was read"):
            cli.extract(reader, tmp_path / "cache", None)
