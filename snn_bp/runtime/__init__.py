"""What snn_bp changes in the process it runs in, and what it asks of it.

Each with a switch, listed in `notebooks/site/network.md`.
"""

import os


def is_on(switch: str) -> bool:
    """Whether a change is made: `SNN_BP_<switch>=0` in the environment turns it off."""
    return os.environ.get(f"SNN_BP_{switch}") != "0"
