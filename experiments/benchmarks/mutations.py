"""Does a damaged, swapped or hostile file ever end in a traceback, a hang, a wrong figure or a run started over?

    python experiments/benchmarks/mutations.py [--count 1000] [--seed 0] [--only KIND]

Makes a small set of recordings in N-MNIST's layout, a finished run, a run killed half way, a cache and exported files.
Each trial copies them, changes one file (cut short, bytes flipped, two files swapped, numbers or words of a JSON or CSV
changed, of another version, emptied, deleted, a folder, FIFO, socket or link in its place, a planted temporary file)
and runs a command on the copy. Allowed are: the result of the untouched copy, or one line that says what is wrong.
Writes experiments/results/mutations.json and exits with 1 where a trial fails.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forked import Ended, command, fork, kill_at_operation

from snn_bp import LIF, Data, Dense, Experiment, Flatten, Run, Train, train
from snn_bp.files import write_json
from snn_bp.runs.provenance import machine, version

LIMIT_S = 60
VICTIM = "a file outside the run\n"
KINDS = {"run": 350, "half run": 250, "recordings": 150, "cache": 100, "net": 75, "nir": 75}  # of every 1000 trials


def experiment(root: Path) -> Experiment:
    """A network that learns the made recordings within a second, for the chip's formats."""
    return Experiment(
        Data("nmnist", step_ms=62, steps=5, downsample=2, batch=16, root=str(root)),
        (Flatten(), Dense(16), LIF(beta=0.8, reset="zero"), Dense(10), LIF(beta=0.8, reset="zero")),
        Train(epochs=4, lr=5e-3),
    )


def make_recordings(root: Path) -> None:
    """Six training and three test recordings of each class in N-MNIST's files: events around a place for each class."""
    draw = np.random.default_rng(0)
    for part, count in (("Train", 6), ("Test", 3)):
        for label in range(10):
            folder = root / "NMNIST" / part / str(label)
            folder.mkdir(parents=True)
            for number in range(count):
                times = np.sort(draw.integers(0, 300_000, 400))
                x, y = draw.integers(0, 5, 400) + 3 * label, draw.integers(0, 5, 400) + 3 * ((7 * label) % 10)
                second = (draw.integers(0, 2, 400) << 7) | (times >> 16)
                columns = (x, y, second, (times >> 8) & 255, times & 255)
                file = folder / f"{part[0].lower()}{label}{number:03}.bin"
                file.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


@dataclass
class Trial:
    """One change and what came of it."""

    kind: str
    what: str
    command: str
    verdict: str
    detail: str = ""


@dataclass
class House:
    """The untouched files, and what the commands answer over them.

    A trial always happens in the folder `copy`: the cache knows recordings by their path.
    """

    folder: Path
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def copy(self) -> Path:
        """Where commands run."""
        return self.folder / "trial" / "copy"

    @property
    def outside(self) -> Path:
        """Beside it, what no command may touch."""
        return self.folder / "trial" / "outside"

    def restore(self) -> Path:
        """A new copy of the untouched files."""
        shutil.rmtree(self.folder / "trial", ignore_errors=True)
        self.outside.mkdir(parents=True)
        (self.outside / "victim.txt").write_text(VICTIM)
        shutil.copytree(self.folder / "untouched", self.copy, symlinks=True)
        return self.copy


# Changes


def cut(file: Path, draw: random.Random) -> None:
    """Cut short at any place."""
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(max(1, len(content)))])


def flip(file: Path, draw: random.Random) -> None:
    """One to eight bits flipped."""
    content = bytearray(file.read_bytes())
    for _ in range(draw.choice((1, 1, 2, 8)) if content else 0):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def zero(file: Path, draw: random.Random) -> None:
    """Half of the bytes overwritten by zeros."""
    content = bytearray(file.read_bytes())
    half = len(content) // 2
    content[half:] = bytes(len(content) - half)
    file.write_bytes(content)


def grow(file: Path, draw: random.Random) -> None:
    """Bytes added at the end."""
    file.write_bytes(file.read_bytes() + draw.randbytes(draw.randrange(1, 100)))


def swap(file: Path, draw: random.Random) -> None:
    """Another file of the same folder in its place."""
    others = [other for other in file.parent.iterdir() if other.is_file() and other != file]
    if others:
        shutil.copy(draw.choice(sorted(others)), file)


def empty(file: Path, draw: random.Random) -> None:
    """No byte left."""
    file.write_bytes(b"")


