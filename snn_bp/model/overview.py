"""A network at a glance: its layers by name, the shape behind each, and how many parameters it has."""

from torch import nn

from snn_bp.model.blocks import every_part, own_weights, parts_of
from snn_bp.runtime.screen import html_table, on_screen


def overview(network: nn.Module) -> str:
    """As text, a screen at most."""
    head, rows = _lines(network)
    shown = [(name, shape, f"{count} parameters" * (count != "0")) for name, shape, count in rows]
    wide, wider = (max(len(row[column]) for row in shown) for column in (0, 1))
    return on_screen("\n".join([head, *(f"  {name:{wide}}  {shape:{wider}}  {count}" for name, shape, count in shown)]))


def overview_html(network: nn.Module) -> str:
    """As a table of HTML."""
    head, rows = _lines(network)
    return html_table(head, ("layer", "shape of a step behind it", "parameters"), rows)


def _lines(network) -> tuple[str, list[tuple[str, str, str]]]:
    """What the whole is, and a row for each layer; that of a joint stands behind its branches'."""
    rows = []
    for part in every_part(parts_of(network)):
        count = sum(weight.numel() for weight in own_weights(part).values())
        rows.append((network.name(part.path), str(list(part.after)), f"{count:,}"))
    total = sum(weight.numel() for weight in network.parameters())
    ends = f"{list(network.input_shape)} in, {list(network.output_shape)} out"
    return f"{type(network).__name__}: {ends}, {total:,} parameters", rows
