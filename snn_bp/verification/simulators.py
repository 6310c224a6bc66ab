"""The simulators of Verilog on this machine, Icarus Verilog and Verilator: what a testbench says in them.

They run in a folder of files that `chip/verilog` wrote, whose names are fixed; nothing of a user's folder is executed.
"""

import errno
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from snn_bp.errors import SnnError
from snn_bp.runtime.process import run_program

Name: TypeAlias = Literal["iverilog", "verilator"]
NEEDS = {"iverilog": ("iverilog", "vvp"), "verilator": ("verilator", "make", "g++")}  # programs
PACKAGES = {"iverilog": "iverilog", "verilator": "verilator make g++", "yosys": "yosys"}  # Debian's names
PROGRAMS = {"iverilog": "simulation", "verilator": "obj_dir/Vtestbench"}  # what is compiled
COMPILED_S = 600  # the longest a program may take to compile a testbench
ROOM = 64 * 2**20  # bytes: with fewer left, a program may have failed for want of them, and says so seldom
KEPT = ("PATH", "HOME", "TMPDIR", "TEMP", "SYSTEMROOT", "LANG")  # variables of the environment that programs get


@dataclass(frozen=True)
class Simulator:
    """A simulator that is there."""

    name: str
    version: str


@dataclass(frozen=True)
class Simulated:
    """What a testbench said; of each layer the neurons, step by step, whose spike and potential were compared."""

    recordings: int
    cycles: tuple[int, int, int]  # from a recording's first spike in to its end out: the least, of all, the most
    compared: tuple[int, ...]
    different: tuple[int, ...]
    words: tuple[int, ...]  # words of weights that each layer added
    difference: tuple[str, int, str] | None  # the first: the layer or "output", the recording, and the rest in words

    def in_words(self, names: Sequence[str], *, first: int = 0) -> str | None:
        """The first difference, with the names of the layers; recordings count from `first`."""
        if self.difference is None:
            return None
        where, recording, said = self.difference
        name = names[int(where.removeprefix("layer "))] if where != "output" else where
        return f"the circuit, {name}, recording {first + recording}{said}"


def find_simulators(name: Name | None = None) -> list[Simulator]:
    """The simulator of this name, or all that are here; raises with what to install where there is none."""
    missing = {each: [program for program in needed if shutil.which(program) is None] for each, needed in NEEDS.items()}
    if name is not None and missing[name]:
        raise SnnError(
            f"simulator={name!r}: {' and '.join(missing[name])} not found. On Debian: apt-get install {PACKAGES[name]}."
        )
    if all(missing.values()):
        raise SnnError(
            "no simulator of Verilog is here, neither iverilog nor verilator. On Debian: apt-get install iverilog. "
            "`--no-verify` writes the folder without one."
        )
    return [Simulator(each, version_of(each)) for each in NEEDS if not missing[each] and name in (None, each)]


def version_of(program: str) -> str:
    """What a program calls its version, or "unknown"."""
    done = run_program([program, "-V"], timeout_s=60, folder=None, environment=environment())
    found = re.search(r"(?:version|Verilator|Yosys) (\d[\w.]*)", done[1]) if done is not None else None
    return found[1] if found else "unknown"


def environment() -> dict[str, str]:
    """What the programs see of the environment: no compiler flags, no other installation."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def compile_testbench(simulator: Simulator, folder: Path) -> None:
    """Make the simulation of the folder's testbench."""
    files = sorted(file.name for file in folder.glob("*.v"))
    if simulator.name == "iverilog":
        command = ["iverilog", "-g2005", "-s", "testbench", "-o", PROGRAMS["iverilog"], *files]
    else:
        command = ["verilator", "--binary", "--timing", "-Wno-fatal", "--top-module", "testbench", *files]
    run_in(folder, command, timeout_s=COMPILED_S)


def run_testbench(simulator: Simulator, folder: Path, *, timeout_s: float, stall: bool = False) -> Simulated:
    """What the compiled testbench says of the folder's vectors; `stall` puts gaps into its streams."""
    program = str(folder / PROGRAMS[simulator.name])
    command = [*(["vvp", "-n"] if simulator.name == "iverilog" else []), program, *["+stall"] * stall]
    said = run_in(folder, command, timeout_s=timeout_s, fails=True)
    try:
        return said_by(said)
    except SnnError as problem:
        why = str(problem)
    raise _failure(why, folder)


def said_by(output: str) -> Simulated:
    """What the lines of a testbench say."""
    layers = re.findall(r"^layer \d+: (\d+) compared, (\d+) different, (\d+) words", output, re.MULTILINE)
    ends = re.search(
        r"^cycles: (\d+) recordings, (\d+) least, (\d+) in all, (\d+) most\s+^(PASS|FAIL)$", output, re.MULTILINE
    )
    if not layers or ends is None:
        raise SnnError(f"the testbench did not come to its end. It said: {_end_of(output)}")
    first = re.search(r"^(layer \d+|output): first difference: recording (\d+)(.*)$", output, re.MULTILINE)
    compared, different, words = (tuple(map(int, column)) for column in zip(*layers, strict=True))
    recordings, *cycles = map(int, ends.groups()[:4])
    if (ends[5] == "PASS") != (first is None and not any(different) and recordings > 0):
        raise SnnError(f"the testbench failed. It said: {_end_of(output)}")
    difference = (first[1], int(first[2]), first[3].rstrip()) if first else None
    return Simulated(recordings, tuple(cycles), compared, different, words, difference)  # type: ignore[arg-type]


def run_in(folder: Path, command: list[str], *, timeout_s: float, fails: bool = False) -> str:
    """What a program said in a folder; raises where it was not there, took longer, or failed unless it `fails`."""
    ours = environment() | {"TMPDIR": str(folder)}  # which can be written; not every program looks for another
    done = run_program(command, timeout_s=timeout_s, folder=folder, environment=ours)
    name = Path(command[0]).name
    if done is None:
        raise SnnError(f"{name} cannot be started. On Debian: apt-get install {PACKAGES.get(name, name)}.")
    code, said = done
    if code is None:
        raise SnnError(f"{name} did not end within {timeout_s:.0f} s, and was ended. It said: {_end_of(said)}")
    if code != 0 and not fails:
        raise _failure(f"{name} failed with code {code}. It said: {_end_of(said)}", folder)
    return said


def _failure(problem: str, folder: Path) -> SnnError:
    """The error of a program; where the disk of its folder is all but full, that first."""
    if (free := shutil.disk_usage(folder).free) >= ROOM:
        return SnnError(problem)
    told = f"{folder}: {free / 2**20:.1f} MB are left there, which may be why. TMPDIR names a folder with more room."
    error = SnnError(f"{told} {problem}")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


def _end_of(output: str) -> str:
    return " ".join(output.split())[-500:] or "nothing"
