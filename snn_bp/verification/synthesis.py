"""What a network in Verilog takes of an FPGA, by yosys: look-up tables, flip-flops, block RAMs, multipliers.

yosys maps the circuit to the cells of a family; whether they can be placed and reach a clock is not asked.
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from snn_bp.errors import SnnError
from snn_bp.verification.simulators import run_in, version_of

Family: TypeAlias = Literal["ice40", "ecp5", "xc7"]
SYNTHESIS_S = 900  # the longest yosys may take

DEVICES: dict[Family, str] = {"ice40": "iCE40 UP5K", "ecp5": "ECP5-25", "xc7": "Artix-7 35T"}  # whose limits count
LIMITS = {
    "ice40": {"luts": 5280, "flip_flops": 5280, "block_rams": 30, "multipliers": 8},  # blocks of 4 kbit
    "ecp5": {"luts": 24288, "flip_flops": 24288, "block_rams": 56, "multipliers": 28},  # 18 kbit
    "xc7": {"luts": 20800, "flip_flops": 41600, "block_rams": 50, "multipliers": 90},  # 36 kbit
}
UNITS = {"luts": "LUTs", "flip_flops": "flip-flops", "block_rams": "block RAMs", "multipliers": "multipliers"}
COMMANDS = {"ice40": "synth_ice40 -device u -dsp", "ecp5": "synth_ecp5", "xc7": "synth_xilinx -family xc7 -flatten"}
CELLS = {  # what one cell takes, of those whose names begin so; a RAM of look-up tables counts as these
    "ice40": {"SB_LUT4": ("luts", 1), "SB_DFF": ("flip_flops", 1), "SB_RAM40": ("block_rams", 1),
              "SB_MAC16": ("multipliers", 1)},
    "ecp5": {"LUT4": ("luts", 1), "CCU2C": ("luts", 2), "TRELLIS_DPR16X4": ("luts", 6), "TRELLIS_FF": ("flip_flops", 1),
             "DP16KD": ("block_rams", 1), "MULT18X18D": ("multipliers", 1)},
    "xc7": {"LUT": ("luts", 1), "RAM32M": ("luts", 4), "RAM64M": ("luts", 4), "RAM32X1": ("luts", 2),
            "RAM64X1": ("luts", 2), "RAM128X1": ("luts", 4), "RAM256X1": ("luts", 4), "SRL": ("luts", 1),
            "FD": ("flip_flops", 1), "RAMB36": ("block_rams", 1), "RAMB18": ("block_rams", 0.5),
            "DSP48": ("multipliers", 1)},
}  # fmt: skip


@dataclass(frozen=True)
class Synthesis:
    """What a circuit takes of a family's device."""

    family: Family
    luts: int
    flip_flops: int
    block_rams: float  # two halves of one of 36 kbit are one
    multipliers: int
    yosys: str  # its version

    @property
    def broken(self) -> list[str]:
        """In words, which limits of the device it breaks."""
        limits = LIMITS[self.family]
        return [
            f"{getattr(self, name):,g} {UNITS[name]} of {most:,}"
            for name, most in limits.items()
            if getattr(self, name) > most
        ]

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "device": DEVICES[self.family], "fits": not self.broken, "says": str(self)}

    def __str__(self) -> str:
        takes = ", ".join(f"{getattr(self, name):,g} {unit}" for name, unit in UNITS.items())
        device = DEVICES[self.family]
        fits = f"fits an {device}" if not self.broken else f"does not fit an {device}: {' and '.join(self.broken)}"
        return f"{takes}; {fits} (yosys {self.yosys}, not placed)"


def synthesize(folder: Path, family: Family) -> Synthesis:
    """The cells of the circuit in a folder that export wrote; leaves `FAMILY.json` there."""
    version = version_of("yosys")
    files = " ".join(sorted(file.name for file in folder.glob("*.v") if file.name != "testbench.v"))
    script = f"read_verilog -defer {files}; {COMMANDS[family]} -top net; tee -q -o {family}.json stat -json"
    run_in(folder, ["yosys", "-q", "-p", script], timeout_s=SYNTHESIS_S)
    counts = json.loads((folder / f"{family}.json").read_text(encoding="utf-8"))["design"]["num_cells_by_type"]
    return Synthesis(family=family, yosys=version, **taken(family, counts))


def check_yosys() -> None:
    """Raise where yosys is not here."""
    if shutil.which("yosys") is None:
        raise SnnError("yosys cannot be started. On Debian: apt-get install yosys.")


def taken(family: Family, counts: dict[str, int]) -> dict[str, Any]:
    """How many of each unit so many cells of each type take."""
    total: dict[str, float] = dict.fromkeys(UNITS, 0)
    for cell, count in counts.items():
        known = [prefix for prefix in CELLS[family] if cell.startswith(prefix)]
        if known:
            unit, each = CELLS[family][max(known, key=len)]  # RAMB36 is no RAM32
            total[unit] += each * count
        elif re.match(r"\$|.*(RAM|SRL|LUT)", cell):
            raise SnnError(f"synthesis for {family}: cells of the type {cell} are not known here.")
    return {name: count if name == "block_rams" else int(count) for name, count in total.items()}
