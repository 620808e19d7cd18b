"""The online tracker with a network of random weights: what must hold whatever the weights; and its smaller parts."""
import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tirnas.candidates import damp_size
from tirnas.core import UserError
from tirnas.data.crops import search_window
from tirnas.dimp.card import ModelCard, load_model, save_model
from tirnas.dimp.net import HeadSettings, TrackingNet
from tirnas.dimp.online import SIZE_FROM, BoxSettings, MemorySettings, PeakSettings, TrackSettings
from tirnas.inference import fold_norms
from tirnas.loop import state_of
from tirnas.losses import SHARPNESS
from tirnas.memory import Memory
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import random_genotype
from tirnas.nets.pretrained import make_backbone
from tirnas.peaks import Peak, between_cells, find_peak
from tirnas.refine import start_boxes
from tirnas.tracker import Tracker, find_model, known_models
from tirnas.views import first_views


@pytest.fixture(scope="module")
def tracker():
    torch.manual_seed(0)
    card = ModelCard(random_genotype("dual", 1), Macro("dual", 3, 4, 4), HeadSettings(8, 16, 4, 16), 64, 4.0, {})
    return Tracker(card.build(), card)


def scene(t):
    frame = np.random.default_rng(0).normal(90, 8, (90, 120))
    frame[30:60, 20 + 2 * t:34 + 2 * t] += 60
    return frame.clip(0, 255).astype(np.uint8)


def follow(tracker, frames, box):
    tracker.init(frames[0], box)
    return [tracker.update(frame) for frame in frames[1:]]


BOX = (20.0, 30.0, 14.0, 30.0)


@pytest.mark.parametrize("way", SIZE_FROM)
def test_same_frames_same_boxes(tracker, way):
    frames, settings = [scene(t) for t in range(12)], TrackSettings(box=BoxSettings(size_from=way))
    seeded = Tracker(tracker.net, tracker.card, settings)
    first, second = follow(seeded, frames, BOX), follow(seeded, frames, BOX)
    assert all(np.array_equal(a, b) and s == u for (a, s), (b, u) in zip(first, second))
    assert all(np.isfinite(box).all() and 0 <= state.confidence <= 1 for box, state in first)
    if way == "fixed": assert all(np.allclose(box[2:], BOX[2:]) for box, _ in first)


def test_settings_come_with_the_model(tracker):
    lost = TrackSettings(peaks=PeakSettings(not_found=1e9))
    card = dataclasses.replace(tracker.card, track=lost)
    assert Tracker(tracker.net, card).settings == lost and Tracker(tracker.net, card, TrackSettings()).settings == TrackSettings()


def test_bit_depth_and_gain_do_not_matter(tracker):
    "16-bit counts with another gain and offset are the same scene."
    frames = [scene(t) for t in range(12)]
    counts = [(30 * f.astype(np.uint16) + 4000) for f in frames]
    for (a, _), (b, _) in zip(follow(tracker, frames, BOX), follow(tracker, counts, BOX)):
        assert np.abs(a - b).max() < 0.5


@pytest.mark.parametrize("kind, gain, offset", [(np.float64, 1.0, 1e9), (np.int64, 1, 2**40), (np.uint32, 1, 2**31), (np.float32, 1e-8, 0.0), (np.float64, 1e40, 0.0)])
def test_every_depth_is_the_same_scene(tracker, kind, gain, offset):
    frames = [scene(t) for t in range(8)]
    other = [(f.astype(kind) * kind(gain) + kind(offset)).astype(kind) for f in frames]
    for (a, _), (b, _) in zip(follow(tracker, [f.astype(np.float32) for f in frames], BOX), follow(tracker, other, BOX)): assert np.abs(a - b).max() < 0.1


def test_three_channels_are_one(tracker):
    frames = [scene(t) for t in range(6)]
    for (a, _), (b, _) in zip(follow(tracker, frames, BOX), follow(tracker, [np.dstack([f] * 3) for f in frames], BOX)):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("box", [(0, 0, 14, 30), (110, 70, 10, 20), (-5, 20, 14, 30), (50, 40, 2, 2), (0, 0, 120, 90), (115, 85, 10, 10)])
def test_odd_boxes_stay_boxes(tracker, box):
    for found, state in follow(tracker, [scene(t) for t in range(8)], box):
        assert np.isfinite(found).all() and (found[2:] > 0).all() and state.status in ("held", "uncertain", "lost")


