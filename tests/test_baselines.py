"""tirnas.baselines: every OpenCV tracker behind our interface, on every depth, at every edge of the frame."""
import cv2
import numpy as np
import pytest

from tirnas.baselines import BASELINES, OpenCVTracker, gray_range, to_bgr8, whole_box
from tirnas.boxes import iou
from tirnas.core import TrackState, UserError

HW = (120, 160)
REPEATABLE = ("constant", "csrt", "kcf", "mosse")


def scene(num_frames=15, step=2.0, seed=0, times=1):
    "Eight-bit frames of a textured square on soft clutter, and its boxes, all enlarged `times` times."
    random = np.random.default_rng(seed)
    clutter = cv2.GaussianBlur(random.normal(90, 60, HW), (0, 0), 4)
    patch = cv2.GaussianBlur(random.normal(190, 80, (32, 24)), (0, 0), 1.5)
    frames, boxes = [], []
    for t in range(num_frames):
        x, y, frame = int(20 + step * t), 40, clutter.copy()
        if x < HW[1]: frame[y:y + 32, x:x + 24] = patch[:, :HW[1] - x]
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
        boxes.append((x, y, 24, 32))
    frames = [cv2.resize(f, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC) for f in frames]
    return frames, np.array(boxes, dtype=float) * times


def follow(name, frames, box):
    tracker = BASELINES[name]()
    tracker.init(frames[0], box)
    return [tracker.update(frame) for frame in frames[1:]]


@pytest.mark.parametrize("name", BASELINES)
def test_contract(name):
    frames, boxes = scene(6)
    for box, state in follow(name, frames, boxes[0]):
        assert box.shape == (4,) and box.dtype == np.float64 and np.isfinite(box).all()
        assert isinstance(state, TrackState) and state.status in ("held", "uncertain", "lost")


# OpenCV's MOSSE takes a target below about 60 px for lost; MIL is random and may lose any
@pytest.mark.parametrize("name, times", (("csrt", 1), ("kcf", 1), ("mosse", 3)))
def test_follows_a_moving_target(name, times):
    frames, boxes = scene(times=times)
    box, state = follow(name, frames, boxes[0])[-1]
    assert iou(box, boxes[-1]) > 0.5 and state == TrackState(1.0, "held")
    assert iou(boxes[0], boxes[-1]) == 0


def test_mosse_gives_up_small_targets():
    frames, boxes = scene(5)
    assert {state.status for _, state in follow("mosse", frames, boxes[0])} == {"lost"}


@pytest.mark.parametrize("name", REPEATABLE)
def test_two_runs_agree(name):
    frames, boxes = scene(8)
    once, again = (np.stack([box for box, _ in follow(name, frames, boxes[0])]) for _ in range(2))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("name", ("csrt", "kcf"))
@pytest.mark.parametrize("convert", (lambda f: f.astype(np.uint16) * 40 + 7000, lambda f: f / 255.0 - 20.0,
                                     lambda f: np.repeat(f[..., None], 3, 2)), ids=("uint16", "float", "colour"))
def test_every_depth(name, convert):
    frames, boxes = scene()
    box, _ = follow(name, [convert(frame) for frame in frames], boxes[0])[-1]
    assert iou(box, boxes[-1]) > 0.5


def test_gray_range_holds_for_later_frames():
    frame = np.random.default_rng(0).integers(7000, 7400, HW).astype(np.uint16)
    limits, later = gray_range(frame), frame.copy()
    later[0, 0] = 60000
    np.testing.assert_array_equal(to_bgr8(frame, limits)[1:], to_bgr8(later, limits)[1:])
    assert 0 < to_bgr8(frame, limits).min() and to_bgr8(frame, limits).max() < 255


@pytest.mark.parametrize("dtype", (np.uint16, np.float32))
def test_a_flat_frame_has_a_range(dtype):
    frame = np.full(HW, 300, dtype=dtype)
    assert to_bgr8(frame, gray_range(frame)).shape == (*HW, 3)


@pytest.mark.parametrize("box, whole", [((0, 0, 160, 120), (0, 0, 160, 120)), ((-9.6, -5, 20, 20), (0, 0, 10, 15)),
                                        ((155, 110, 30, 30), (155, 110, 5, 10)),
                                        ((159.9, 119.9, 5, 5), (159, 119, 1, 1)),
                                        ((-3, 4, 3.2, 6), (0, 4, 1, 6)), ((4.2, 4.2, 0.3, 0.3), (4, 4, 1, 1))])
def test_whole_box_stays_inside(box, whole):
    assert whole_box(box, HW) == whole
    assert all(isinstance(v, int) for v in whole_box(box, HW))


@pytest.mark.parametrize("name", ("csrt", "kcf", "mosse", "mil"))
@pytest.mark.parametrize("box", ((-8, -8, 30, 30), (140, 100, 30, 30)))
def test_boxes_over_the_border(name, box):
    frames, _ = scene(4)
    assert len(follow(name, frames, np.array(box, dtype=float))) == 3


