"""The whole way from real recordings to a chip's file, for a convolutional network and one without convolutions.

python experiments/export_nmnist.py FOLDER [--lava 3]

FOLDER holds NMNIST/Train and NMNIST/Test. Trains both in the chip's integers, writes their .net files into the run
folders, replays test recordings through them, and prints the verification. With `--lava N` recordings go through
Lava's real client too.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from snn_bp import train
from snn_bp.runs.experiment_file import read_file
from snn_bp.verification.replayed import export, verify

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--out", type=Path, default=Path("runs"))
parser.add_argument("--lava", type=int, default=0)
arguments = parser.parse_args()

for name in ("nmnist", "nmnist_mlp"):
    experiment = read_file(Path(__file__).with_name(f"{name}.py"))
    experiment = replace(
        experiment,
        data=replace(experiment.data, root=arguments.folder),
        train=replace(experiment.train, target="loihi"),  # the forward pass is the chip's from the first epoch on
    )
    run = train(experiment, arguments.out / f"{name}_loihi")
    file = run.path / f"{name}.net"
    print(export(run, file))
    if arguments.lava:
        print(verify(run, file, lava=arguments.lava))