# what is refused

@pytest.mark.parametrize("box, said", [((50, 40, 1, 1), "too small to be tracked"), ((-20, -20, 200, 160), "larger than the frame"),
                                       ((300, 10, 14, 30), "outside the frame"), ((20, 30, 0, 30), "has no size"),
                                       ((118, 30, 14, 30), "only 14 % of the box"), ((20, float("nan"), 14, 30), "has no size"),
                                       ((20, 30, 14), "is not understood")])
def test_boxes_that_are_no_start(tracker, box, said):
    "One sentence, and the track that was running goes on as if nothing had been asked."
    frames = [scene(t) for t in range(4)]
    want = follow(tracker, frames, BOX)[-1][0]
    tracker.init(frames[0], BOX)
    for frame in frames[1:3]: tracker.update(frame)
    with pytest.raises(UserError, match=said) as caught: tracker.init(frames[0], box)
    assert "\n" not in str(caught.value) and np.array_equal(tracker.update(frames[3])[0], want)


def with_nan(frame):
    frame = frame.astype(np.float32)
    frame[3, 5] = np.nan
    return frame


@pytest.mark.parametrize("kind, change, said", [
    (np.uint8, lambda f: f[:80], "size in px changes at frame 2 from 120 x 90 to 120 x 80"),
    (np.uint8, lambda f: np.dstack([f] * 3), "number of channels changes at frame 2 from 1 to 3"),
    (np.uint8, lambda f: f.astype(np.uint16), "type of values changes at frame 2 from uint8 to uint16"),
    (np.float32, with_nan, "frame 2 has NaN or infinity in 1 of 10800 values"),
    (np.uint8, lambda f: f[:0], "frame 2 is empty"), (np.uint8, lambda f: None, "frame 2 is of type NoneType")])
def test_frames_that_break_a_sequence(tracker, kind, change, said):
    "One sentence; the frame counts for nothing, and the next good one is tracked as if it had come at once."
    frames = [scene(t).astype(kind) for t in range(4)]
    want = follow(tracker, frames, BOX)[-1][0]
    tracker.init(frames[0], BOX)
    tracker.update(frames[1])
    with pytest.raises(UserError, match=said) as caught: tracker.update(change(frames[2]))
    assert "\n" not in str(caught.value)
    tracker.update(frames[2])
    assert np.array_equal(tracker.update(frames[3])[0], want)


def test_constant_frames(tracker):
    flat = np.full((90, 120), 7, np.uint8)
    with pytest.raises(UserError, match="have the value 7: start on a frame where the target can be seen"): tracker.init(flat, BOX)
    tracker.init(scene(0), BOX)
    for _ in range(5): assert np.isfinite(tracker.update(flat)[0]).all()


def test_update_before_init(tracker):
    with pytest.raises(UserError, match="call init"): Tracker(tracker.net, tracker.card).update(scene(0))


def whole(path, card): return save_model(path, card.build(), card).read_bytes()


def with_nan(net):
    net.requires_grad_(False).box_branch.out.bias.fill_(torch.nan)
    return net


def with_negative(net):
    next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)).running_var.neg_()
    return net


@pytest.mark.parametrize("spoil, said", [
    (lambda path, card: path.write_bytes(whole(path, card)[:-100]), "is not a tirnas model"),
    (lambda path, card: path.write_bytes(whole(path, card)[:50]), "is not a tirnas model"),
    (lambda path, card: save_model(path, card.build(), dataclasses.replace(card, heads=HeadSettings(8, 32, 4, 16))), "does not hold the weights"),
    (lambda path, card: save_model(path, card.build(), dataclasses.replace(card, backbone="resnet18")), "does not hold the weights"),
    (lambda path, card: save_model(path, with_nan(card.build()), card), "box_branch.out.bias holds NaN"),
    (lambda path, card: save_model(path, with_negative(card.build()), card), "running_var holds NaN, infinity or a negative variance"),
    (lambda path, card: torch.save(card.build().state_dict(), path), "is not a tirnas model")],
    ids=["short of weights", "short of its header", "other heads", "another backbone", "NaN", "negative variance", "pickle"])
