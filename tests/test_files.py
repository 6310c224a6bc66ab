"""Files: whole or not at all, never through links, never waiting for what is no file, in UTF-8."""

import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import snn_bp
from snn_bp import Data, Folder, SnnError, errors
from snn_bp.data.built import build
from snn_bp.data.cache import cache_entries, cache_folder
from snn_bp.data.recordings import find_root
from snn_bp.errors import in_home, typed
from snn_bp.files import (
    append,
    is_there,
    json_key,
    make_folder,
    read_bytes,
    read_json,
    read_object,
    read_text,
    replace_file,
    write_json,
)
from snn_bp.reports.listing import listing
from snn_bp.runs.checkpoint import read_checkpoint
from snn_bp.runs.paths import run_at, runs_under
from snn_bp.runs.provenance import commit

EVENTS = np.zeros(3, dtype=[("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "i2")])


def in_the_place_of(file: Path, kind: str) -> None:
    """Put something that is no file where a file should be."""
    if kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a folder":
        file.mkdir()
    elif kind == "a device":
        file.symlink_to("/dev/zero")
    elif kind == "a socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(file))
        server.close()


@pytest.mark.parametrize("kind", ("a pipe", "a folder", "a device", "a socket"))
def test_what_is_no_file_is_refused_at_once(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("file")
    in_the_place_of(file, kind)

    for read in (read_bytes, read_text, read_json):
        with pytest.raises(SnnError, match=f"file: .*{kind}"):
            read(file)
    if kind != "a device":  # that is a link here, which is replaced
        with pytest.raises(SnnError, match=f"should be a file, found {kind}"):
            replace_file(file, b"new")
    with pytest.raises(SnnError, match="file"):
        append(file, b"more")


def test_a_missing_a_large_and_a_strange_file_are_refused_by_name(tmp_path):
    file = tmp_path / "file"
    with pytest.raises(SnnError, match="no such file"):
        read_bytes(file)
    file.write_bytes(bytes(3 << 20))
    with pytest.raises(SnnError, match="at most 2 MB, found 3 MB"):
        read_bytes(file, limit_mb=2)
    for content, told in ((b"\xff", "UTF-8"), (b"[" * 100_000, "nested too deep"), (b"{", "not JSON")):
        file.write_bytes(content)
        with pytest.raises(SnnError, match=told):
            read_json(file)
    file.write_text("[3]")
    with pytest.raises(SnnError, match="JSON object"):
        read_object(file)


@pytest.mark.parametrize("name", ("file.writing", ".file.writing", "file"))
def test_a_planted_link_leads_nowhere(name, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(victim)

    replace_file(tmp_path / "run" / "file", b"new")

    assert victim.read_text() == "years of work" and (tmp_path / "run" / "file").read_bytes() == b"new"
    assert not (tmp_path / "run" / "file").is_symlink()


def test_nothing_is_appended_through_a_link_nor_written_into_a_linked_folder(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    (tmp_path / "log.txt").symlink_to(victim)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "plots").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SnnError, match=r"log\.txt: it should be a file, found a link"):
        append(tmp_path / "log.txt", b"more")
    with pytest.raises(SnnError, match="plots: it should be a folder, found a link"):
        make_folder(tmp_path / "plots")

    assert victim.read_text() == "years of work"


def test_temporary_names_differ_and_the_file_is_made_by_us_alone(tmp_path, monkeypatch):
    seen = []
    real = os.open

    def watching(path, flags, *rest):
        if str(path).endswith(".writing"):
            seen.append((Path(path).name, flags))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", watching)
    for _ in range(2):
        replace_file(tmp_path / "file", b"new")

    names, flags = zip(*seen, strict=True)
    assert len(set(names)) == 2 and all(flag & os.O_EXCL and flag & os.O_NOFOLLOW for flag in flags)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_the_folder_is_on_disk_too_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    kinds = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda opened: kinds.append(stat.S_IFMT(os.fstat(opened).st_mode)) or real(opened))
    write_json(tmp_path / "file", {"a": 1})
    assert kinds == [stat.S_IFREG, stat.S_IFDIR]

    def fail(opened: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SnnError, match="No space left"):
        write_json(tmp_path / "file", {"a": 2})
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and read_json(tmp_path / "file") == {"a": 1}


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository of somebody else's whose settings run a program."""
    folder, ran = tmp_path / "foreign", tmp_path / "ran"
    folder.mkdir()

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True)

    git("init", "--quiet")
    (folder / ".gitattributes").write_text("*.txt filter=theirs\n")
    (folder / "a.txt").write_text("one\n")
    git("add", "-A")
    git("commit", "--quiet", "-m", "first")
    for key in ("core.fsmonitor", "filter.theirs.clean", "filter.theirs.process", "diff.external"):
        git("config", key, f"touch {ran}; cat")
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout"):
        (folder / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (folder / ".git" / "hooks" / hook).chmod(0o755)
    monkeypatch.chdir(folder)
    return folder


def test_the_commit_is_read_and_nothing_of_the_repository_runs(repository, tmp_path):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()

    assert commit() == head
    (repository / "a.txt").write_text("two\n")
    assert commit() == head + "+changes"

    subprocess.run(["git", "pack-refs", "--all"], check=True)
    assert commit() == head + "+changes"
    assert not (tmp_path / "ran").exists()


def test_a_change_within_the_second_of_the_index_is_seen(repository):
    index, file = repository / ".git" / "index", repository / "a.txt"
    for _ in range(100):
        file.write_text("one\n")
        subprocess.run(["git", "add", "a.txt"], check=True)
        file.write_text("two\n")
        if int(index.stat().st_mtime) == int(file.stat().st_ctime):
            break

    time.sleep(1.1 - time.time() % 1)  # what git is asked with then is younger than both

    assert str(commit()).endswith("+changes")


def test_a_pipe_in_place_of_gits_head_is_no_commit(repository):
    (repository / ".git" / "HEAD").unlink()
    os.mkfifo(repository / ".git" / "HEAD")

    assert commit() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ("опыт", "µ ± 实验"))
def test_names_and_lines_survive_any_locale(name, tmp_path):
    program = (
        "import sys, pathlib\n"
        "from snn_bp.files import append, read_text, write_json\n"
        "from snn_bp.runtime.status import say\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "append(folder / 'log.txt', 'µ ± 实验'.encode())\n"
        "assert read_text(folder / 'log.txt') == 'µ ± 实验'\n"
        "write_json(folder / 'a.json', {'µ': '±'})\n"
        "say('95 % ± µ')\n"
    )
    (tmp_path / name).mkdir()
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}

    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / name)],
        env=os.environ | plain,
        capture_output=True,
    )

    assert done.returncode == 0 and done.stdout == b"95 % \\xb1 \\xb5\n", done.stderr.decode()


