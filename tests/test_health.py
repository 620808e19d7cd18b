"""Checks while training: what is held out, what is scored and when, that training is left alone; triplets, maps, costs."""
import copy
import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
import torch
from blocks import BLOCKS, CPU, EPISODES, PARAMS

from tirnas.core import UserError, load_state, print_record, save_state
from tirnas.data.crops import Augmentation
from tirnas.data.episodes import EpisodeSampler
from tirnas.data.layouts import Place
from tirnas.data.sequences import Sequence
from tirnas.dimp.card import load_model, save_model
from tirnas.dimp.net import HeadSettings
from tirnas.health import (checked, clip_success, descent_maps, embed_targets, first_frames, hardest_triplets,
                           health_warnings, hold_out, mean_success, show_descent, show_health, show_triplets,
                           unmoved, validation, worst_of_each)
from tirnas.losses import batch_hard_triplet
from tirnas.nets.cost import count_parameters, macs_of
from tirnas.nets.genotype import random_genotype
from tirnas.objective import to_tensors
from tirnas.nets.backbones import ResNet
from tirnas.nets.pretrained import BackboneSettings, torchvision_name
from tirnas.retrain import retrain, start_digest, start_retrain
from tirnas.tracker import Tracker

GENOTYPE = random_genotype("single", 3)
CARD = PARAMS.card(GENOTYPE, {})


def make_net(seed=0):
    torch.manual_seed(seed)
    return CARD.build().eval()


def make_batch(seed=0, **changes):
    batch = EpisodeSampler(BLOCKS, dataclasses.replace(EPISODES, **changes), Augmentation(), seed)(0)
    return batch, *to_tensors(batch, CPU)


def placed(name, frames, box=None):
    return Sequence.at(Place("coco" if box else "otb", name, "/d", f"/d/{frames}", box_xywh=box))


def films(number): return [placed(f"v{i:03d}", f"v{i}") for i in range(number)]


# --- held out

@pytest.mark.parametrize("number", [0, 1, 4, 8])
def test_held_out_videos(number):
    sequences = films(40)
    train, held = hold_out(sequences, number)
    assert len(held) == number and train == [s for s in sequences if s not in held]
    shuffled = random.Random(1).sample(sequences, 40)
    assert hold_out(shuffled, number)[1] == held and hold_out(shuffled, number)[0] == [s for s in shuffled if s not in held]


def test_more_is_held_out_from_the_same_order():
    sequences = films(40)
    assert hold_out(sequences, 8)[1][:3] == hold_out(sequences, 3)[1]


@pytest.mark.parametrize("videos, asked, got", [(0, 1, 0), (4, 4, 0), (5, 4, 1), (19, 4, 3), (20, 4, 4)])
def test_few_videos_train(videos, asked, got):
    if got < asked:
        with pytest.warns(UserWarning, match=f"validate_sequences is {asked} but there are {videos} videos"):
            train, held = hold_out(films(videos), asked)
    else: train, held = hold_out(films(videos), asked)
    assert len(held) == got and len(train) == videos - got


def test_images_are_never_held_out():
    stills = [placed(f"p{i}", f"p{i}.png", (1, 1, 9, 9)) for i in range(500)]
    train, held = hold_out(stills + films(10), 2)
    assert len(held) == 2 and not any(s.place.box_xywh for s in held) and len(train) == 508


def test_a_video_of_several_targets_is_held_out_whole():
    targets = [placed(f"v{i}_{k}", f"v{i}") for i in range(10) for k in range(3)]
    train, held = hold_out(targets, 2)
    assert len(held) == 2 and len(train) == 24 and not {s.place.frames for s in train} & {s.place.frames for s in held}


def test_equal_names_are_two_sequences():
    twice = films(10) + [placed(f"v{i:03d}", f"other{i}") for i in range(10)]
    train, held = hold_out(twice, 4)
    assert len(train) == 16 and len(held) == 4


# --- validation

def test_a_piece_starts_where_there_is_a_target():
    boxes = np.array([[np.nan] * 4, [0, 0, 0, 0], *[[5.0, 5, 9, 9]] * 8])
    sequence = Sequence("late", range(10), boxes)
    assert first_frames(sequence, 3) == range(2, 5) and first_frames(sequence, 30) == range(2, 10)


