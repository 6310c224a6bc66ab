"""The command that says what a training on many processes will take."""

import json
from typing import Annotated

import typer

from snn_bp.cli.program import AsJson, Changes, File, Trust, command, number
from snn_bp.errors import SnnError

Processes = Annotated[int, number("--processes", "How many share each batch, a device each.", integer=True, low=1)]


def assumed(name: str, help: str) -> typer.models.OptionInfo:
    """An option that replaces a number of `Machine`."""
    return number(name, help, above=0)


@command("snn-bp plan mine.py --processes 64 --events 1e9", "snn-bp plan mine.py data.batch=256 --link 12 --json")
def plan(
    file: File,
    changes: Changes = None,
    processes: Processes = 8,
    events: Annotated[
        float | None, number("--events", "Of the training split; by default the data are counted.", low=1)
    ] = None,
    recordings: Annotated[
        float | None, number("--recordings", "Likewise, where the set does not say it.", low=1)
    ] = None,
    step_ms: Annotated[
        float | None, number("--step-ms", "A step's computing as measured, in ms; by default a bound.", above=0)
    ] = None,
    memory: Annotated[float, assumed("--memory", "GB of a device.")] = 141.0,
    tflops: Annotated[float, assumed("--tflops", "TFLOP/s of a device in 32 bits.")] = 67.0,
    bandwidth: Annotated[float, assumed("--bandwidth", "GB/s of a device's memory.")] = 4800.0,
    link: Annotated[float, assumed("--link", "GB/s from a process to the next.")] = 50.0,
    latency: Annotated[float, assumed("--latency", "Microseconds from a process to the next.")] = 10.0,
    disk: Annotated[float, assumed("--disk", "GB/s that a process reads from the cache.")] = 2.0,
    layer: Annotated[float, assumed("--layer", "Milliseconds of calls for a layer of neurons.")] = 1.6,
    as_json: AsJson = False,
    trust_code: Trust = False,
) -> None:
    """What a training on many processes takes, on paper.

    Bytes, steps, communication and the bottleneck, by the sizes of the network,
    the assumptions below (an H200's) and an encoding that is measured here. With
    --events it needs no data.
    """
    from snn_bp.runs.changes import override
    from snn_bp.runs.experiment_file import read_names
    from snn_bp.trainer.scaling import Machine, plan_training

    if recordings is not None and events is None:
        raise SnnError("plan: --recordings goes with --events; without them both are counted. Give both, or none.")
    for name, count in (("events", events), ("recordings", recordings)):
        if count is not None and not count.is_integer():
            raise SnnError(f"plan: --{name} {count:g}: it should be an integer, as 1e9.")
    read, own = read_names(file, trust_code=trust_code)
    experiment, said = override(read, changes or [], own)
    machine = Machine(memory, tflops, bandwidth, link, latency, disk, layer)
    found = plan_training(
        experiment, processes, events=None if events is None else int(events),
        recordings=None if recordings is None else int(recordings), machine=machine, step_ms=step_ms,
    )  # fmt: skip
    if as_json:
        print(json.dumps(found.record(), indent=2))
        return
    for line in (*said, str(found)):
        print(line)
