"""Every sentence of the guard, and what must pass it."""
import numpy as np
import pytest
import torch

from tirnas.core import UserError
from tirnas.data.sequences import to_gray
from tirnas.guard import FrameGuard, check_start, check_target, read_box, share_inside

HW = (48, 64)


def refused(call, *parts):
    "The sentence that `call` is refused with: one line, with all of `parts`."
    with pytest.raises(UserError) as caught: call()
    text = str(caught.value)
    assert "\n" not in text and ": " in text and all(part in text for part in parts), text


@pytest.mark.parametrize("frame, kind", [(None, "NoneType"), ([[1, 2], [3, 4]], "list"), ("a.png", "str"), (torch.zeros(4, 4), "Tensor")])
def test_not_an_array(frame, kind):
    refused(lambda: FrameGuard().check(frame, 5), f"frame 5 is of type {kind}", "give a numpy array")


@pytest.mark.parametrize("shape", [(), (64,), (3, 48, 64), (48, 64, 2), (48, 64, 5), (1, 48, 64, 3)])
def test_wrong_rank_or_channels(shape):
    refused(lambda: FrameGuard().check(np.zeros(shape, np.uint8), 5), f"frame 5 has shape {shape}", "channels last")


@pytest.mark.parametrize("shape", [(0, 64), (48, 0), (0, 0, 3), (48, 64, 0)])
def test_empty(shape):
    refused(lambda: FrameGuard().check(np.zeros(shape, np.uint8), 5), f"frame 5 is empty, its shape is {shape}")


@pytest.mark.parametrize("dtype", [bool, complex, object, "U3", "M8[s]"])
def test_values_that_are_no_numbers(dtype):
    refused(lambda: FrameGuard().check(np.zeros(HW, dtype), 5), "frame 5 has values of type")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(dtype, value):
    guard, frame = FrameGuard(), np.ones(HW, dtype)
    guard.check(frame, 0)
    frame[3, 4] = frame[40, 60] = value
    refused(lambda: guard.check(frame, 1), "frame 1 has NaN or infinity in 2 of 3072 values", "median")
    guard.check(np.ones(HW, dtype), 2)


def test_nan_in_a_colour_frame():
    frame = np.ones((*HW, 3), np.float32)
    frame[0, 0, 1] = np.nan
    refused(lambda: FrameGuard().check(frame, 0), "in 1 of 9216 values")


@pytest.mark.parametrize("other, says", [
    (np.zeros((48, 63), np.uint8), "the size in px changes at frame 17 from 64 x 48 to 63 x 48"),
    (np.zeros((64, 48), np.uint8), "the size in px changes at frame 17 from 64 x 48 to 48 x 64"),
    (np.zeros((48, 64, 3), np.uint8), "the number of channels changes at frame 17 from 1 to 3"),
    (np.zeros((48, 64), np.uint16), "the type of values changes at frame 17 from uint8 to uint16"),
    (np.zeros((48, 64), np.float32), "the type of values changes at frame 17 from uint8 to float32")])
def test_a_change_in_mid_sequence(other, says):
    guard, frame = FrameGuard(), np.zeros(HW, np.uint8)
    guard.check(frame, 16)
    refused(lambda: guard.check(other, 17), says, "start a new track")
    assert guard.check(frame, 18) is frame       # the refused frame has left no trace


def test_a_refused_first_frame_decides_nothing():
    guard = FrameGuard()
    refused(lambda: guard.check(np.full(HW, np.nan), 0), "NaN")
    assert guard.first is None and guard.check(np.zeros((20, 30), np.uint16), 1).shape == (20, 30)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f2", "f4", "f8", ">u2", ">f4"])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_everything_allowed_comes_out_grey(dtype, channels):
    frame = np.random.default_rng(0).integers(0, 200, (*HW, *channels)).astype(dtype)
    gray = FrameGuard().check(frame, 0)
    assert gray.shape == HW and gray.dtype.isnative
    if channels in ((), (1,)): assert np.array_equal(gray, frame.reshape(HW)) and gray.dtype.name == frame.dtype.name
    else: assert np.allclose(gray, to_gray(frame.astype(np.float32)), atol=0.51)


