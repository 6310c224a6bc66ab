"""What starts at once: help and typing errors need no torch, and `import snn_bp` imports what is asked for."""

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from runs import heard, without_phases

import snn_bp
from snn_bp.cli import app, guarded

INIT = ast.parse(Path(snn_bp.__file__).read_text(encoding="utf-8"))
HEAVY = ("torch", "numpy", "numba", "rich")
PROGRAM = (
    "import sys; sys.argv[0] = 'snn-bp'\n"
    "import snn_bp.runtime.process as process\n"
    "def leave(code): print(code, [name for name in {heavy} if name in sys.modules]); sys.exit()\n"
    "process.leave = leave\n"
    "from snn_bp.cli import entry; entry()"
)


def python(program: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["--version"], 0),
        (["trian"], 2),
        (["train", "nothing.py"], 2),
        (["evaluate", "runs/none", "--splitt", "x"], 2),
        (["evaluate"], 2),
        (["list", "nowhere"], 2),
        (["init", "nowhere"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_help_and_typing_errors_import_nothing_heavy(line, code):
    done = python(PROGRAM.format(heavy=HEAVY), *line)

    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr


COMMANDS = {
    command.name or command.callback.__name__: command for command in app.registered_commands if command.callback
}
OF_GROUPS = {
    f"{group.name} {command.name or command.callback.__name__}": command
    for group in app.registered_groups
    if group.typer_instance
    for command in group.typer_instance.registered_commands
    if command.callback
}


@pytest.fixture
def told(capsys, monkeypatch, tmp_path):
    """Run a line in an empty folder, 80 columns wide; gives output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("SNN_BP_CACHE", str(tmp_path))

    def run(line: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) if line.endswith("--help") else suppress(SystemExit):
            guarded(app, shlex.split(line.removeprefix("snn-bp ")))
        return capsys.readouterr()

    return run


@pytest.mark.parametrize("name", COMMANDS | OF_GROUPS)
def test_help_fits_80_columns_and_has_examples(name, told):
    printed, _ = told(f"snn-bp {name} --help")

    assert max(map(len, printed.splitlines())) <= 80
    assert "  Examples:\n    snn-bp " in printed


@pytest.mark.parametrize("name", COMMANDS | OF_GROUPS)
def test_examples_of_help_are_lines_that_the_command_takes(name, told):
    lines = [line.strip() for line in (COMMANDS | OF_GROUPS)[name].epilog.splitlines()[2:]]

    for line in lines:
        _, errors = told(line)
        assert "lists what there is" not in errors and "is not known" not in errors, errors
        assert line.startswith(f"snn-bp {name}")


@pytest.mark.parametrize("group", sorted({name.split()[0] for name in OF_GROUPS}))
def test_the_help_of_a_group_names_its_commands_in_whole_sentences(group, told):
    printed, _ = told(f"snn-bp {group} --help")

    commands = [line for line in printed.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert {f"{group} {line.split()[0]}" for line in commands} == {*OF_GROUPS}
    assert all(line.endswith(".") and not line.endswith("...") and len(line) <= 80 for line in commands)


def test_the_first_help_names_each_command_in_a_whole_sentence(told):
    printed, _ = told("snn-bp --help")

    rows = {line.split()[0]: line for line in printed.partition("Commands:")[2].splitlines() if line.startswith("  ")}
    assert rows.keys() >= COMMANDS.keys() and max(map(len, printed.splitlines())) <= 80
    assert all(rows[name].endswith(".") and not rows[name].endswith("...") for name in COMMANDS)


def test_the_versions_are_said(told):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snn_bp.cli.program.version", {"snn_bp": "1.2.3", "torch": "4.5.6+cpu"}.get)
        printed, errors = told("snn-bp --version")

    assert re.fullmatch(r"snn-bp 1\.2\.3, torch 4\.5\.6\+cpu, Python 3\.\d+\.\d+\n", printed) and not errors


def test_the_package_imports_nothing_until_a_name_is_asked_for():
    done = python(
        "import sys, snn_bp; print('torch' in sys.modules); snn_bp.LIF; print('torch' in sys.modules)\n"
        "print(set(snn_bp.__all__) <= set(dir(snn_bp)), hasattr(snn_bp, 'Lif'))"
    )

    assert done.stdout.split() == ["False", "True", "True", "False"]


def test_every_public_name_is_found_where_type_checkers_read_it():
    checked = next(node for node in INIT.body if isinstance(node, ast.If))
    read = {
        alias.name: node.module
        for node in ast.walk(checked)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert read == snn_bp._MODULE_OF
    assert sorted(read) == sorted(snn_bp.__all__)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "snn_bp", "cache"]

    with heard():
        started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with started:
        assert started.stdout and started.stdout.readline() == "importing\n"
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)

    assert (started.returncode, without_phases(said)) == (130, "stopped before anything began.\n")
