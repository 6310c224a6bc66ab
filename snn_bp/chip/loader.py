"""The script that loads a netx file in Lava's client as it has to be: `export` writes it beside the file.

Lava asks its user for what the file does not tell it: how many bits an input has, when registers are cleared. The
script is `lava_program.py` with the file's own answers.
"""

import re
from pathlib import Path

from snn_bp.chip.graph import Graph

TEMPLATE = Path(__file__).with_name("lava_program.py")


def loader_path(file: Path) -> Path:
    """Where the script of a file stands: `chip.load.py` beside `chip.net`."""
    return file.with_suffix(".load.py")


def loader_text(graph: Graph, file: Path) -> str:
    """The script for this graph in this file."""
    answers = {
        "FILE": file.name,
        "INPUT_SHAPE": graph.input_shape,
        "INPUT_BITS": graph.input_bits,
        "CLEARED": graph.cleared,
        "PAUSE": graph.pause,
        "READOUT": graph.populations[-1].readout,
    }
    name = loader_path(file).name
    plain = name.isprintable() and not {"\\", '"'} & set(name)  # else it stands as SCRIPT in the text, which is code
    text = TEMPLATE.read_text(encoding="utf-8").replace("SCRIPT", name if plain else "SCRIPT")
    for name, value in answers.items():
        text, found = re.subn(rf"^{name} = .*$", lambda _, line=f"{name} = {value!r}": line, text, flags=re.MULTILINE)
        assert found == 1, name
    return text


def loading_call(graph: Graph, file: Path, *, steps: int) -> str:
    """The call that loads the file for recordings of so many steps, as one writes it in Python."""
    arguments = [f"net_config={file.name!r}", f"input_message_bits={graph.input_bits}"]
    if graph.cleared:
        arguments += [f"reset_interval={steps + graph.pause}", "reset_offset=1"]
    return f"netx.hdf5.Network({', '.join(arguments)})"