def test_a_constant_frame_is_allowed_and_grey_frames_are_not_copied():
    frame = np.full(HW, 9, np.uint16)
    assert FrameGuard().check(frame, 0) is frame


@pytest.mark.parametrize("box", [None, (1, 2, 3), (1, 2, 3, 4, 5), [[1, 2, 3, 4]], ["1", "2", "3", "4"], (1, 2, 3, None), [1, [2], 3, 4],
                                 {}, {1, 2, 3, 4}, 7, b"1,2,3,4", (True, False, True, True), (1, 2, 3, 4j), object()])
def test_boxes_not_understood(box):
    refused(lambda: check_start(box, HW), "is not understood", "give four numbers x, y, w, h")


@pytest.mark.parametrize("box", ["", "1,2,3", "a,b,c,d", "1 2 3 4", "nan,1,2,3"])
def test_texts_not_understood(box):
    refused(lambda: check_start(box, HW), f"the box {box!r} is not understood", "for example 420,136,53,130")


@pytest.mark.parametrize("box, says", [
    ((np.nan, 1, 5, 5), "has no size"), ((1, np.inf, 5, 5), "has no size"), ((1, 1, 0, 5), "has no size"), ((1, 1, 5, -5), "has no size"),
    ((64, 1, 5, 5), "lies outside the frame of 64 x 48 px"), ((1, -5, 5, 5), "lies outside the frame"),
    ((-60, -60, 200, 200), "more than twice as large"), ((-5, -5, 74, 58), "is larger than the frame of 64 x 48 px"),
    ((0, 10, 66, 20), "not two corners"), ((10, 10, 1, 1), "too small to be tracked"), ((10, 10, 1.9, 30), "at least 2 px a side"),
    ((60, 40, 20, 20), "only 8 % of the box 60,40,20,20 lie in the frame"), ((-16, 5, 20, 20), "only 20 % of the box")])
def test_boxes_without_a_target(box, says):
    refused(lambda: check_start(box, HW), says)


@pytest.mark.parametrize("box", [(0, 0, 64, 48), (-1, -1, 65, 49), (10, 10, 2, 2), (-15, 5, 20, 20), (62, 10, 4, 8), (0, 0, 64, 5)])
def test_boxes_to_start_on(box):
    found = check_start(box, HW)
    assert found.dtype == float and found.tolist() == list(box)


def test_boxes_of_any_type():
    box = np.array([5, 6, 7, 8], np.int16)
    for given in (box, box.astype(np.float32), torch.tensor(box), tuple(box), list(box), "5,6,7,8", " 5, 6, 7, 8"):
        assert read_box(given).tolist() == [5, 6, 7, 8]
    check_start(floats := np.array([5.0, 6, 7, 8]), HW)[0] = 9
    assert floats[0] == 5       # the caller's array is its own


def test_share_inside_by_counting():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y, w, h = rng.integers((-30, -30, 1, 1), (64, 48, 40, 40))
        count = sum(0 <= i < 64 and 0 <= j < 48 for i in range(x, x + w) for j in range(y, y + h))
        assert share_inside(np.array([x, y, w, h]), HW) == pytest.approx(count / (w * h))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("box", [(20, 20, 8, 10), (-5, -5, 20, 20), (60, 40, 5, 9), (0, 0, 64, 48)])
def test_nothing_to_learn(dtype, box):
    refused(lambda: check_target(np.full(HW, 37, dtype), box), "have the value 37", "start on a frame where the target can be seen")


def test_an_edge_in_the_margin_is_enough():
    frame = np.full(HW, 37, np.uint8)
    frame[20, 16] = 38
    check_target(frame, (20, 18, 8, 10))        # the margin reaches from column 16 on
    refused(lambda: check_target(frame, (21, 18, 8, 10)), "have the value 37")
