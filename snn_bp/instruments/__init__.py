"""Instruments for the backward pass: see it (`trace`), judge it (`diagnose`), check it (`check_gradients`)."""

from snn_bp.instruments.doctor import diagnose as diagnose
from snn_bp.instruments.doctor import diagnose_course as diagnose_course
from snn_bp.instruments.doctor import diagnose_rate as diagnose_rate
from snn_bp.instruments.doctor import diagnose_trace as diagnose_trace
from snn_bp.instruments.findings import Finding as Finding
from snn_bp.instruments.findings import Report as Report
from snn_bp.instruments.findings import only_new as only_new
from snn_bp.instruments.gradients import GradientReport as GradientReport
from snn_bp.instruments.gradients import check_gradients as check_gradients
from snn_bp.instruments.learning import diagnose_updates as diagnose_updates
from snn_bp.instruments.traces import LayerTrace as LayerTrace
from snn_bp.instruments.traces import Trace as Trace
from snn_bp.instruments.traces import trace as trace
