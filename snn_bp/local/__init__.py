"""Local and online rules: gradients in one pass forward in time, and how far they are from backpropagation's."""

from snn_bp.local.compare import Agreement as Agreement
from snn_bp.local.compare import compare_to_bptt as compare_to_bptt
from snn_bp.local.instant import Error as Error
from snn_bp.local.instant import objective as objective
from snn_bp.local.rules import Feedback as Feedback
from snn_bp.local.rules import eprop as eprop
from snn_bp.local.rules import ottt as ottt
