"""Train spiking networks by backpropagation through time, and trust what comes out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snn_bp.runtime.process import let_waiting_threads_sleep
from snn_bp.runtime.signals import end_in_silence

if TYPE_CHECKING:
    from snn_bp.chip.arithmetic import Fixed
    from snn_bp.chip.network import OnChip
    from snn_bp.cli.program import main
    from snn_bp.data import (
        Blend,
        ChannelJitter,
        Current,
        CutMix,
        Data,
        Dataset,
        Delta,
        EventDrop,
        Flip,
        Folder,
        Latency,
        NoiseEvents,
        Rate,
        Repeat,
        SpatialJitter,
        TimeCrop,
        TimeJitter,
    )
    from snn_bp.data.formats import read_events
    from snn_bp.equations.arithmetic import detach, exp, spike, where
    from snn_bp.errors import SnnError
    from snn_bp.instruments import Trace, check_gradients, diagnose, trace
    from snn_bp.kernels import rest, simulate, use_backend
    from snn_bp.model.joints import Parallel, Residual
    from snn_bp.model.layers import BatchNorm, Conv, Delay, Dense, Dropout, Flatten, Pool, Recurrent, Spiking
    from snn_bp.model.losses import (
        TET,
        BinaryCrossEntropy,
        CountCrossEntropy,
        CountSquaredError,
        FirstSpike,
        MaxCrossEntropy,
        MeanSquaredPotential,
        MembraneCrossEntropy,
        RateBounds,
        VanRossum,
    )
    from snn_bp.model.metrics import (
        F1,
        R2,
        Accuracy,
        BalancedAccuracy,
        MeanAbsoluteError,
        StepAccuracy,
        VanRossumDistance,
    )
    from snn_bp.model.network import Network
    from snn_bp.model.own_module import Module
    from snn_bp.model.spatial import ConvTranspose, LayerNorm, Unflatten, Upsample
    from snn_bp.model.start import start_alive
    from snn_bp.model.targets import Targets
    from snn_bp.model.temporal import DelayedDense, TemporalConv
    from snn_bp.neurons import (
        ALIF,
        BRF,
        IF,
        LI,
        LIF,
        PLIF,
        QIF,
        AdEx,
        AdLIF,
        Alpha,
        AlphaLI,
        AlphaLIF,
        CubaLIF,
        GradedLIF,
        Izhikevich,
        Lapicque,
        RefractoryLIF,
        SEAdLIF,
        State,
        Tau,
        TwoCompartmentLIF,
        decay,
        neuron,
    )
    from snn_bp.reports import compare, plots, report
    from snn_bp.runs.ann import ann_of
    from snn_bp.runs.evaluation import evaluate
    from snn_bp.runs.experiment import Experiment, Train
    from snn_bp.runs.folder import Run
    from snn_bp.runs.prediction import predict
    from snn_bp.runs.training_options import Patience, Start
    from snn_bp.searches import Search, Sweep, search, sweep
    from snn_bp.surrogates import (
        ATan,
        Boxcar,
        Exponential,
        FastSigmoid,
        Gaussian,
        MultiGaussian,
        Sigmoid,
        StraightThrough,
        Surrogate,
        Triangular,
        surrogate,
    )
    from snn_bp.trainer.logs import TensorBoard
    from snn_bp.trainer.loop import finish, resume, train, training
    from snn_bp.verification.replayed import export, verify

let_waiting_threads_sleep()  # before torch is imported
end_in_silence()

__all__ = [
    "ALIF",
    "BRF",
    "F1",
    "IF",
    "LI",
    "LIF",
    "PLIF",
    "QIF",
    "R2",
    "TET",
    "ATan",
    "Accuracy",
    "AdEx",
    "AdLIF",
    "Alpha",
    "AlphaLI",
    "AlphaLIF",
    "BalancedAccuracy",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Blend",
    "Boxcar",
    "ChannelJitter",
    "Conv",
    "ConvTranspose",
    "CountCrossEntropy",
    "CountSquaredError",
    "CubaLIF",
    "Current",
    "CutMix",
    "Data",
    "Dataset",
    "Delay",
    "DelayedDense",
    "Delta",
    "Dense",
    "Dropout",
    "EventDrop",
    "Experiment",
    "Exponential",
    "FastSigmoid",
    "FirstSpike",
    "Fixed",
    "Flatten",
    "Flip",
    "Folder",
    "Gaussian",
    "GradedLIF",
    "Izhikevich",
    "Lapicque",
    "Latency",
    "LayerNorm",
    "MaxCrossEntropy",
    "MeanAbsoluteError",
    "MeanSquaredPotential",
    "MembraneCrossEntropy",
    "Module",
    "MultiGaussian",
    "Network",
    "NoiseEvents",
    "OnChip",
    "Parallel",
    "Patience",
    "Pool",
    "Rate",
    "RateBounds",
    "Recurrent",
    "RefractoryLIF",
    "Repeat",
    "Residual",
    "Run",
    "SEAdLIF",
    "Search",
    "Sigmoid",
    "SnnError",
    "SpatialJitter",
    "Spiking",
    "Start",
    "State",
    "StepAccuracy",
    "StraightThrough",
    "Surrogate",
    "Sweep",
    "Targets",
    "Tau",
    "TemporalConv",
    "TensorBoard",
    "TimeCrop",
    "TimeJitter",
    "Trace",
    "Train",
    "Triangular",
    "TwoCompartmentLIF",
    "Unflatten",
    "Upsample",
    "VanRossum",
    "VanRossumDistance",
    "ann_of",
    "check_gradients",
    "compare",
    "decay",
    "detach",
    "diagnose",
    "evaluate",
    "exp",
    "export",
    "finish",
    "main",
    "neuron",
    "plots",
    "predict",
    "read_events",
    "report",
    "rest",
    "resume",
    "search",
    "simulate",
    "spike",
    "start_alive",
    "surrogate",
    "sweep",
    "trace",
    "train",
    "training",
    "use_backend",
    "verify",
    "where",
]

_MODULES = {  # where each name is; it is imported, and torch with it, when a name of it is first asked for
    "chip.arithmetic": "Fixed",
    "chip.network": "OnChip",
    "cli.program": "main",
    "data": (
        "Blend ChannelJitter Current CutMix Data Dataset Delta EventDrop Flip Folder Latency NoiseEvents Rate Repeat "
        "SpatialJitter TimeCrop TimeJitter"
    ),
    "data.formats": "read_events",
    "equations.arithmetic": "detach exp spike where",
    "errors": "SnnError",
    "instruments": "Trace check_gradients diagnose trace",
    "kernels": "rest simulate use_backend",
    "model.joints": "Parallel Residual",
    "model.layers": "BatchNorm Conv Delay Dense Dropout Flatten Pool Recurrent Spiking",
    "model.losses": (
        "TET BinaryCrossEntropy CountCrossEntropy CountSquaredError FirstSpike MaxCrossEntropy "
        "MeanSquaredPotential MembraneCrossEntropy RateBounds VanRossum"
    ),
    "model.metrics": "F1 R2 Accuracy BalancedAccuracy MeanAbsoluteError StepAccuracy VanRossumDistance",
    "model.network": "Network",
    "model.own_module": "Module",
    "model.spatial": "ConvTranspose LayerNorm Unflatten Upsample",
    "model.start": "start_alive",
    "model.targets": "Targets",
    "model.temporal": "DelayedDense TemporalConv",
    "neurons": (
        "ALIF BRF IF LI LIF PLIF QIF AdEx AdLIF Alpha AlphaLI AlphaLIF CubaLIF GradedLIF Izhikevich Lapicque "
        "RefractoryLIF SEAdLIF State Tau TwoCompartmentLIF decay neuron"
    ),
    "reports": "compare plots report",
    "runs.ann": "ann_of",
    "runs.evaluation": "evaluate",
    "runs.experiment": "Experiment Train",
    "runs.folder": "Run",
    "runs.prediction": "predict",
    "runs.training_options": "Patience Start",
    "searches": "Search Sweep search sweep",
    "surrogates": (
        "ATan Boxcar Exponential FastSigmoid Gaussian MultiGaussian Sigmoid StraightThrough Surrogate "
        "Triangular surrogate"
    ),
    "trainer.logs": "TensorBoard",
    "trainer.loop": "finish resume train training",
    "verification.replayed": "export verify",
}
_MODULE_OF = {name: f"snn_bp.{module}" for module, names in _MODULES.items() for name in names.split()}


if not TYPE_CHECKING:  # which else would take any name at all for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
