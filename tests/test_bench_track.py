"The benchmark of trackers: its starts and differences, its counts against closed forms, and what it refuses."
import dataclasses
import importlib.util
import sys

import numpy as np
import pytest
import torch
from blocks import BLOCKS
from conftest import ROOT

from tirnas.budget import part_costs, part_sizes
from tirnas.boxes import iou
from tirnas.core import UserError
from tirnas.data.crops import Window
from tirnas.data.sequences import Sequence, write_sequence
from tirnas.dimp.card import ModelCard, save_model
from tirnas.dimp.net import HeadSettings
from tirnas.dimp.online import BoxSettings, MemorySettings, PeakSettings, TrackSettings
from tirnas.intervals import better
from tirnas.nets.cells import Macro
from tirnas.nets.cost import CostRow, count_parameters, macs_of
from tirnas.nets.genotype import random_genotype
from tirnas.loop import Sight
from tirnas.tracker import Tracker

sys.path.insert(0, str(ROOT / "benchmarks"))
spec = importlib.util.spec_from_file_location("bench_track", ROOT / "benchmarks" / "track.py")
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


def small_card(track=TrackSettings(), fuse=False):
    return ModelCard(random_genotype("dual", 1), Macro("dual", 3, 4, 4), HeadSettings(8, 16, 4, 16, fuse), 64, 4.0, {}, track=track)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    card = small_card()
    return save_model(tmp_path_factory.mktemp("model") / "small.safetensors", card.build(), card)


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["track.py", *map(str, arguments)])
    bench.main()


# --- starts

def test_starts_are_evenly_spaced_over_the_first_half_and_at_valid_frames():
    truth = np.tile([5.0, 5, 10, 10], (100, 1))
    assert bench.start_frames(truth, 1) == [0] and bench.start_frames(truth, 3) == [0, 25, 50]
    truth[0:3], truth[25:28], truth[50] = 0, np.nan, (5, 5, 0, 10)
    assert bench.start_frames(truth, 3) == [3, 28, 51]
    assert bench.start_frames(truth[60:90], 3) == [0, 8, 10], "20 frames are left after the last"


def test_a_start_is_the_rest_of_its_sequence():
    sequence = BLOCKS[0].replace(frame_paths=range(60), boxes_xywh=np.array([[10.0 + t, 20, 7, 14] for t in range(60)]))
    starts = bench.starts_of(sequence, 3)
    assert [s.frame_paths[0] for s in starts] == [0, 15, 30] and len({s.name for s in starts}) == 3
    assert all(np.array_equal(s.boxes_xywh, sequence.boxes_xywh[-len(s):]) for s in starts)