def test_files_that_are_no_model(tracker, tmp_path, spoil, said):
    torch.manual_seed(0)
    spoil(path := tmp_path / "model.safetensors", tracker.card)
    with pytest.raises(UserError, match=said) as caught: Tracker.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_model_from_its_file_is_the_same_tracker(tracker, tmp_path):
    torch.manual_seed(0)
    net, frames = tracker.card.build(), [scene(t) for t in range(5)]
    loaded = Tracker.load(save_model(tmp_path / "model.safetensors", net, tracker.card))
    for (a, _), (b, _) in zip(follow(Tracker(net, tracker.card), frames, BOX), follow(loaded, frames, BOX)): assert np.array_equal(a, b)


def test_a_file_from_before_a_setting_takes_its_default(tracker, tmp_path):
    torch.manual_seed(0)
    path = save_model(tmp_path / "model.safetensors", tracker.card.build(), tracker.card)
    with safe_open(path, framework="pt") as f: header, weights = json.loads(f.metadata()["tirnas"]), {k: f.get_tensor(k) for k in f.keys()}
    del header["heads"]["cls_elliptic"], header["track"]["box"]["max_aspect"], header["track"]["peaks"]
    save_file(weights, path, metadata={"tirnas": json.dumps(header)})
    card = load_model(path)[1]
    assert card.heads.cls_elliptic is False and card.track.box.max_aspect == BoxSettings().max_aspect and card.track.peaks == PeakSettings()
    header["heads"]["cls_fused"] = True
    save_file(weights, path, metadata={"tirnas": json.dumps(header)})
    with pytest.raises(UserError, match="cls_fused is unknown"): load_model(path)


def test_a_refused_start_leaves_the_target_before_it(tracker):
    frames = [scene(t) for t in range(4)]
    one, other = (Tracker(tracker.net, tracker.card) for _ in range(2))
    for t in (one, other): t.init(frames[0], BOX)
    with pytest.raises(UserError): one.init(frames[0], (0, 0, 1, 1))
    for frame in frames[1:]: assert np.array_equal(one.update(frame)[0], other.update(frame)[0])


def test_a_model_loaded_in_inference_mode_is_the_same_tracker(tracker, tmp_path):
    path, frames = save_model(tmp_path / "model.safetensors", tracker.card.build(), tracker.card), [scene(t) for t in range(4)]
    with torch.inference_mode(): loaded = Tracker.load(path)
    assert not any(p.is_inference() for p in loaded.net.parameters())
    for (a, s), (b, u) in zip(follow(Tracker.load(path), frames, BOX), follow(loaded, frames, BOX)): assert np.array_equal(a, b) and s == u


@pytest.fixture
def repository(tmp_path, monkeypatch):
    "A folder with params.yaml and out/, around which the package looks for what the pipeline made."
    (tmp_path / "params.yaml").touch()
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("tirnas.tracker._home", lambda: tmp_path)
    return tmp_path / "out" / "model.safetensors"


@pytest.mark.parametrize("recipe, name", [("mini", "mini"), ("base", "out"), ("gpu", "out"), (None, "out"), ("mini, rehearsed", "out")])
def test_what_the_pipeline_made_has_the_name_of_its_recipe(tracker, repository, recipe, name):
    "Another recipe's result never stands for the model that ships."
    shipped = known_models()
    save_model(repository, tracker.card.build(), dataclasses.replace(tracker.card, origin={"mini, rehearsed": {"recipe": "mini", "rehearsal": "of 4 updates"}, None: {}}.get(recipe, {"recipe": recipe})))
    assert known_models() == shipped | {name: repository} and find_model(name) == repository
    assert find_model("base") == shipped["base"] and (recipe == "mini" or find_model("mini") == shipped["mini"])


def test_a_damaged_file_in_out_is_not_mini(repository):
    shipped = find_model("mini")
    repository.write_bytes(b"no model")
    assert find_model("mini") == shipped and known_models()["out"] == repository