class Follows:
    "Gives the boxes that it is made with, and notes what it was given."
    def __init__(self, boxes): self.boxes, self.seen = iter(boxes), []
    def init(self, frame, box): self.seen.append((frame, box))
    def update(self, frame):
        self.seen.append((frame, None))
        return next(self.boxes), None


def test_success_of_a_piece():
    "Half of the box's width away gives an overlap of one third, above seven of the 21 thresholds; the first frame is given."
    sequence = BLOCKS[3]
    width = sequence.boxes_xywh[0, 2]
    tracker = Follows(sequence.boxes_xywh[3:] + (width / 2, 0, 0, 0))
    found = clip_success(tracker, sequence, range(2, 6))
    assert math.isclose(found, (20 + 3 * 7) / 21 / 4)
    assert np.array_equal(tracker.seen[0][1], sequence.boxes_xywh[2]) and len(tracker.seen) == 4
    assert all(np.array_equal(frame, sequence.frame(t)) for (frame, _), t in zip(tracker.seen, range(2, 6)))


def test_the_mean_is_that_of_fresh_trackers():
    net, clips = make_net(), [(s, range(6)) for s in BLOCKS[:3]]
    alone = [clip_success(Tracker(net, CARD), *clip) for clip in clips]
    assert mean_success(net, PARAMS, GENOTYPE, clips) == pytest.approx(np.mean(alone), abs=1e-12)
    assert math.isnan(mean_success(net, PARAMS, GENOTYPE, []))


def test_a_refused_video_is_left_out():
    class Broken(type(BLOCKS[0])):
        def frame(self, t):
            if t == 3: raise UserError("frame 3 cannot be read: replace it")
            return super().frame(t)
    broken = Broken("broken_09", tuple(range(30)), BLOCKS[2].boxes_xywh)
    net, good = make_net(), (BLOCKS[0], range(6))
    with pytest.warns(UserWarning, match="broken_09 is left out of the validation: frame 3 cannot be read"):
        assert mean_success(net, PARAMS, GENOTYPE, [(broken, range(6)), good]) == mean_success(net, PARAMS, GENOTYPE, [good])
    with pytest.warns(UserWarning): assert math.isnan(mean_success(net, PARAMS, GENOTYPE, [(broken, range(6))]))


def random_states(): return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()


def test_a_check_leaves_everything_as_it_was():
    net = make_net()
    before, weights, threads = random_states(), copy.deepcopy(net.state_dict()), torch.get_num_threads()
    found = validation(BLOCKS[:2], PARAMS, GENOTYPE, 6)(net, 2)
    after = random_states()
    assert 0 < found["validation_success"] < 1 and torch.get_num_threads() == threads
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2] == after[2]
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items()) and torch.is_grad_enabled()


class Stop(Exception): pass


def test_the_run_and_its_history_do_not_depend_on_checks_or_stops(tmp_path):
    "With checks, without, and stopped between two: equal weights; with checks the history is equal too."
    params = dataclasses.replace(PARAMS, epochs=5, steps=1)
    run = lambda validate, *more: retrain(BLOCKS[1:], GENOTYPE, params, CPU, *more, validate=validate)
    make = lambda: validation(BLOCKS[:1], params, GENOTYPE, 5)
    net, history = run(make())
    plain, _ = run(lambda net, epochs: {})
    def stop(record):
        if record["epoch"] == 2: raise Stop
    with pytest.raises(Stop): run(make(), tmp_path / "c.safetensors", stop)
    resumed, again = run(make(), tmp_path / "c.safetensors")
    for other in (plain, resumed): assert all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))
    np.testing.assert_equal(again, history)     # nan equals nan here
    assert [r["epoch"] for r in checked(history)] == [1, 3, 4]


def test_a_record_without_a_check_can_be_kept_and_printed(tmp_path, capsys):
    record = {"epoch": 0, "validation_success": math.nan}
    save_state(tmp_path / "state", {"history": [record]})
    assert math.isnan(load_state(tmp_path / "state")["history"][0]["validation_success"])
    print_record(record)
    assert "validation_success nan" in capsys.readouterr().out


