"""How the GPU computes what torch leaves to its libraries, and what a machine without one is spared."""

import functools

import torch

from snn_bp.runtime import is_on


@functools.cache
def convolve_exactly() -> bool:
    """Let cuDNN convolve in single precision and alike each time, once; whether it will. `SNN_BP_EXACT_CONVOLUTIONS`.

    By default its inputs are rounded to 10 bits (TF32), and sums of a backward pass are taken in any order: spikes and
    gradients are not those of the CPU, and a run that is resumed is not the run left alone.
    """
    if not is_on("EXACT_CONVOLUTIONS"):
        return False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return True


def seed_torch(seed: int) -> None:
    """`torch.manual_seed`, spared what that does where there is no GPU: it keeps the call, and who made it, for each
    kind that might come."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
