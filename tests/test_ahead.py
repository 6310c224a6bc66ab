"""Reading ahead: the same run bit for bit, errors where they belong, and no thread behind it."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import runs
from runs import DIGITS, assert_same_run, tiny, training

from snn_bp import Rate, train
from snn_bp.data import Data, Dataset
from snn_bp.data.ahead import FETCHED, ahead
from snn_bp.errors import SnnError

few_digits = runs.few_digits


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reading ahead")]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Until another thread has had its turn."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_items_come_in_order_and_only_one_is_made_before_its_turn():
    made = []

    def make(item):
        made.append((item, threading.current_thread() is threading.main_thread()))
        return item * item

    taken = []
    for square in ahead(make, range(5), on=True):
        wait_until(lambda: len(made) >= min(5, len(taken) + 2))
        time.sleep(0.02)  # in which it makes no more
        taken.append((square, len(made)))

    assert taken == [(0, 2), (1, 3), (4, 4), (9, 5), (16, 5)]
    assert [main for _, main in made] == [True, False, False, False, False] and not threads()


def test_what_fails_ahead_fails_where_it_is_asked_for_and_a_passing_fault_is_none():
    tries = []

    def make(item):
        tries.append(item)
        if item == 2 or (item == 1 and tries.count(1) == 1):
            raise SnnError(f"item {item}")
        return item

    taken = []
    with pytest.raises(SnnError, match="item 2"):
        for each in ahead(make, range(4), on=True):
            taken.append(each)

    assert taken == [0, 1] and not threads()


def test_the_disk_is_asked_for_what_comes_before_its_turn_and_a_fault_in_that_is_none():
    happened, in_thread = [], set()

    def fetch(item):
        in_thread.add(threading.current_thread().name.startswith("reading ahead"))
        happened.append(("fetch", item))
        if item == 2:
            raise OSError

    def fetched():
        return [item for what, item in happened if what == "fetch"]

    taken = []
    for item in ahead(lambda item: happened.append(("make", item)) or item, range(9), on=True, fetch=fetch):
        wait_until(lambda: len(fetched()) >= min(9, len(taken) + FETCHED + 1))
        assert fetched() == list(range(min(9, item + FETCHED + 1)))
        taken.append(item)

    assert taken == list(range(9)) and in_thread == {True} and happened[0] == ("fetch", 0) and not threads()


@pytest.mark.parametrize("stop", ["close", "break", "error"])
def test_who_stops_early_leaves_no_thread(stop):
    reading = ahead(lambda item: item, range(9), on=True)
    next(reading)
    if stop == "error":
        with pytest.raises(KeyboardInterrupt):
            reading.throw(KeyboardInterrupt)
    assert bool(threads()) == (stop != "error")

    reading.close()

    assert not threads() and next(reading, None) is None


def test_a_switch_turns_it_off(monkeypatch):
    monkeypatch.setenv("SNN_BP_READ_AHEAD", "0")

    assert not [main for main in ahead(lambda _: threads(), range(3), on=True) if main]


OPTIONS = {
    "plain": {},
    "augmented": {"data": Data("digits", step_ms=104, steps=3, batch=32, translate_px=2, rotate_deg=9)},
    "accumulated": {"accumulate": 2, "sampler": "balanced"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_is_the_same_bit_for_bit(name, few_digits, tmp_path, monkeypatch):
    options = {"data": DIGITS, "epochs": 1} | OPTIONS[name]
    threads_of_batches = set()
    encode = Dataset._encode

    def noted(self, *given, **more):
        threads_of_batches.add(threading.current_thread().name.startswith("reading ahead"))
        return encode(self, *given, **more)

    monkeypatch.setattr(Dataset, "_encode", noted)
    first = train(tiny(**options), tmp_path / "ahead", quiet=True)
    assert threads_of_batches == {True, False} and not threads()
    monkeypatch.setenv("SNN_BP_READ_AHEAD", "0")
    threads_of_batches.clear()

    second = train(tiny(**options), tmp_path / "not", quiet=True)

    assert threads_of_batches == {False}
    assert_same_run(first, second)


def test_the_wait_for_batches_is_part_of_the_seconds(few_digits, tmp_path, monkeypatch):
    encode = Dataset._encode

    def slow(self, *given, **more):
        time.sleep(0.05)
        return encode(self, *given, **more)

    monkeypatch.setattr(Dataset, "_encode", slow)
    rows = train(tiny(epochs=1), tmp_path / "run", quiet=True).metrics()

    assert 0.05 <= rows[0]["wait_seconds"] <= rows[0]["seconds"]


class Own:
    """Draws from what the process shares."""

    def __call__(self, x, rng):
        return (np.random.random((3, *x.shape)) < x).astype(np.uint8)


@pytest.mark.parametrize(
    ("more", "allowed"),
    [({}, True), ({"encoder": Rate(3)}, True), ({"encoder": Own()}, False), ({"transforms": (lambda x: x,)}, False)],
    ids=["plain", "ours", "own encoder", "transform"],
)
def test_what_may_draw_from_the_process_is_made_in_the_main_thread(more, allowed):
    dataset = Dataset.of(train=(np.random.default_rng(0).random((6, 3, 4)), np.arange(6) % 2), step_ms=1, **more)

    assert dataset.can_be_read_ahead == allowed


@pytest.mark.parametrize("how", ["break", "error"])
def test_a_loop_that_is_left_leaves_no_thread(how, few_digits, tmp_path):
    class Enough(Exception):
        pass

    try:
        for event in training.training(tiny(), tmp_path / "run", quiet=True):
            assert event.batch == 1 and threads()
            if how == "error":
                raise Enough
            break
    except Enough as cause:
        error = cause  # which keeps the frames alive
        assert error.__traceback__ is not None

    assert not threads()


def test_an_error_of_a_batch_is_that_of_the_run_and_its_checkpoint_stays(few_digits, tmp_path, monkeypatch):
    batch, count = Dataset.batch, 0

    def damaged(self, split, ids, **more):
        nonlocal count
        count += split == "train" and more.get("seed") is not None
        if count > 2:
            raise SnnError("recording 7: it is damaged. Copy it anew.")
        return batch(self, split, ids, **more)

    monkeypatch.setattr(Dataset, "batch", damaged)
    with pytest.raises(SnnError, match="recording 7"):
        train(tiny(), tmp_path / "run", quiet=True)

    assert not threads()