# --- pictures and warnings

def invented(epochs, **columns):
    return [{"epoch": e, "lr": 0.1, "total": 1.0, "hinge": 0.5 * 0.9 ** e, "gradient_backbone": 1.0, "gradient_classifier": 1.0,
             **{k: f(e) for k, f in columns.items()}} for e in range(epochs)]


@pytest.mark.parametrize("epochs", [1, 2, 9])
@pytest.mark.parametrize("success", [math.nan, 0.5, None])
def test_any_history_can_be_drawn(epochs, success):
    history = invented(epochs) if success is None else invented(epochs, validation_success=lambda e: success)
    figure = show_health(history)
    figure.canvas.draw()
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 2 and len(figure.axes[1].lines) == 2
    assert len(figure.axes[3].lines[0].get_xdata()) == (epochs if success == 0.5 else 0)


def test_a_healthy_run_has_no_warnings():
    fine = invented(10, total=lambda e: 0.9 ** e, gradient_backbone=lambda e: 0.6 ** e, validation_success=lambda e: 0.05 * e)
    assert health_warnings(fine, PARAMS.loss) == [] == health_warnings([], PARAMS.loss)


@pytest.mark.parametrize("columns, said", [
    ({"gradient_backbone": lambda e: 0.0}, "gradient of the backbone has a norm of 0,"),
    ({"gradient_classifier": lambda e: 10.0 ** -e}, "gradient of the classifier has a norm of 1e-09, once 1"),
    ({"hinge": lambda e: 0.2}, "the hinge loss has stood at 0.2 for 10 epochs"),
    ({"total": lambda e: 0.9 ** e, "validation_success": lambda e: 0.6 - 0.05 * e}, "fell from 0.600 in epoch 0 to 0.150")])
def test_each_fault_is_told(columns, said):
    told = health_warnings(invented(10, **columns), PARAMS.loss)
    assert len(told) == 1 and said in told[0]


def test_what_has_no_weight_may_stand_still():
    history = invented(10, hinge=lambda e: 0.2, triplet=lambda e: 0.0, center=lambda e: 0.3)
    assert [w.split()[1] for w in unmoved(history, PARAMS.loss)] == ["hinge", "center"]
    assert unmoved(history, dataclasses.replace(PARAMS.loss, hinge=0.0, center=0.0)) == []


def test_nothing_is_told_of_noise():
    "Success that scatters by less than a tenth and losses that scatter by a twentieth."
    for seed in range(20):
        draw = np.random.default_rng(seed).uniform(-1, 1, (3, 14))
        noisy = invented(14, total=lambda e: 1 - 0.05 * e + 0.02 * draw[0, e], hinge=lambda e: 0.5 + 0.05 * draw[1, e],
                         validation_success=lambda e: 0.6 + 0.045 * draw[2, e])
        assert health_warnings(noisy, PARAMS.loss) == []


# --- triplets

