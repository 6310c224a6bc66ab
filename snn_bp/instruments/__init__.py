"""Instruments for the backward pass: see it (`diagnose`), judge it (`examine`), check it (`check_gradients`)."""

from snn_bp.instruments.doctor import examine as examine
from snn_bp.instruments.doctor import examine_course as examine_course
from snn_bp.instruments.doctor import examine_rate as examine_rate
from snn_bp.instruments.doctor import examine_trace as examine_trace
from snn_bp.instruments.findings import Finding as Finding
from snn_bp.instruments.findings import Report as Report
from snn_bp.instruments.findings import fresh as fresh
from snn_bp.instruments.gradients import GradientReport as GradientReport
from snn_bp.instruments.gradients import check_gradients as check_gradients
from snn_bp.instruments.learning import examine_updates as examine_updates
from snn_bp.instruments.trace import LayerTrace as LayerTrace
from snn_bp.instruments.trace import Trace as Trace
from snn_bp.instruments.trace import diagnose as diagnose
