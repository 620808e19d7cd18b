"""What a track starts from and learns from, tensor by tensor: views, samples, places, steps, sizes."""
import copy
import math

import numpy as np
import pytest
import torch

from tirnas.data.crops import Window, crop_frame, normalise, search_window
from tirnas.dimp.card import ModelCard
from tirnas.dimp.net import HeadSettings
from tirnas.dimp.online import BoxSettings, MemorySettings, PeakSettings, TrackSettings
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import random_genotype
from tirnas.candidates import damp_size
from tirnas.peaks import find_peak
from tirnas.tracker import Tracker, learn_first, learn_more
from tirnas.views import first_views

HEADS, CROP = HeadSettings(8, 16, 4, 16), 64
BOX = np.array([102.0, 77, 18, 30])
NORMAL = PeakSettings(not_found=-1e9, distractor=1e9, hard_negative=1e9)


def surface(x, y):
    "A smooth picture at any point, in frame pixels."
    return 90 + 30 * np.sin(x / 9 + y / 23) + 25 * np.cos(y / 7 - x / 40) + 0.4 * x


YS, XS = np.mgrid[:190, :220] + 0.5
FRAME = surface(XS, YS).astype(np.float32)


@pytest.fixture(scope="module")
def card_and_net():
    torch.manual_seed(0)
    card = ModelCard(random_genotype("dual", 1), Macro("dual", 3, 4, 4), HEADS, CROP, 4.0, {})
    net = card.build().eval()
    torch.nn.init.normal_(net.classifier.initialiser.conv.weight, std=0.05)
    return card, net


def blurred(crop, sx, sy):
    "A Gaussian along each axis, out to four sigmas, mirrored at the edge pixels."
    for axis, sigma in ((1, sx), (0, sy)):
        reach = round(4 * sigma)
        taps = np.exp(-np.arange(-reach, reach + 1) ** 2 / (2 * sigma ** 2))
        pad = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        wide = np.pad(crop.astype(float), pad, mode="reflect")
        crop = sum(t / taps.sum() * np.take(wide, np.arange(k, k + crop.shape[axis]), axis) for k, t in enumerate(taps))
    return crop


def turned(window, degrees):
    "The picture itself at the points that a turn about the window's middle brings to the crop's pixels."
    v, u = (np.mgrid[:CROP, :CROP] + 0.5 - CROP / 2) * window.side_px / CROP
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = window.x0 + window.side_px / 2, window.y0 + window.side_px / 2
    return surface(x + c * u - s * v, y + s * u + c * v)


def test_each_view_by_its_definition():
    "Shift by three tenths of the window, mirror, blur in crop pixels, turn: with the box where the target then is."
    window = search_window(BOX, 4.0, CROP)
    views, boxes = first_views(FRAME, window, BOX)
    plain, inside, side = crop_frame(FRAME, window), window.to_crop(BOX), window.side_px
    moved = [Window(window.x0 + round(0.3 * a * side), window.y0 + round(0.3 * b * side), side, CROP) for b in (-1, 1) for a in (-1, 1)]
    exact = [plain, *(crop_frame(FRAME, w) for w in moved), plain[:, ::-1]]
    assert views.shape == (13, CROP, CROP)
    for view, crop in zip(views, exact): assert np.allclose(view, normalise(np.ascontiguousarray(crop)), atol=1e-5)
    for view, (sx, sy) in zip(views[6:9], ((3, 1), (1, 3), (2, 2))): assert np.abs(view - normalise(blurred(plain, sx, sy).astype(np.float32))).max() < 0.01
    for view, angle in zip(views[9:], (-45, -10, 10, 45)): assert np.abs(view - normalise(turned(window, angle).astype(np.float32))).max() < 0.06
    x, y, w, h = inside
    assert np.allclose(boxes[[0, *range(6, 13)]], inside) and np.allclose(boxes[5], (CROP - x - w, y, w, h))
    for box, other in zip(boxes[1:5], moved): assert np.allclose(box[:2] - inside[:2], np.array([window.x0 - other.x0, window.y0 - other.y0]) * CROP / side)


def cell(box): return ((np.asarray(box)[:2] + np.asarray(box)[2:] / 2) - 0.5) / 8 + 0.5


def test_the_first_frame_gives_these_samples_and_this_filter(card_and_net):
    "Thirteen views and two without channels, their places, modulation from the view as it is, `first_steps` steps, no other number."
    card, net = card_and_net
    window, settings = search_window(BOX, 4.0, CROP), TrackSettings(first_steps=3, update_steps=1)
    views, boxes = first_views(FRAME, window, BOX)
    with torch.no_grad():
        target = learn_first(net, FRAME, window, BOX, settings, torch.Generator().manual_seed(5))
        maps = [net.backbone(torch.from_numpy(v.copy())[None, None]) for v in views]
        feat = torch.cat([net.classifier.features(m) for m in maps])
        kept = torch.rand(2, 16, generator=torch.Generator().manual_seed(5)) >= 0.2
        feat = torch.cat([feat, feat[0] * (kept / 0.8)[:, :, None, None]])
        places = torch.tensor(np.array([cell(b) for b in [*boxes, boxes[0], boxes[0]]]), dtype=torch.float32)
        modulation = net.box_branch.reference(maps[0], torch.tensor(boxes[:1], dtype=torch.float32))
        first = net.classifier.initialiser(feat[None], torch.tensor(np.array([*boxes, boxes[0], boxes[0]]), dtype=torch.float32)[None])
        filters = net.classifier.optimiser(first, feat[None], places[None], 3)
    assert torch.allclose(target.memory.feat, feat, atol=1e-5) and torch.allclose(target.memory.places, places, atol=1e-4)
    assert torch.allclose(target.memory.weights, torch.full((15,), 1 / 15)) and target.sizes is None and (target.first_wh == BOX[2:]).all()
    for a, b in zip(target.modulation, modulation): assert torch.allclose(a, b, atol=1e-4)
    near = [torch.allclose(target.filter_1Dkk, f, atol=1e-5 * f.abs().max().item()) for f in filters]
    assert near == [False, False, False, True]