@pytest.mark.parametrize("seed", range(6))
def test_hardest_triplets_by_enumeration(seed):
    targets, frames = ((4, 3), (2, 2), (5, 4))[seed % 3]
    drawn = torch.randn(targets, frames, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    embed = torch.nn.functional.normalize(drawn, dim=-1)
    places = list(itertools.product(range(targets), range(frames)))
    gap = lambda a, b: (embed[a] - embed[b]).norm().item()
    best = {}
    for a, p, n in itertools.product(places, repeat=3):
        if a[0] == p[0] != n[0] and a != p: best[a] = max(best.get(a, (-9,)), (gap(a, p) - gap(a, n), p, n))
    expected = sorted(((v, a, p, n) for a, (v, p, n) in best.items()), reverse=True)
    found = hardest_triplets(embed, targets * frames)
    assert [t[:3] for t in found] == [(a, p, n) for _, a, p, n in expected]
    assert np.allclose([t.to_positive - t.to_negative for t in found], [v for v, *_ in expected])
    violations = [max(0.3 + t.to_positive - t.to_negative, 0) for t in found]
    assert math.isclose(np.mean(violations), batch_hard_triplet(embed, 0.3).item(), rel_tol=1e-9)
    assert hardest_triplets(embed, 2) == found[:2]
    assert worst_of_each(found) == [next(t for t in found if t.anchor[0] == k) for k in dict.fromkeys(t.anchor[0] for t in found)]


@pytest.mark.parametrize("shape", [(1, 4, 3), (4, 1, 3)])
def test_no_triplets_without_pairs(shape):
    assert hardest_triplets(torch.rand(shape), 3) == [] and show_triplets(make_batch()[0], []) is None


def test_embedding_is_that_of_the_loss():
    net, (batch, images, boxes) = make_net(), make_batch()
    embed = embed_targets(net, images, boxes)
    feat = net.classifier.features(net.backbone(images.flatten(0, 1)))
    assert embed.shape[:2] == boxes.shape[:2] and torch.allclose(embed.norm(dim=-1), torch.ones(embed.shape[:2]))
    assert torch.equal(embed.flatten(0, 1), net.classifier.embed(feat, boxes.flatten(0, 1)))
    figure = show_triplets(batch, hardest_triplets(embed, 2))
    assert len(figure.axes) == 6 and "frame" in figure.axes[0].get_title() and "same" in figure.axes[1].get_title()


# --- descent

def test_descent_maps():
    "The first map is the pooled filter's, the last that of a training pass; a network in training comes back so, unchanged."
    net, (batch, images, boxes) = make_net(), make_batch()
    maps = descent_maps(net, images, boxes, 3)
    assert maps.shape == (4, 2, 2, 9, 9) and torch.equal(descent_maps(net, images, boxes, 0)[0], maps[0])
    with torch.no_grad(): out = net(images, boxes, boxes[:, 2:, None], 3)
    assert torch.allclose(torch.stack(out.scores), maps, atol=1e-6)
    weights = copy.deepcopy(net.train().state_dict())
    assert torch.equal(descent_maps(net, images, boxes, 3), maps) and net.training
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())
    assert len(show_descent(net, batch, maps, 1).axes) == 5


# --- going on from a model

def test_training_goes_on_from_a_model_of_the_same_architecture(tmp_path):
    "Every copy starts with the weights of the file, whose crop may differ; another architecture or no file is refused."
    path = save_model(tmp_path / "m.safetensors", make_net(7), dataclasses.replace(CARD, crop_px=96))
    run = start_retrain(BLOCKS, GENOTYPE, dataclasses.replace(PARAMS, start_from=str(path)), CPU)
    kept = load_model(path)[0].state_dict()
    for net in run.copies:
        assert net.training and all(torch.equal(net.state_dict()[k], v) for k, v in kept.items())
    wider = dataclasses.replace(PARAMS, start_from=str(path), heads=HeadSettings(8, 16, 4, 8))
    with pytest.raises(UserError, match="architecture is not the recipe's"): start_retrain(BLOCKS, GENOTYPE, wider, CPU)
    gone = dataclasses.replace(PARAMS, start_from=str(tmp_path / "gone.safetensors"))
    with pytest.raises(UserError, match="is not a tirnas model"): start_retrain(BLOCKS, GENOTYPE, gone, CPU)


def test_another_weight_file_under_the_same_name_is_another_start(tmp_path, monkeypatch):
    "Absolute, or from the folder of params.yaml wherever one is: and the weights are those of the file."
    (tmp_path / "params.yaml").touch()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    deep = lambda name: dataclasses.replace(PARAMS, backbone=BackboneSettings("resnet18", name))
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        resnet = ResNet(18, 1)
        weights = {torchvision_name(k): v for k, v in resnet.state_dict().items() if not k.endswith("num_batches_tracked")}
        torch.save(weights, tmp_path / "resnet.pth")
        marks = [start_digest(deep(name)) for name in ("resnet.pth", str(tmp_path / "resnet.pth"))]
        assert marks[0] == marks[1]
        made.append(marks[0])
        net = start_retrain(BLOCKS, None, deep("resnet.pth"), CPU).copies[0]
        assert torch.equal(net.backbone.stem[0].weight, resnet.stem[0].weight)
    assert made[0] != made[1] and start_digest(PARAMS) == [None, None]
    with pytest.raises(UserError, match="gone.pth does not exist"): start_retrain(BLOCKS, None, deep("gone.pth"), CPU)
