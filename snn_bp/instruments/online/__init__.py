"""Local and online rules: gradients in one pass forward in time, and how far they are from backpropagation's."""

from snn_bp.instruments.online.instant import Error as Error
from snn_bp.instruments.online.instant import objective as objective
from snn_bp.instruments.online.rules import Feedback as Feedback
from snn_bp.instruments.online.rules import eprop as eprop
from snn_bp.instruments.online.rules import ottt as ottt
from snn_bp.instruments.online.similarity import compare_to_bptt as compare_to_bptt