def test_moved_first_boxes_are_tracked_but_not_scored():
    plan = bench.Plan.of([BLOCKS[0]], 1, True)
    (tracked,), (truths,) = plan
    moved = np.array([s.boxes_xywh[0] for s in tracked]) - BLOCKS[0].boxes_xywh[0]
    assert sorted(map(tuple, moved)) == [(x, y, 0, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    assert [s.name for s in tracked] == [s.name for s in truths]
    assert all(np.array_equal(s.boxes_xywh, BLOCKS[0].boxes_xywh) for s in truths)


def test_a_sequence_that_cannot_be_started_is_named():
    short = Sequence("brief", tuple(range(5)), np.tile([5.0, 5, 10, 10], (5, 1)))
    with pytest.raises(UserError, match="brief: a sequence of 5 frames"): bench.starts_of(short, 2)


# --- differences and goals

def test_difference_is_the_paired_one():
    random = np.random.default_rng(0)
    ours, theirs = random.random(9), random.random(9)
    entry = lambda values: {"per_sequence": {str(i): {"success": v} for i, v in enumerate(values)}}
    known = better(entry(ours), entry(theirs), "success")
    assert bench.difference(ours, theirs) == pytest.approx((known["difference"], known["low"], known["high"]))
    assert bench.difference(ours[:1], theirs[:1]) is None


def test_lines_for_each_start_and_for_all():
    ours, floor = ({m: np.array([[a, b], [b, a]]) for m in bench.SCORES} for a, b in ((0.5, 0.7), (0.4, 0.2)))
    lines = bench.score_lines("one", ours, floor)
    assert [line.split()[1:3] for line in lines] == [["1", "0.600"], ["2", "0.600"], ["all", "0.600"]]
    assert "+0.300 [+0.300, +0.300]" in lines[-1]
    only = bench.score_lines("one", {m: s[:1, :1] for m, s in ours.items()}, {m: s[:1, :1] for m, s in floor.items()})
    assert len(only) == 1 and "+0.100 (one sequence)" in only[0]


@pytest.mark.parametrize("gap, fps, macs, parameters, reached", [
    ((0.12, 0.01, 0.2), 40.0, 25, 5_310_000, [True] * 5), ((0.12, -0.01, 0.2), 39.9, 26, 5_310_001, [False, True, False, False, False]),
    ((0.09, 0.01, 0.2), 29.9, 25, 1, [False, False, False, True, True]), (None, 40.0, 25, 1, [True] * 5)])
def test_goals_are_judged_as_they_are_stated(gap, fps, macs, parameters, reached):
    card = small_card()
    dimp = bench.dimp_label(card)
    speeds = {("m", 2): fps, ("csrt", 2): 30.0, (dimp, 2): 10.0}
    totals = {"m": CostRow("total", parameters, macs), dimp: CostRow("total", 10**7, 100)}
    rows = bench.goal_rows("m", card, {"set": {"m": (0.7, gap, 0.6)}}, speeds, totals)
    assert [row[-1] for row in rows] == reached


def test_sequences_for_timing_are_spread_out():
    assert bench.spread_out(list(range(20)), 3) == [0, 10, 19] and bench.spread_out([4], 3) == [4]


# --- counts

def by_hand(card, channels):
    "Multiply-accumulates of each part but the backbone for a box that is moved by shifts, from the sizes alone."
    track, heads = card.track, card.heads
    dim, wide, size, cells = heads.cls_dim, heads.iou_dim, heads.filter_size, {s: card.crop_px // s for s in (8, 16)}
    places = cells[8] ** 2
    judge = 5 * 2 * wide * track.box.num_boxes
    for stride, bins in ((8, 5), (16, 3)):
        side, boxes = cells[stride], track.box.num_boxes
        judge += boxes * wide * (bins * side ** 2 + bins ** 2 * side) + boxes * wide ** 2 * bins ** 2
    return {"classifier head": 9 * channels[8] * dim * cells[8] ** 2 + heads.cls_fuse * channels[16] * dim * cells[16] ** 2,
            "filter application": dim * size ** 2 * places,
            "filter update": track.memory.size * dim * size ** 2 * places * (1 + 2 * track.update_steps) // track.update_every,
            "box maps": sum(9 * (channels[s] + wide) * wide * cells[s] ** 2 for s in cells),
            "box proposals": (track.box.rounds + 1) * judge}


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("track", [TrackSettings(), TrackSettings(update_steps=3, update_every=7, memory=MemorySettings(size=20),
                                                                 box=BoxSettings(num_boxes=4, rounds=3))])
def test_counted_parts_have_their_closed_form(track, fuse):
    card = small_card(track, fuse)
    net = card.build()
    rows = {row.part: row for row in part_costs(net, card)}
    expected = by_hand(card, net.backbone.channels) | {"backbone": macs_of(lambda: net.backbone(torch.zeros(1, 1, 64, 64)))}
    assert {part: rows[part].macs for part in expected} == expected and rows["first frame only"].macs == 0
    assert rows["total"] == ("total", count_parameters(net), sum(expected.values()))


@pytest.mark.parametrize("way", ["shift", "ascent", "fixed"])
def test_parts_add_up_to_what_a_tracker_computes(way):
    "Never lost, without rivals, an update a frame, and a memory that one frame fills."
    peaks = bench.DIMP_TRACK.peaks
    track = TrackSettings(update_every=1, memory=MemorySettings(size=16), peaks=peaks, box=BoxSettings(size_from=way, size_rate=0.0))
    card = small_card(track)
    net, sequence = card.build(), BLOCKS[0]
    tracker = Tracker(net, card)
    tracker.init(sequence.frame(0), sequence.boxes_xywh[0])
    counted = [macs_of(lambda: tracker.update(sequence.frame(t))) for t in (1, 2, 3)]
    assert counted == [part_costs(net, card)[-1].macs] * 3


def test_the_dimp_beside_a_model_sees_the_same_crops_and_has_dimps_sizes(tmp_path):
    like = dataclasses.replace(small_card(), crop_px=96, search_factor=4.5)
    path = bench.save_dimp(tmp_path, like)
    net, card = bench.load_model(path)
    assert path.stem == bench.dimp_label(like) and (card.crop_px, card.search_factor) == (96, 4.5)
    held = part_sizes(net)
    # By hand: a 3x3 convolution of 256 channels; the published convolutions and layers of the box branch, and four shifts.
    maps = sum(9 * c * 256 + 9 * 256 * 256 + 2 * 3 * 256 for c in (128, 256))
    proposals = (25 + 9) * 256 * 256 + 2 * 3 * 256 + 513 + 4 * 513
    known = {"classifier head": 9 * 256 * 256, "box maps": maps, "box proposals": proposals, "filter update": 302}
    assert {part: held[part] for part in known} == known and sum(held.values()) == count_parameters(net)


# --- the whole

def test_a_quick_run_prints_all_parts(model, tmp_path, monkeypatch, capsys):
    for block in BLOCKS[:2]: write_sequence(tmp_path / block.name, map(block.frame, range(30)), block.boxes_xywh)
    call(monkeypatch, "--models", model, "--data", tmp_path, "--quick", "--starts", 1, "--shifts", "--threads", 1)
    said = capsys.readouterr().out
    assert "QUICK: these figures mean nothing" in said and "2 sequence(s), 1 start(s)" in said and "first box moved" in said
    speeds = [line.split() for line in said.splitlines() if line.split()[1:2] == ["1"]]
    assert [line[0] for line in speeds] == ["small", "csrt", "dimp18_64px_x4"] and all(float(line[2]) > 0 for line in speeds)
    assert [line.split()[-1] in ("yes", "no") for line in said.splitlines()[-5:]] == [True] * 5


@pytest.mark.parametrize("arguments, said", [
    (["--starts", 0], "--starts must be at least 1"), (["--threads", 0], "--threads must be at least 1"),
    (["--models", "no_such"], "'no_such' is neither a file nor"), (["--models", ROOT / "README.md"], "is not a tirnas model"),
    (["--models", "MODEL", "--data", ROOT / "no_such"], "no_such"), (["--models", "MODEL", "MODEL"], "two trackers would be called 'small'")])
def test_bad_input_is_one_sentence(arguments, said, model, monkeypatch, capsys):
    with pytest.raises(SystemExit): call(monkeypatch, *(model if a == "MODEL" else a for a in arguments))
    assert said in capsys.readouterr().err.splitlines()[-1]


# --- what a model says of itself

def test_area_under_the_curve_by_counting_pairs():
    good, bad = np.array([0.9, 0.5, 0.5]), np.array([0.5, 0.1])
    assert bench.roc_area(good, bad) == (1 + 1 + 0.5 + 1 + 0.5 + 1) / 6 and np.isnan(bench.roc_area(good, bad[:0]))


def test_the_state_is_counted_frame_by_frame(model, monkeypatch, capsys):
    tracker, sequence = Tracker.load(model), bench.starts_of(BLOCKS[0], 1)[0]
    said = bench.said_of(tracker, sequence)
    other = Tracker.load(model)
    other.init(sequence.frame(0), sequence.boxes_xywh[0])
    states = [other.update(sequence.frame(t)) for t in range(1, len(sequence))]
    assert [(s.status, s.confidence) for s in said] == [(state.status, state.confidence) for _, state in states]
    assert [s.overlap > 0 for s in said] == [bool(iou(box, true) > 0) for (box, _), true in zip(states, sequence.boxes_xywh[1:])]
    bench.show_state({"small": model}, [BLOCKS[0]])
    printed = capsys.readouterr().out
    assert f"distance decided in {sum(s.by_distance for s in said)} of {len(said)} frames" in printed


@pytest.mark.parametrize("peaks, decided", [(((22, 12), (4, 12)), True), (((4, 12), (8, 12)), False), (((4, 12),), False)])
def test_where_distance_decides(model, peaks, decided):
    tracker = Tracker.load(model, TrackSettings(peaks=PeakSettings(window=0.0)))
    scores = np.zeros((25, 25))
    for k, (x, y) in enumerate(peaks): scores[y, x] = 1 - 0.1 * k
    tracker.last = Sight(Window(0, 0, 200, 200), scores, None, None)
    assert bench.by_distance(tracker, np.array([4.0 * 8 - 8, 12 * 8 - 8, 16, 16])) is decided