def test_values_of_json_that_are_equal_have_equal_keys():
    value = {"a": [1, {"b": 52}], "c": None}

    assert json_key(value) == json_key({"c": None, "a": [1.0, {"b": 52.0}]})
    assert len({json_key(each) for each in (value, {"a": [1, 52], "c": None}, {"a": [[1], {"b": 52}], "c": None})}) == 3


PACKAGE = Path(snn_bp.__file__).parent


def test_a_command_that_is_told_can_be_typed_whatever_its_path_is_called():
    for path in ("runs/a", "läufe/mit Leer", "-x", "it's $HOME", "a;b"):
        (word,) = shlex.split(typed(path))
        assert Path(word) == Path(path) and not word.startswith("-")


def test_every_command_that_is_told_has_its_path_as_it_is_typed():
    told = r"snn-bp [a-z]+ (?:RUN )?\{((?:[^{}]|\{[^{}]*\})*)\}"
    found = {
        f"{file.name}: {value}"
        for file in PACKAGE.rglob("*.py")
        for value in re.findall(told, file.read_text(encoding="utf-8"))
        if not value.startswith(("typed(", "shlex.quote("))
    }

    assert found == {"proposal.py: name"}  # of letters alone


def test_a_home_folder_that_is_none_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert in_home("root", "~/lab") == tmp_path / "lab" and in_home("root", "lab") == Path("lab")

    for refused in (
        lambda: Folder("~nobody-of-this-name/lab", sensor=(8, 8, 2)).targets,
        lambda: find_root("~nobody-of-this-name/lab"),
        cache_folder,
    ):
        monkeypatch.setenv("SNN_BP_CACHE", "~nobody-of-this-name/cache")
        with pytest.raises(SnnError, match=r"(root|SNN_BP_CACHE)='~nobody-of-this-name/.*whole path"):
            refused()


def test_home_folders_are_looked_for_in_one_place():
    assert [file.name for file in PACKAGE.rglob("*.py") if "expanduser(" in file.read_text(encoding="utf-8")] == [
        Path(errors.__file__).name
    ]


@pytest.fixture
def shut(tmp_path, monkeypatch) -> Path:
    """A folder with a file in it, of which this user may know nothing: no right can be taken of root."""
    folder = tmp_path / "shut"
    folder.mkdir()
    (folder / "experiment.json").touch()
    for name in ("lstat", "scandir", "listdir"):
        real = getattr(os, name)

        def asked(path, *more, real=real, inside=name == "lstat", **named):
            if folder in Path(path).parents if inside else Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *more, **named)

        monkeypatch.setattr(os, name, asked)
    return folder


def test_what_may_not_be_looked_at_is_not_taken_for_missing(shut):
    for look in (is_there, run_at, lambda folder: read_checkpoint(folder / "a", "")):
        with pytest.raises(SnnError, match=r"it cannot be looked at \(Permission denied\)\. Give the right to read"):
            look(shut / "experiment.json")


def test_a_folder_that_cannot_be_read_is_listed_with_the_reason(shut):
    assert runs_under(shut.parent) == [shut]
    (entry,) = listing(shut.parent).entries
    assert entry.state.startswith(f"cannot be read: {shut}/experiment.json: it cannot be looked at (Permission denied)")


def test_a_cache_that_cannot_be_read_is_not_an_empty_one(shut, monkeypatch):
    monkeypatch.setenv("SNN_BP_CACHE", str(shut))

    with pytest.raises(SnnError, match=r"cannot be read \(Permission denied\).*SNN_BP_CACHE"):
        cache_entries()


def test_a_set_that_cannot_be_kept_is_not_built(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path / "file"))
    (tmp_path / "set" / "a").mkdir(parents=True)
    for each in range(4):
        np.save(tmp_path / "set" / "a" / f"{each}.npy", EVENTS)

    with pytest.raises(SnnError, match=r"nothing was built.*SNN_BP_CACHE"):
        build(Data(Folder(str(tmp_path / "set"), sensor=(2, 2, 1)), steps=2, step_ms=1))
