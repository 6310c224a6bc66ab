"""Where a training is logged beside its run folder: for TensorBoard, or in any object with the `log` of a W&B run."""

from collections.abc import Generator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from snn_bp.errors import SnnError, as_path, shown
from snn_bp.errors.calls import checked_dataclass
from snn_bp.files import is_there
from snn_bp.runs.folder import Run
from snn_bp.runs.records import figure_of
from snn_bp.runtime.status import say
from snn_bp.trainer.course import Event

FLUSH_SECONDS = 5  # until an event is in TensorBoard's file


class Log(Protocol):
    """What takes the figures of a training: `wandb.init(...)` gives one, the module `wandb` is one.

    `step` counts the batches behind the training. Where there is a method `finish()`, it is called at the end.
    """

    def log(self, row: dict[str, Any], /, *, step: int) -> Any: ...


@checked_dataclass(frozen=True)
class TensorBoard:
    """A log for TensorBoard: figures behind each step and each epoch, which `tensorboard --logdir` shows.

    Fields:
        folder (None): where its files are written; by default `tensorboard/NAME` beside the run's folder NAME.

    A run that is resumed with it goes on in the same curves. Takes `pip install 'snn_bp[tensorboard]'`.

    >>> TensorBoard("logs/a")  # train(experiment, "runs/a", log=TensorBoard("logs/a"))
    TensorBoard(folder='logs/a')
    """

    folder: Path | str | None = None

    def __post_init__(self) -> None:
        if self.folder is not None:
            as_path("TensorBoard: the folder", self.folder)


def logged(
    events: Generator[Event, None, Run], log: TensorBoard | Log | None, out: Path | str, *, quiet: bool
) -> Generator[Event, None, Run]:
    """The events of a training into `out`, and the run that it leaves; the log is told of each on its way.

    The figures of an event are `step/loss`, `step/grad_norm` and `step/spike_rate`, behind an epoch also its row of
    `metrics.csv`, and in the end those of the test split. A log that fails is told nothing more: the run says so and
    goes on.
    """
    if log is None:
        return (yield from events)
    check_log(log)
    sink, finished = _Sink(log, quiet=quiet), is_there(as_path("the folder of a run", out) / "results.json")
    try:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                if sink.run is not None or not finished:
                    sink.results(end.value)
                return end.value
            sink.event(event)
            yield event
    finally:
        events.close()
        sink.finish()


def check_log(log: object) -> None:
    """Raise unless a training can be logged there."""
    if isinstance(log, TensorBoard):
        if find_spec("tensorboard") is None:
            raise SnnError("TensorBoard is not installed. `pip install 'snn_bp[tensorboard]'` installs it.")
    elif isinstance(log, type) or not callable(getattr(log, "log", None)):
        raise SnnError(
            f"log={shown(log)}: it should be a value with a method log(row, step=...), found {type(log).__name__}. As "
            "in log=TensorBoard(), or log=wandb.init(project='mine')."
        )


class _Sink:
    """What a run tells a log, until that fails or the training ends."""

    def __init__(self, log: TensorBoard | Log, *, quiet: bool) -> None:
        self.log, self.quiet = log, quiet
        self.run: Run | None = None  # known from the first event on
        self._to: Any = None if isinstance(log, TensorBoard) else log  # None too where it has failed
        self._step = 0

    def event(self, event: Event) -> None:
        self._begin(event.run)
        self._step, step = (event.epoch - 1) * event.batches + event.batch, event.step
        of_step = {"step/loss": step.loss, "step/grad_norm": step.grad_norm, "step/spike_rate": step.spike_rate}
        self._row(of_step | (event.row or {}))

    def results(self, run: Run) -> None:
        """The figures of the test split."""
        self._begin(run)
        results = run.results() or {}
        if test := results.get("test"):
            name, value = figure_of(test)
            self._step = self._step or results["epochs"] * len(run.dataset().batches("train"))
            self._row({f"test_{name}": value, "test_loss": test["loss"]})

    def _begin(self, run: Run) -> None:
        if self.run is None:
            self.run = run
            if isinstance(self.log, TensorBoard):
                self._to = _EventFiles(self.log, run)

    def finish(self) -> None:
        to, self._to = self._to, None
        try:
            _finish(to)
        except Exception as cause:
            self._fail(cause)

    def _row(self, row: dict[str, Any]) -> None:
        if self._to is None:
            return
        try:
            self._to.log(row, step=self._step)
        except Exception as cause:  # whatever it is of another's, it is no reason to end a training
            to, self._to = self._to, None
            self._fail(cause)
            with suppress(Exception):
                _finish(to)

    def _fail(self, cause: Exception) -> None:
        line = f"log: {type(self.log).__name__} failed ({shown(cause)}); the run goes on and logs no more there"
        if self.run is not None:
            self.run.log(line)
        if not self.quiet:
            with suppress(OSError, ValueError):  # nobody reads
                say(line)


def _finish(log: Any) -> None:
    if callable(finish := getattr(log, "finish", None)):
        finish()


class _EventFiles:
    """TensorBoard's files of a run, begun at its first row: what another process wrote from that step on is void."""

    def __init__(self, board: TensorBoard, run: Run) -> None:
        path = run.path.resolve()
        self.folder = path.parent / "tensorboard" / path.name if board.folder is None else Path(board.folder)
        self._writer: Any = None

    def log(self, row: dict[str, Any], *, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore - an extra
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            first = step if "step/loss" in row else step + 1  # a row of the test split stands beside the last epoch's
            self._writer = SummaryWriter(str(self.folder), purge_step=first, flush_secs=FLUSH_SECONDS)
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        # as one event: `add_scalar` for each value takes 2.5 times as long
        self._writer.file_writer.add_summary(Summary(value=values), step)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
