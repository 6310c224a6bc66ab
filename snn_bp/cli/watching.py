"""The command that follows a run while another process trains it."""

from snn_bp.cli.program import Folder, Port, Trust, command


@command("snn-bp watch runs/mine", "snn-bp watch runs/mine --port 8080")
def watch(run: Folder, port: Port = None, trust_code: Trust = False) -> None:
    """A page with a run's curves that follows it while it trains.

    It is there for browsers on this machine alone, until Ctrl-C.
    """
    from snn_bp.reports.live import watch as watch_run
    from snn_bp.runs.folder import Run

    watch_run(Run(run, trust_code=trust_code), port=port)