@pytest.mark.parametrize("verdict, number, steps, rate", [("normal", 4, 2, 0.03), ("normal", 5, 0, 0.03), ("hard", 5, 1, 0.05), ("hard", 4, 1, 0.05)])
def test_a_later_frame_gives_this_sample_and_these_steps(card_and_net, verdict, number, steps, rate):
    _, net = card_and_net
    settings = TrackSettings(update_steps=2, update_every=4, memory=MemorySettings(rate=0.03, hard_rate=0.05))
    with torch.no_grad():
        target = learn_first(net, FRAME, search_window(BOX, 4.0, CROP), BOX, settings, torch.Generator().manual_seed(0))
        before, feat, box = target.filter_1Dkk.clone(), torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(1)), np.array([13.0, 22, 9, 17])
        learn_more(net.classifier, target, feat, box, verdict, number, settings)
        memory = target.memory
        assert torch.equal(memory.feat[15], feat) and np.allclose(memory.places[15].numpy(), cell(box), atol=1e-5) and len(memory.feat) == 16
        assert np.allclose(memory.weights.numpy(), [(1 - rate) / 15] * 15 + [rate], atol=1e-6)
        filters = net.classifier.optimiser(before, memory.feat[None], memory.places[None], 2, memory.weights[None])
    assert [torch.allclose(target.filter_1Dkk, f, atol=1e-6) for f in filters] == [n == steps for n in range(3)]


def scene(t):
    frame = np.random.default_rng(0).normal(90, 8, (90, 120))
    frame[30:60, 30 + 2 * t:44 + 2 * t] += 60
    return frame.clip(0, 255).astype(np.uint8)


def test_a_sample_lies_where_the_target_was_found(card_and_net):
    "In the window that was searched, at the new box, not at the last one."
    card, net = card_and_net
    tracker = Tracker(net, card, TrackSettings(peaks=NORMAL, box=BoxSettings(size_from="fixed")))
    tracker.init(scene(0), (30, 30, 14, 30))
    moved = 0
    for t in range(1, 8):
        old = tracker.box.copy()
        tracker.update(scene(t))
        window = search_window(old, 4.0, CROP)
        place = tracker.target.memory.places[-1].numpy()
        assert tracker.last.window == window and np.allclose(place, cell(window.to_crop(tracker.box)), atol=1e-4)
        moved += np.abs(place - cell(window.to_crop(old))).max() > 0.05
    assert moved > 3


def test_a_scale_filter_learns_the_new_box(card_and_net):
    "Against another one that is shown the frame and the box that the tracker answered."
    card, net = card_and_net
    tracker = Tracker(net, card, TrackSettings(peaks=NORMAL, box=BoxSettings(size_from="scale_filter")))
    tracker.init(scene(0), (30, 30, 14, 30))
    for t in range(1, 4):
        other = copy.deepcopy(tracker.target.sizes)
        box, _ = tracker.update(scene(t))
        assert not all(np.array_equal(a, b) for p, q in zip(other.filters, tracker.target.sizes.filters) for a, b in zip(p, q))
        other.learn(scene(t), box)
        assert all(np.allclose(a, b) for p, q in zip(other.filters, tracker.target.sizes.filters) for a, b in zip(p, q))


def two_peaks(first, second):
    scores = np.zeros((25, 25))
    for (x, y), height in ((first, 1.0), (second, 0.9)): scores[y, x] = height
    return scores


def test_the_place_that_was_expected_decides_between_far_peaks():
    "A box at the left, half way down: a peak there is near, one as far from it as the map is wide is a jump."
    settings, box = PeakSettings(window=0.0), np.array([4.0 * 8 - 8, 12 * 8 - 8, 16, 16])      # centre cell about (4.4, 12.4)
    found = find_peak(two_peaks((22, 12), (4, 12)), box, 8, 4, settings)
    assert (found.x, found.y, found.verdict) == (4, 12, "hard")
    tall = np.array([12 * 8 - 8, 20 * 8 - 8.0, 16, 16])     # low in the map: its transposed place is far away
    found = find_peak(two_peaks((12, 2), (12, 20)), tall, 8, 4, settings)
    assert (found.x, found.y, found.verdict) == (12, 20, "hard")


def test_a_peak_owns_the_area_of_the_target():
    "A box of 5 x 2 cells: what lies 5 cells beside belongs to the peak, what lies 5 cells below does not, in cells, not in pixels."
    settings, box = PeakSettings(window=0.0, neighbourhood=2.2), np.array([100 - 20.0, 100 - 8, 40, 16])
    assert find_peak(two_peaks((12, 12), (17, 12)), box, 8, 4, settings).verdict == "normal"
    assert find_peak(two_peaks((12, 12), (12, 17)), box, 8, 4, settings).verdict == "uncertain"
    assert find_peak(two_peaks((12, 12), (18, 12)), box, 8, 4, settings).verdict == "uncertain"


def test_a_size_is_damped_in_logarithms():
    assert np.allclose(damp_size(np.array([20.0, 40]), np.array([0.0, 0, 80, 10]), 0.5)[2:], (40, 20))
