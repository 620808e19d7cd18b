"""Crops that the network's own boxes lead to: whose they are, where they lie, and that training with them is reproducible."""
import copy
import dataclasses

import numpy as np
import pytest
import torch
from blocks import BLOCKS, CPU, EPISODES, PARAMS

from tirnas.core import UserError
from tirnas.data.crops import Augmentation, crop_frame, normalise, search_window
from tirnas.data.episodes import EpisodeSampler
from tirnas.data.unrolled import Unrolled, UnrolledSampler, UnrollSettings, cut_unrolled
from tirnas.nets.genotype import random_genotype
from tirnas.retrain import retrain
from tirnas.tracker import Tracker
from tirnas.unroll import follow, seen_in, undamped, unrolling

GENOTYPE = random_genotype("single", 3)
OWN = dataclasses.replace(PARAMS, unroll=UnrollSettings(4, 6, 1.0))


def make_net(seed=0):
    torch.manual_seed(seed)
    return PARAMS.card(GENOTYPE, {}).build().eval()


def make_piece(number=0, count=4, wrong=(3.0, -2.0, 0.0, 0.0)):
    return Unrolled(number, 2, np.arange(3, 3 + count), BLOCKS[number].boxes_xywh[2:2 + count] + np.array(wrong))


def test_a_test_frame_is_cut_in_the_window_around_the_box_of_the_frame_before():
    piece, settings = make_piece(), dataclasses.replace(EPISODES, num_frames=4)
    crops, boxes, indices = cut_unrolled(BLOCKS[0], piece, np.arange(30), settings, Augmentation(), np.random.default_rng(5))
    assert set(indices[:2]) <= {0, 1, 2} and 2 in indices[:2] and set(indices[2:]) <= {3, 4, 5, 6}
    for k in (2, 3):
        t = int(indices[k])
        window = search_window(BLOCKS[0].boxes_xywh[t - 1] + (3, -2, 0, 0), settings.search_factor, settings.crop_px)
        assert np.array_equal(crops[k], normalise(crop_frame(BLOCKS[0].frame(t), window)))
        assert np.allclose(boxes[k], window.to_crop(BLOCKS[0].boxes_xywh[t]))


def test_the_train_frames_of_a_piece_never_lie_after_its_start():
    settings = dataclasses.replace(EPISODES, num_frames=6, max_gap=1)
    for seed in range(20):
        indices = cut_unrolled(BLOCKS[0], make_piece(), np.arange(30), settings, Augmentation(), np.random.default_rng(seed))[2]
        assert max(indices[:3]) == 2 and min(indices[:3]) >= 1 and min(indices[3:]) >= 3


def test_nothing_covers_the_target_in_a_train_frame():
    cover, bare = Augmentation(cover=1.0), Augmentation()
    settings = dataclasses.replace(EPISODES, center_jitter=0.0, scale_jitter=0.0)
    with_cover, without = (EpisodeSampler(BLOCKS, settings, how, 3)(0).images[0] for how in (cover, bare))
    assert (with_cover == without).all((1, 2, 3)).tolist() == [True, True, False, False]
    piece = make_piece()
    with_cover, without = (cut_unrolled(BLOCKS[0], piece, np.array([2]), settings, how, np.random.default_rng(1))[0] for how in (cover, bare))
    assert np.array_equal(with_cover[:2], without[:2]) and not np.array_equal(with_cover[2:], without[2:])


def test_the_share_of_followed_targets():
    sampler = UnrolledSampler(BLOCKS, EPISODES, Augmentation(), 0, 0.5)
    sampler.take([make_piece(i) for i in (0, 1)])
    names = [name for step in range(300) for name in sampler(step).names]
    # a target is one of the two with chance 1/3; else it is exchanged for one that is free, half of the time
    chosen = sum(name in ("block_07", "block_08") for name in names) / len(names)
    assert 0.5 < chosen < 0.72 and all(len(set(pair)) == 2 for pair in zip(names[::2], names[1::2]))


def test_without_pieces_or_share_the_batches_are_the_plain_ones():
    plain, own = EpisodeSampler(BLOCKS, EPISODES, Augmentation(), 0), UnrolledSampler(BLOCKS, EPISODES, Augmentation(), 0, 1.0)
    assert all(np.array_equal(plain(n).images, own(n).images) for n in range(3))


def test_seen_in_is_the_window_of_the_tracker():
    near = np.array([40.0, 30, 10, 22.5])    # a window of 4 * 15 px around (45, 41.25)
    for x, inside in ((45 + 29.9, True), (45 + 30.1, False), (45 - 29.9, True), (45 - 30.1, False)):
        assert seen_in(near, np.array([x - 2, 41.25 - 2, 4, 4]), 4.0) is inside


