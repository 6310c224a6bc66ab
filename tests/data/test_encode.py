"""Laws of encoding, and the compiled pass against the obvious one."""

import numpy as np
import pytest
import torch
from encode_reference import encode_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_bp.data.encode import Events, encode

WIDTH, HEIGHT, POLARITIES = 6, 9, 2
STEPS, STEP_US = 5, 70


def make_events(*recordings, labels=None) -> Events:
    """Events from one list of (x, y, t, p) for each recording."""
    rows = np.array([event for recording in recordings for event in recording], dtype=np.int64).reshape(-1, 4)
    x, y, t, p = rows.T
    offsets = np.cumsum([0] + [len(recording) for recording in recordings])
    labels = np.zeros(len(recordings), np.int64) if labels is None else labels
    small = x.astype(np.uint8), y.astype(np.uint8), p.astype(np.uint8), t.astype(np.int32)
    for array in small:
        array.flags.writeable = False
    return Events(*small, offsets, labels)


def count(events: Events, **changes) -> torch.Tensor:
    ids = np.arange(len(events))
    asked = {"steps": STEPS, "step_us": STEP_US, "shape": (POLARITIES, HEIGHT, WIDTH)} | changes
    return encode(events, ids, **asked)


an_event = st.tuples(
    st.integers(0, WIDTH - 1),
    st.integers(0, HEIGHT - 1),
    st.integers(-100, STEPS * STEP_US + 100),  # some before and some after the window, in no order
    st.integers(0, POLARITIES - 1),
)
some_events = st.lists(st.lists(an_event, max_size=40), min_size=1, max_size=4).map(lambda lists: make_events(*lists))


@settings(max_examples=200, deadline=None)
@given(
    events=some_events,
    downsample=st.sampled_from([1, 3]),
    binary=st.booleans(),
    shifts=st.lists(st.tuples(st.integers(-12, 12), st.integers(-12, 12)), min_size=4, max_size=4),
    turns=st.none() | st.lists(st.floats(-4, 4), min_size=4, max_size=4),
)
def test_the_compiled_pass_equals_the_reference(events, downsample, binary, shifts, turns):
    ids = np.arange(len(events))[::-1]
    asked = {
        "steps": STEPS,
        "step_us": STEP_US,
        "shape": (POLARITIES, HEIGHT // downsample, WIDTH // downsample),
        "downsample": downsample,
        "binary": binary,
        "shifts": np.array(shifts)[: len(events)],
        "turns": None if turns is None else np.array(turns)[: len(events)],
    }

    fast, in_bytes = encode(events, ids, **asked), encode(events, ids, in_bytes=True, **asked)
    slow = encode_reference(events, ids, **asked)

    assert torch.equal(fast, slow)
    assert in_bytes.dtype == torch.uint8 and torch.equal(in_bytes.float(), slow)


@pytest.mark.parametrize(("times", "dtype"), ((255, torch.uint8), (256, torch.float32)))
def test_counts_that_no_byte_holds_are_floats(times, dtype):
    events = make_events([(1, 2, 5, 0)], [(1, 2, 5, 0)] * times)

    counts = count(events, in_bytes=True)

    assert counts.dtype == dtype and counts.max() == times
    assert torch.equal(counts.float(), count(events))


@settings(max_examples=50, deadline=None)
@given(events=some_events)
def test_every_event_in_the_window_is_counted_once(events):
    inside = (events.t >= 0) & (events.t < STEPS * STEP_US)

    assert count(events).sum() == inside.sum()


@settings(max_examples=50, deadline=None)
@given(events=some_events)
def test_binary_frames_say_where_counts_are(events):
    assert torch.equal(count(events, binary=True), count(events).clamp(max=1))


@settings(max_examples=50, deadline=None)
@given(events=some_events)
def test_downsampled_counts_are_sums_of_counts(events):
    fine = count(events)

    coarse = count(events, downsample=3, shape=(POLARITIES, HEIGHT // 3, WIDTH // 3))

    blocks = fine.reshape(STEPS, -1, POLARITIES, HEIGHT // 3, 3, WIDTH // 3, 3)
    assert torch.equal(coarse, blocks.sum(dim=(4, 6)))


@settings(max_examples=50, deadline=None)
@given(events=some_events, right=st.integers(-WIDTH, WIDTH), down=st.integers(-HEIGHT, HEIGHT))
def test_a_shift_moves_counts_and_drops_what_leaves(events, right, down):
    padded = torch.nn.functional.pad(count(events), (WIDTH, WIDTH, HEIGHT, HEIGHT))

    shifted = count(events, shifts=np.tile((right, down), (len(events), 1)))

    rows, columns = slice(HEIGHT - down, 2 * HEIGHT - down), slice(WIDTH - right, 2 * WIDTH - right)
    assert torch.equal(shifted, padded[..., rows, columns])


def test_a_quarter_turn_turns_a_square_sensor_exactly():
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(5), np.arange(5)))
    zero = np.zeros(25, dtype=np.int64)
    events = Events(x=x, y=y, p=zero, t=np.arange(25), offsets=np.array([0, 25]), labels=np.array([0]))
    asked = {"steps": 25, "step_us": 1, "shape": (1, 5, 5)}  # the step says which event it was

    turned = encode(events, np.array([0]), turns=np.array([np.pi / 2]), **asked)

    plain = encode(events, np.array([0]), **asked)
    assert torch.equal(turned, torch.rot90(plain, -1, dims=(-2, -1)))


def test_a_step_begins_at_its_first_microsecond():
    edges = [0, STEP_US - 1, STEP_US, STEPS * STEP_US - 1, STEPS * STEP_US]
    events = make_events(*[[(0, 0, t, 0)] for t in edges])

    steps = count(events)[:, :, 0, 0, 0].T

    expected = torch.zeros(5, STEPS)
    expected[0, 0] = expected[1, 0] = expected[2, 1] = expected[3, STEPS - 1] = 1
    assert torch.equal(steps, expected)


def test_more_events_than_16_bits_hold_are_counted():
    events = make_events([(2, 3, 10, 1)] * 70_001)

    assert count(events)[0, 0, 1, 3, 2] == 70_001


def test_a_row_of_channels_needs_no_rows_or_polarities():
    nothing = np.empty(0, np.uint8)
    x, t = np.array([3, 3, 0, 4], np.uint16), np.array([0, 0, STEP_US, 0], np.int32)
    events = Events(x, nothing, nothing, t, np.array([0, 3, 4]), np.zeros(2, np.int64))

    frames = count(events, shape=(1, 1, 5))

    assert torch.equal(frames, encode_reference(events, np.arange(2), steps=STEPS, step_us=STEP_US, shape=(1, 1, 5)))
    assert frames[0, 0, 0, 0, 3] == 2 and frames.sum() == 4


@pytest.mark.parametrize("field", ["x", "y", "p"])
def test_an_address_off_the_sensor_writes_nowhere(field):
    place = {"x": 1, "y": 1, "p": 1} | {field: 200}
    events = make_events([(place["x"], place["y"], 0, place["p"])])

    assert count(events).sum() == 0