def delete(file: Path, draw: random.Random) -> None:
    """Gone."""
    file.unlink()


def as_folder(file: Path, draw: random.Random) -> None:
    """A folder in its place."""
    file.unlink()
    file.mkdir()


def as_fifo(file: Path, draw: random.Random) -> None:
    """A FIFO in its place, which nobody writes to."""
    file.unlink()
    os.mkfifo(file)


def as_socket(file: Path, draw: random.Random) -> None:
    """A socket in its place."""
    file.unlink()
    here = os.getcwd()
    os.chdir(file.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(file.name)
    os.chdir(here)


def as_device(file: Path, draw: random.Random) -> None:
    """A link to a device that never ends."""
    file.unlink()
    file.symlink_to("/dev/zero")


def as_link(file: Path, draw: random.Random) -> None:
    """A link to a file outside, to nothing, or to itself."""
    target = draw.choice((outside(file) / "victim.txt", outside(file) / "nothing", file))
    file.unlink()
    file.symlink_to(target)


def planted(file: Path, draw: random.Random) -> None:
    """A link to a file outside where a temporary file may be written."""
    for ending in (".writing", ".tmp", "~"):
        file.with_name(file.name + ending).symlink_to(outside(file) / "victim.txt")


def edited(file: Path, draw: random.Random) -> None:
    """A number or word of a text replaced by another, or by null, NaN, a list, or very deep nesting."""
    text = file.read_text(errors="surrogateescape")
    words = list(re.finditer(r'-?\d+(?:\.\d+)?(?:e-?\d+)?|"[^"\n]*"|true|false|null', text))
    if not words:
        return
    word = draw.choice(words)
    new = draw.choice(("null", "NaN", "-1", "1e999", '"x"', "[]", "{}", "0", "7", "true", "[" * 5000, "1" * 5000))
    file.write_text(text[: word.start()] + new + text[word.end() :], errors="surrogateescape")


def other_version(file: Path, draw: random.Random) -> None:
    """Every format and version number raised."""
    text = file.read_bytes()
    file.write_bytes(re.sub(rb'("(?:format|version|snn_bp)": *"?)(\d)', lambda m: m[1] + b"9", text))


def outside(file: Path) -> Path:
    """The folder beside the copies that no command may touch."""
    return next(parent for parent in file.parents if parent.name == "trial") / "outside"


CHANGES = (
    cut, cut, flip, flip, flip, zero, grow, swap, empty, delete, as_folder, as_fifo, as_socket, as_device, as_link,
    planted, edited, edited, edited, other_version,
)  # fmt: skip


# What a command answers


def figures(ended: Ended, copy: Path) -> Any:
    """What `evaluate --json` printed."""
    return json.loads(ended.out[ended.out.index("{") :])


def weights_of(run: Path, checkpoint: str = "last") -> str:
    """A hash of the weights of a run's checkpoint, its rows without times, and its test figures."""
    opened = Run(run)
    digest = hashlib.sha256()
    for name, tensor in sorted(opened.load(checkpoint).weights.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    timed = ("seconds", "wait_seconds", "samples_per_s", "peak_memory_mb")
    rows = [{name: value for name, value in row.items() if name not in timed} for row in opened.metrics()]
    results = opened.results() or {}
    digest.update(json.dumps([rows, results.get("test"), opened.layers()], sort_keys=True).encode())
    return digest.hexdigest()


def finished(ended: Ended, copy: Path) -> Any:
    """The weights that count and the test figures: what `resume` leaves of a finished run."""
    shown = re.search(r"test accuracy.*", ended.out)
    return fork(lambda: print(weights_of(Path("runs/whole"), "best")), cwd=copy).out, shown and shown[0]


def stands_in(run: str) -> Callable[[Ended, Path], Any]:
    """The weights, rows and test figures that stand in a run after the command."""

    def read(ended: Ended, copy: Path) -> Any:
        return fork(lambda: print(weights_of(Path(run))), cwd=copy).out

    return read


def printed(ended: Ended, copy: Path) -> Any:
    """What the command printed."""
    return ended.out


def page(ended: Ended, copy: Path) -> Any:
    """The text of the page, without its pictures."""
    text = (copy / "runs/whole/report.html").read_text()
    return re.sub(r'src="data:[^"]*"|<svg.*?</svg>', "", text, flags=re.DOTALL)


def numbers_in(reader: Callable[[Path], Any]) -> Callable[[Ended, Path], Any]:
    """What `verify` printed, and the numbers that our reader finds in the file."""

    def read(ended: Ended, copy: Path) -> Any:
        return ended.out, fork(lambda: print(reader(copy)), cwd=copy).out

    return read


def netx_numbers(copy: Path) -> str:
    """A hash of the integers in the exported .net file."""
    from snn_bp.chip.netx_read import read_netx

    held = read_netx(copy / "a.net")
    digest = hashlib.sha256()
    for name, value in ((name, value) for each in held.populations for name, value in vars(each).items()):
        digest.update(f"{name} {value.tolist() if isinstance(value, np.ndarray) else value!r}".encode())
    return digest.hexdigest()


def nir_numbers(copy: Path) -> str:
    """A hash of the weights in the exported .nir file."""
    from snn_bp.exchange.nir_read import read_nir

    held = read_nir(copy / "a.nir")
    texts = [f"{name} {tensor.tolist()}" for name, tensor in held.state_dict().items()]
    return hashlib.sha256("".join([repr(held.model), *texts]).encode()).hexdigest()


COMMANDS: dict[str, tuple[tuple[str, ...], Callable[[Ended, Path], Any]]] = {
    "evaluate": (("evaluate", "runs/whole", "--split", "test", "--json"), figures),
    "list": (("list", "runs"), printed),
    "compare": (("compare", "runs/whole", "runs/second"), printed),
    "report": (("report", "runs/whole", "--no-plots"), page),
    "resume finished": (("resume", "runs/whole"), finished),
    "resume": (("resume", "runs/half"), stands_in("runs/half")),
    "verify net": (("verify", "runs/whole", "a.net", "--samples", "20"), numbers_in(netx_numbers)),
    "verify nir": (("verify", "runs/whole", "a.nir", "--samples", "20"), numbers_in(nir_numbers)),
}
FILES: dict[str, tuple[str, tuple[str, ...]]] = {  # kind: where its files lie, the commands that meet them
    "run": ("runs/whole", ("evaluate", "evaluate", "list", "compare", "report", "resume finished")),
    "half run": ("runs/half", ("resume",)),
    "recordings": ("data", ("evaluate", "resume")),
    "cache": ("cache", ("evaluate", "resume")),
    "net": ("a.net", ("verify net",)),
    "nir": ("a.nir", ("verify nir",)),
}


def build(folder: Path) -> House:
    """The untouched house."""
    house = House(folder)
    for name in ("data", "cache", "home", "runs"):
        (house.copy / name).mkdir(parents=True)
    os.chdir(house.copy)
    os.environ.update({"SNN_BP_CACHE": str(house.copy / "cache"), "HOME": str(house.copy / "home")})
    make_recordings(Path("data"))
    for name in ("whole", "second"):
        train(experiment(Path("data")), f"runs/{name}", quiet=True)
    for file in ("a.net", "a.nir"):
        ended = command("export", "runs/whole", file, "--samples", 20)
        if ended.code != 0:
            raise SystemExit(f"export {file}: {ended.err}")

    def half(number: int) -> None:
        kill_at_operation(number)
        train(experiment(Path("data")), "runs/half", quiet=True, save_seconds=0)

    for number in range(20, 2000, 15):
        shutil.rmtree("runs/half", ignore_errors=True)
        fork(lambda at=number: half(at))
        if reached_half(Path("runs/half")):
            break
    else:
        raise SystemExit("no run could be killed half way")
    if not any(Path("cache").iterdir()):
        raise SystemExit("the cache is empty: nothing to change in it")
    os.chdir(folder)
    shutil.move(house.copy, folder / "untouched")
    for name, (arguments, answer) in COMMANDS.items():
        copy = house.restore()
        ended = command(*arguments, cwd=copy, limit_s=LIMIT_S)
        if ended.code != 0:
            raise SystemExit(f"{name} fails over untouched files: {ended.err}")
        house.answers[name] = answer(ended, copy)
    return house


def reached_half(path: Path) -> bool:
    """Whether the run killed on its way has two or three epochs behind it, and is not finished."""
    try:
        run = Run(path)
        return len(run.metrics()) in (2, 3) and run.results() is None
    except ValueError:
        return False


def try_one(house: House, kind: str, draw: random.Random) -> Trial:
    """One change of one file, one command over it."""
    place, commands = FILES[kind]
    name = draw.choice(commands)
    arguments, answer = COMMANDS[name]
    copy = house.restore()
    target = copy / place
    files = sorted(path for path in target.rglob("*") if path.is_file()) if target.is_dir() else [target]
    same = True
    while same:  # a file without a version cannot be of another one
        file, change = draw.choice(files), draw.choice(CHANGES)
        before = file.read_bytes()
        change(file, draw)
        same = file.is_file() and not file.is_symlink() and file.read_bytes() == before and change is not planted
    what = f"{file.relative_to(copy)}: {change.__name__}"
    ended = command(*arguments, cwd=copy, limit_s=LIMIT_S)
    verdict, detail = judge(ended, house.answers[name], answer, copy, file.name)
    left = {path.name: path.read_text() for path in house.outside.iterdir()}
    if left != {"victim.txt": VICTIM}:
        verdict, detail = "touched outside", str(sorted(left))
    return Trial(kind, what, name, verdict, detail)


def judge(ended: Ended, right: Any, answer: Callable[[Ended, Path], Any], copy: Path, name: str) -> tuple[str, str]:
    """What came of a command: a fault, or one of the ends that are allowed."""
    said = (ended.err + ended.out)[-600:]
    if ended.code is None:
        return "hang", said
    if ended.traceback:
        return "traceback", said
    if "the beginning" in ended.out + ended.err:
        return "started over", said
    if ended.code != 0:
        lines = [line for line in ended.err.splitlines() if line.startswith("error:")]
        return ("refused", "") if len(lines) == 1 else ("no single line", said)
    try:
        found = answer(ended, copy)
    except (OSError, ValueError, IndexError) as problem:
        return "answer cannot be read", f"{problem} {said}"
    if found == right:
        return "equal", ""
    words = (
        "cannot be read",
        "should ",
        "differ",
        "damaged",
        "rebuilt",
        "made again",
        "edited",
        "changed",
        "not ",
        "missing",
        "has no",
    )
    told = ended.err + ("" if ended.out.startswith("{") else ended.out)
    if any(name.split(".")[0] in line and any(word in line for word in words) for line in told.splitlines()):
        return "said", ""
    if isinstance(found, str) and isinstance(right, str):
        told = "\n".join(set(found.splitlines()) - set(right.splitlines()))
        if "not finished" in told or (name.split(".")[0] in told and any(word in told for word in words)):
            return "said", ""
    return "silently used", f"{said} || {parting(str(found), str(right))}"


def parting(found: str, right: str) -> str:
    """Where two answers part."""
    at = next((i for i, (a, b) in enumerate(zip(found, right, strict=False)) if a != b), min(len(found), len(right)))
    return f"found ...{found[max(0, at - 40) : at + 80]!r}, right ...{right[max(0, at - 40) : at + 80]!r}"


ALLOWED = ("equal", "refused", "said")


def main() -> None:
    """Try, print the faults, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, help="changes of one kind only")
    parser.add_argument("--keep", action="store_true", help="write the result file (the default with 1000 trials)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trials: list[Trial] = []
    here, began = Path.cwd(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        house = build(Path(folder).resolve())
        total = sum(KINDS.values())
        for kind, weight in KINDS.items():
            if arguments.only not in (None, kind):
                continue
            count = arguments.count if arguments.only else round(arguments.count * weight / total)
            for number in range(count):
                trial = try_one(house, kind, random.Random(f"{arguments.seed} {kind} {number}"))
                trials.append(trial)
                if trial.verdict not in ALLOWED:
                    print(f"{trial.verdict}: {trial.command} over {trial.what} [{kind} {number}]\n   {trial.detail}")
                    sys.stdout.flush()
        os.chdir(here)
    counts = {kind: dict(Counter(t.verdict for t in trials if t.kind == kind)) for kind in KINDS}
    faults = [vars(trial) for trial in trials if trial.verdict not in ALLOWED]
    result = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "torch": version("torch"), "seed": arguments.seed,
        "trials": len(trials), "faults": len(faults), "ends": counts,
        "changes": dict(Counter(trial.what.split(": ")[1] for trial in trials)),
        "seconds": round(time.monotonic() - began), "found": faults,
    }  # fmt: skip
    print(json.dumps({name: result[name] for name in ("trials", "faults", "ends", "seconds")}))
    if arguments.keep or (arguments.count >= 1000 and arguments.only is None):
        write_json(Path(__file__).parents[1] / "results" / "mutations.json", result)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