def test_following_gives_the_boxes_of_the_undamped_tracker():
    net = make_net()
    tracker = Tracker(net, PARAMS.card(GENOTYPE, {}), undamped(PARAMS.track))
    piece = follow(tracker, BLOCKS[3], 3, np.arange(4, 10))
    other = Tracker(net, PARAMS.card(GENOTYPE, {}), undamped(PARAMS.track))
    other.init(BLOCKS[3].frame(4), BLOCKS[3].boxes_xywh[4])
    near = [BLOCKS[3].boxes_xywh[4], *(other.update(BLOCKS[3].frame(t))[0] for t in range(5, 9))]
    count = len(piece.frames)
    assert count >= 2 and np.array_equal(piece.near_xywh, np.stack(near)[:count]) and piece.frames.tolist() == list(range(5, 5 + count))
    assert undamped(PARAMS.track).box.size_rate == 1 and undamped(PARAMS.track).memory == PARAMS.track.memory


def test_what_cannot_be_tracked_gives_no_piece():
    tiny = BLOCKS[0].replace(name="tiny_07", boxes_xywh=np.tile([10.0, 20, 1, 1], (30, 1)))
    assert follow(Tracker(make_net(), PARAMS.card(GENOTYPE, {})), tiny, 0, np.arange(5)) is None


def test_unrolling_depends_on_weights_and_epoch_alone():
    unroll = unrolling(BLOCKS, OWN, GENOTYPE)
    first, again, later, other = unroll(make_net(), 0), unroll(make_net(), 0), unroll(make_net(), 1), unroll(make_net(7), 0)
    same = lambda a, b: len(a) == len(b) and all(p.sequence == q.sequence and p.start == q.start and np.array_equal(p.near_xywh, q.near_xywh) for p, q in zip(a, b))
    assert same(first, again) and not same(first, later) and not same(first, other)
    assert len({p.sequence for p in first}) == len(first) <= 4 and all(1 <= len(p.frames) <= 5 for p in first)
    assert unrolling(BLOCKS, PARAMS, GENOTYPE)(make_net(), 0) == []


def test_stopped_and_resumed_with_unrolling_to_the_same_weights(tmp_path):
    class Stop(Exception): pass
    def stop(record):
        if record["epoch"] == 0: raise Stop
    unroll = unrolling(BLOCKS, OWN, GENOTYPE)
    with pytest.raises(Stop): retrain(BLOCKS, GENOTYPE, OWN, CPU, tmp_path / "c", stop, unroll=unroll)
    resumed, _ = retrain(BLOCKS, GENOTYPE, OWN, CPU, tmp_path / "c", unroll=unroll)
    straight, _ = retrain(BLOCKS, GENOTYPE, OWN, CPU, unroll=unroll)
    plain, _ = retrain(BLOCKS, GENOTYPE, OWN, CPU)
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), straight.state_dict().values()))
    assert not all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), straight.state_dict().values()))


def test_unrolling_leaves_the_network_as_it_was():
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    unrolling(BLOCKS, OWN, GENOTYPE)(net, 0)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and not net.training


class Holes(type(BLOCKS[0])):
    "Blocks of which some frames cannot be read."
    def frame(self, t):
        if t in self.holes: raise UserError(f"img/{t:04d}.png cannot be read")
        return super().frame(t)


def with_holes(holes):
    found = []
    for block in BLOCKS:
        hollow = copy.copy(block)
        object.__setattr__(hollow, "__class__", Holes)
        object.__setattr__(hollow, "holes", holes)
        found.append(hollow)
    return found


@pytest.mark.parametrize("holes", [{1}, {4}, {0, 1, 4, 5}, {2}, {3, 4, 5, 6}])
def test_unreadable_frames_are_left_out(holes):
    "Before, at and after the start of the pieces: a warning each, never the end of the training."
    sequences, settings = with_holes(holes), dataclasses.replace(EPISODES, num_frames=6, max_gap=30)
    sampler = UnrolledSampler(sequences, settings, Augmentation(), 0, 1.0)
    sampler.take([make_piece(i) for i in range(len(sequences))])
    with pytest.warns(UserWarning, match="cannot be read; until then it is left out of training"): batches = [sampler(n) for n in range(12)]
    assert not any(set(b.frame_indices.ravel().tolist()) & holes for b in batches)
    if not holes & {2} and holes != {3, 4, 5, 6}:
        for b in batches: assert (b.frame_indices[:, :3] <= 2).all() and ((b.frame_indices[:, 3:] >= 3) & (b.frame_indices[:, 3:] <= 6)).all()


def test_readable_frames_are_drawn_as_ever():
    "By the words of the definition: choice of train frames, then of places in the piece, then the look."
    settings, piece = dataclasses.replace(EPISODES, num_frames=6, max_gap=1), make_piece()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        train = np.sort(np.append(rng.choice([1, 2], 2), 2))
        later = np.sort(rng.choice(4, 3, replace=False))
        indices = cut_unrolled(BLOCKS[0], piece, np.arange(30), settings, Augmentation(), np.random.default_rng(seed))[2]
        assert indices.tolist() == [*train, *(3 + later)]


@pytest.mark.parametrize("wrong", [(-1, 6, 0.3), (4, 1, 0.3), (4, 6, 1.5)])
def test_settings_out_of_range(wrong):
    with pytest.raises(UserError, match="^unroll[.].*give at least"): UnrollSettings(*wrong)