@pytest.mark.parametrize("model", [None, 3, ["mini"], "", "x" * 5000, "a\0b", "no-such-model"])
def test_words_that_are_no_model(model):
    with pytest.raises(UserError, match="give (its name or )?the path of") as caught: Tracker.load(model)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("device", ["gpu0", "cuda:99", "meta-physics", pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here"))])
def test_a_device_that_is_not_there(device):
    with pytest.raises(UserError, match="cannot be used here .*give auto, cpu or cuda"): Tracker.load("mini", device=device)


def altered(header, place, value):
    "The header with one key changed, within its groups."
    changed = json.loads(json.dumps(header))
    group = changed
    for key in place[:-1]: group = group[key]
    group[place[-1]] = value
    return changed


BAD_CARDS = [(("crop_px",), 128.5), (("crop_px",), 10**6), (("crop_px",), "128"), (("crop_px",), True), (("crop_px",), float("nan")),
             (("search_factor",), 1e9), (("search_factor",), "4"), (("search_factor",), True), (("origin",), None), (("backbone",), None),
             (("backbone",), ["x"]), (("genotype",), "x"), (("genotype",), []), (("genotype",), {}), (("genotype", "normal"), 3), (("macro",), None),
             (("heads",), None), (("track",), 5), (("track", "memory"), None), (("format",), 1), (("extra",), 1)]


@pytest.mark.parametrize("place, value", BAD_CARDS)
def test_headers_that_are_no_card(tracker, tmp_path, place, value):
    path = save_model(tmp_path / "model.safetensors", tracker.card.build(), tracker.card)
    with safe_open(path, framework="pt") as f: header, weights = json.loads(f.metadata()["tirnas"]), {k: f.get_tensor(k) for k in f.keys()}
    save_file(weights, path, metadata={"tirnas": json.dumps(altered(header, place, value))})
    with pytest.raises(UserError) as caught: load_model(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["3", '"a"', "[]", "null", "{}", "true", "[[", "[" * 100000])
def test_headers_that_are_no_group(tracker, tmp_path, text):
    path = tmp_path / "model.safetensors"
    save_file(tracker.card.build().state_dict(), path, metadata={"tirnas": text})
    with pytest.raises(UserError, match="is not a tirnas model"): load_model(path)


def test_a_map_that_is_no_number_is_lost():
    heads, box = HeadSettings(8, 16, 4, 16), np.array([54.0, 41, 20, 46])
    for value in (np.nan, np.inf):
        scores = np.full((17, 17), 0.01)
        scores[8, 8], scores[3, 4] = 0.9, value
        state = state_of(find_peak(scores, box, heads.cls_stride, heads.filter_size, PeakSettings()), SHARPNESS)
        assert state == (0.0, "lost")


@pytest.mark.parametrize("wrong", [{"not_found": float("nan")}, {"window": float("nan")}, {"window": 1.5}, {"distractor": -1.0}])
def test_peak_settings_out_of_range(wrong):
    with pytest.raises(UserError, match="^track[.].*give at least"): PeakSettings(**wrong)


def test_confidence_is_that_of_the_map_wherever_the_peak_lies():
    "A window that favours the middle chooses the peak; it does not make the tracker less sure of it."
    scores, grid = np.full((17, 17), 0.01), (8, 4)
    scores[3, 4] = 0.9
    peak = find_peak(scores, np.array([54.0, 41, 20, 46]), *grid, PeakSettings(window=0.8))
    assert (peak.x, peak.y, peak.score) == (4, 3, 0.9) and state_of(peak, SHARPNESS) == (pytest.approx(1 / (1 + np.exp(-8 * 0.4))), "held")
    scores[3, 4] = 0.55    # weighed, still found; a confidence of a half and more
    assert state_of(find_peak(scores, np.array([54.0, 41, 20, 46]), *grid, PeakSettings(window=0.5, not_found=0.1)), SHARPNESS).confidence > 0.5


def test_what_is_hardly_there_is_not_called_held():
    for score, status in ((0.2, "uncertain"), (0.24, "held")): assert state_of(Peak(0, 0, score, "normal"), SHARPNESS).status == status


# its parts

def test_memory_weights_by_simulation():
    "Against the rule in plain numbers: others shrink by 1 - rate, the first ones never fall below their share."
    settings, rate = MemorySettings(size=100, first_share=0.25), 0.05
    memory, weights = Memory(torch.zeros(4, 1, 1, 1), torch.zeros(4, 2), settings), [0.25] * 4
    for _ in range(60):
        memory.add(torch.zeros(1, 1, 1), torch.zeros(2), rate)
        weights = [w * (1 - rate) / sum(weights) for w in weights] + [rate]
        if sum(weights[:4]) < 0.25:
            first, rest = sum(weights[:4]), sum(weights[4:])
            weights = [w * 0.25 / first for w in weights[:4]] + [w * 0.75 / rest for w in weights[4:]]
    assert np.allclose(memory.weights.numpy(), weights, atol=1e-5)


def test_shifted_views_move_the_box_with_the_picture():
    frame = np.zeros((90, 120), np.uint8)
    frame[30:60, 20:34] = 200
    views, boxes = first_views(frame, search_window(np.array(BOX), 4.0, 64), np.array(BOX))
    for view, (x, y, w, h) in zip(views[:6], boxes[:6]):
        bright = np.argwhere(view > (view.min() + view.max()) / 2)
        assert np.abs(bright.min(0) - (y, x)).max() <= 1.5 and np.abs(bright.max(0) + 1 - (y + h, x + w)).max() <= 1.5


def test_places_between_cells_by_padding():
    "Against the parabola through a map that is mirrored at its border."
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = rng.random(rng.integers(2, 7, 2))
        y, x = np.unravel_index(scores.argmax(), scores.shape)
        padded = np.pad(scores, 1, mode="reflect")
        for found, at, (low, mid, high) in zip(between_cells(scores, x, y), (x, y), (padded[y + 1, x:x + 3], padded[y:y + 3, x + 1])):
            tops = np.linspace(-0.5, 0.5, 2001)
            assert abs(found - at - tops[np.argmax(mid + (high - low) / 2 * tops + (low - 2 * mid + high) / 2 * tops ** 2)]) < 1e-3


def test_damped_size_between_its_ends():
    old, new = np.array([20.0, 40]), np.array([14.0, 8, 30, 44])
    assert np.allclose(damp_size(old, new, 1), new) and np.allclose(damp_size(old, new, 0), [19, 10, 20, 40])


def test_start_boxes_by_their_distribution():
    settings = BoxSettings(num_boxes=20000, center_jitter=0.2, size_jitter=0.6)
    boxes = start_boxes(np.array([40.0, 30, 16, 36]), settings, torch.Generator().manual_seed(0)).double().numpy()[1:]
    moved = (boxes[:, :2] + boxes[:, 2:] / 2 - (48, 48)) / 24
    grown = np.log(boxes[:, 2:] / (16, 36))
    for drawn, half in ((moved, 0.1), (grown, 0.3)):
        assert abs(drawn).max() <= half + 1e-6 and np.allclose(drawn.std(0), half / 3 ** 0.5, rtol=0.03) and np.allclose(drawn.mean(0), 0, atol=0.03 * half)


def settle(net):
    "Give every batch norm statistics and weights that are not those of the start."
    for m in net.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for values in (m.running_mean, m.bias.data): values.normal_(0, 0.3)
            for values in (m.running_var, m.weight.data): values.uniform_(0.5, 2)
    return net.eval()


def answers(net, image, boxes):
    "Everything the tracker asks of a network."
    feats = net.backbone(image)
    branch, maps = net.box_branch, net.box_branch.prepare(feats)
    modulation = branch.reference(feats, boxes[:, 0])
    return [*feats.values(), net.classifier.features(feats), *maps.values(), *modulation, *branch.judge(maps, modulation, boxes)]


@pytest.mark.parametrize("kind", ["dual", "single", "resnet18", "resnet50", "efficientnet_lite0"])
def test_folding_changes_no_answer(kind):
    torch.manual_seed(0)
    searched = kind in ("dual", "single")
    macro = Macro(kind, 5, 8, 4) if searched else None
    backbone = make_backbone("searched" if searched else kind, random_genotype(kind, 3) if searched else None, macro)
    net = settle(TrackingNet(backbone, HeadSettings(8, 16, 4, 16, cls_fuse=True)))
    before, image = {k: v.clone() for k, v in net.state_dict().items()}, torch.randn(2, 1, 64, 64)
    boxes = torch.tensor([[[20.0, 16, 16, 30], [24, 20, 14, 20]], [[30, 10, 20, 20], [10, 30, 30, 12]]])
    folded = fold_norms(net)
    with torch.no_grad():
        for a, b, c in zip(*(answers(n, image, boxes) for n in (net, folded, fold_norms(folded)))):
            assert torch.allclose(a, b, atol=1e-4 * a.abs().max().item(), rtol=0) and torch.equal(b, c)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items()) and any(p.requires_grad for p in net.parameters())
    norms = [m for m in folded.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert not any(p.requires_grad for p in folded.parameters()) and (searched or not norms)


def test_chains_without_statistics_are_left_alone():
    "The search network normalises by the batch: nothing can be folded there."
    chain = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3))
    assert len(fold_norms(chain)) == 3