@pytest.mark.parametrize("name", ("csrt", "kcf", "mosse"))
def test_a_target_that_leaves_never_ends_the_run(name):
    frames, boxes = scene(30, step=6)
    found = follow(name, frames, boxes[0])
    assert len(found) == 29 and all(np.isfinite(box).all() and min(box[2:]) > 0 for box, _ in found)


def test_a_lost_target_repeats_the_last_box():
    frames, boxes = scene(8)
    gone = [np.zeros_like(frames[0])] * 3
    tracker = OpenCVTracker("kcf")
    tracker.init(frames[0], boxes[0])
    last = [tracker.update(frame)[0] for frame in frames[1:]][-1]
    for frame in gone:
        box, state = tracker.update(frame)
        assert state == TrackState(0.0, "lost")
        np.testing.assert_array_equal(box, last)


def test_a_raising_update_is_a_lost_target():
    frames, boxes = scene(1)
    tracker = OpenCVTracker("mosse")
    tracker.init(frames[0], boxes[0])
    tracker.tracker = cv2.TrackerKCF.create()  # never started, so its update raises
    with pytest.raises(cv2.error): tracker.tracker.update(frames[0])
    box, state = tracker.update(frames[0])
    assert state == TrackState(0.0, "lost") and (box == boxes[0]).all()


def test_init_starts_anew():
    frames, boxes = scene()
    tracker = OpenCVTracker("kcf")
    for _ in range(2):
        tracker.init(frames[0], boxes[0])
        assert iou(tracker.update(frames[1])[0], boxes[1]) > 0.7


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("box, says", [((10, 10, 0, 5), "has no size"), ((500, 10, 20, 20), "outside the frame")])
def test_bad_boxes(name, box, says):
    with pytest.raises(UserError, match=says): BASELINES[name]().init(scene(1)[0][0], box)


@pytest.mark.parametrize("name, box", [("mil", (50, 50, 5, 20)), ("mil", (0, 0, 160, 120)), ("mosse", (0, 0, 1, 1))])
def test_a_box_opencv_refuses(name, box):
    with pytest.raises(UserError, match=f"{name} cannot start on .* px in the frame"):
        OpenCVTracker(name).init(scene(1)[0][0], box)


def test_unknown_name_and_update_before_init():
    with pytest.raises(UserError, match="'goturn' is not in OpenCV: give one of csrt"): OpenCVTracker("goturn")
    with pytest.raises(UserError, match="call init"): OpenCVTracker("csrt").update(scene(1)[0][0])


def test_opencv_uses_one_thread():
    cv2.setNumThreads(2)
    OpenCVTracker("kcf")
    assert cv2.getNumThreads() == 1


def with_nan(frame):
    frame = frame.astype(np.float32)
    frame[3, 5] = np.nan
    return frame


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("start, said", [((None, (20, 40, 24, 32)), "frame 0 is of type NoneType"), (("frame", (1, 2, 3)), "is not understood"),
                                         (("frame", None), "is not understood"), ((np.full(HW, np.nan), (20, 40, 24, 32)), "frame 0 has NaN")])
def test_no_start_in_the_words_of_the_tracker(name, start, said):
    frame, box = start
    with pytest.raises(UserError, match=said) as caught: BASELINES[name]().init(scene(1)[0][0] if isinstance(frame, str) else frame, box)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BASELINES)
def test_a_box_as_text_is_a_box(name):
    tracker, (frames, boxes) = BASELINES[name](), scene(2)
    tracker.init(frames[0], "20,40,24,32")
    assert tracker.update(frames[1])[0].shape == (4,)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("kind, change, said", [
    (np.uint8, lambda f: f[:60], "size in px changes at frame 2 from 160 x 120 to 160 x 60"), (np.uint8, lambda f: None, "frame 2 is of type NoneType"),
    (np.uint8, lambda f: f.astype(np.uint16), "type of values changes at frame 2 from uint8 to uint16"), (np.float32, with_nan, "frame 2 has NaN or infinity in 1")])
def test_frames_that_break_a_sequence(name, kind, change, said):
    "One sentence; the frame counts for nothing."
    tracker, (frames, boxes) = BASELINES[name](), scene(3)
    frames = [f.astype(kind) for f in frames]
    tracker.init(frames[0], boxes[0])
    tracker.update(frames[1])
    for _ in range(2):
        with pytest.raises(UserError, match=said): tracker.update(change(frames[2]))
    assert np.isfinite(tracker.update(frames[2])[0]).all()


@pytest.mark.parametrize("name", BASELINES)
def test_update_before_init(name):
    with pytest.raises(UserError, match="call init"): BASELINES[name]().update(scene(1)[0][0])
