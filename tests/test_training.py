"""Episodes, losses, search and retraining: brute force, disjoint groups, exact resumption."""
import dataclasses
import math

import numpy as np
import pytest
import torch
from blocks import BLOCKS, CPU, EPISODES

from tirnas.bilevel import gradients
from tirnas.boxes import iou
from tirnas.core import UserError
from tirnas.data.crops import Augmentation, crop_frame, normalise, search_window
from tirnas.data.episodes import EpisodeSampler, draw_frames, split_halves, usable_frames
from tirnas.data.layouts import Place
from tirnas.data.sequences import Sequence
from tirnas.dimp.net import HeadSettings, Judged
from tirnas.losses import LossWeights, batch_hard_triplet, center_loss, classification_loss, hinge_loss, joint_loss, overlap_loss, shift_loss
from tirnas.nets.cells import Macro
from tirnas.objective import to_tensors




@pytest.mark.parametrize("length", [2, 3, 4, 5, 9, 40])
@pytest.mark.parametrize("num_frames", [2, 4, 6, 8])
def test_frames_are_causal(length, num_frames):
    "Train frames never come after test frames, whatever the length; indices stay in range."
    rng, usable = np.random.default_rng(length), np.arange(length) * 2
    for _ in range(200):
        drawn = draw_frames(usable, num_frames, 10, rng)
        assert len(drawn) == num_frames and (np.diff(drawn) >= 0).all() and np.isin(drawn, usable).all() and np.ptp(drawn) <= 20
        if length > 2: assert drawn[0] < drawn[-1]


def test_unusable_boxes_are_left_out():
    boxes = np.array([[1, 1, 5, 5], [np.nan] * 4, [1, 1, 0, 5], [0, 0, 3, 3], [1, 1, 4, -2]], dtype=float)
    assert usable_frames(boxes).tolist() == [0, 3]


def test_training_and_tracking_see_the_same_pixels():
    "Without jitter and augmentation, an episode's crop is the tracker's crop, bit for bit, and so is the box."
    still = dataclasses.replace(EPISODES, center_jitter=0.0, scale_jitter=0.0)
    batch = EpisodeSampler(BLOCKS, still, Augmentation(), 0)(3)
    for p, name in enumerate(batch.names):
        sequence = next(s for s in BLOCKS if s.name == name)
        for k, t in enumerate(batch.frame_indices[p]):
            window = search_window(sequence.boxes_xywh[t], 4.0, 64)
            assert np.array_equal(batch.images[p, k, 0], normalise(crop_frame(sequence.frame(t), window)))
            assert np.allclose(batch.boxes_xywh[p, k], window.to_crop(sequence.boxes_xywh[t]))


def test_halves():
    sequences = [Sequence(f"s{i}", (), np.zeros((0, 4))) for i in range(11)]
    weight, arch = split_halves(sequences, 4)
    assert not set(weight) & set(arch) and set(weight) | set(arch) == set(sequences) and abs(len(weight) - len(arch)) <= 1
    assert split_halves(sequences[::-1], 4) == (weight, arch) != split_halves(sequences, 5)
    with pytest.raises(UserError, match="cannot be halved"): split_halves(sequences[:1], 0)


def test_targets_of_one_picture_are_never_on_both_sides():
    objects = [Sequence.at(Place("coco", f"p{i}_{n}", "/d", f"/d/p{i}.png", box_xywh=(1, 1, 9, 9))) for i in range(9) for n in range(3)]
    for seed in range(10):
        weight, arch = split_halves(objects, seed)
        assert len(weight) + len(arch) == 27 and not {s.place.frames for s in weight} & {s.place.frames for s in arch}


@pytest.mark.parametrize("seed", range(5))
def test_triplets_by_enumeration(seed):
    embed = torch.nn.functional.normalize(torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)
    flat, who = embed.flatten(0, 1), [i // 3 for i in range(12)]
    terms = []
    for a in range(12):
        d = (flat[a] - flat).norm(dim=1)
        terms.append(max(0.3 + d[p] - d[n] for p in range(12) for n in range(12) if who[p] == who[a] != who[n]).clamp(min=0))
    assert torch.allclose(batch_hard_triplet(embed, 0.3), torch.stack(terms).mean())


def test_triplet_gradients():
    embed = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: batch_hard_triplet(e, 0.3), (embed,))


def test_other_losses_by_hand():
    scores, label = torch.tensor([[0.9, -0.4, 0.2]], dtype=torch.float64), torch.tensor([[1.0, 0.01, 0.3]], dtype=torch.float64)
    assert torch.isclose(hinge_loss(scores, label), torch.tensor((0.1 ** 2 + 0 + 0.1 ** 2) / 3, dtype=torch.float64))
    p = 1 / (1 + np.exp(-8 * (scores.numpy()[0] - 0.5)))
    assert np.isclose(classification_loss(scores, label).item(), -(np.log(p[0]) + np.log(1 - p[1]) + np.log(1 - p[2])) / 3)
    a, b = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.isclose(center_loss(a, b), ((a - b) ** 2).sum() / 6)
    boxes, proposals = torch.tensor([[[10.0, 10, 20, 40]]]), torch.tensor([[[[15.0, 10, 20, 40], [0, 0, 5, 5]]]])
    expected = ((0.2 - (2 * iou(proposals, boxes[:, :, None]) - 1)) ** 2).mean()
    shifts = torch.full((1, 1, 2, 4), 0.03)
    judged = Judged(proposals, torch.full((1, 1, 2), 0.2), shifts)
    assert torch.isclose(overlap_loss([judged, judged], boxes), expected)
    way = [[[(c2 - c1) / s for c1, c2, s in zip(q[:2] + q[2:] / 2, b[:2] + b[2:] / 2, q[2:])] + [math.log(t / s) for s, t in zip(q[2:], b[2:])]
            for q, b in zip(proposals[0, 0], boxes[0, 0].expand(2, 4))]]
    error = (shifts[0] - torch.tensor(way)).abs()
    huber = torch.where(error < 0.1, error ** 2 / 0.2, error - 0.05).mean()
    assert torch.isclose(shift_loss([judged], boxes), huber)


def test_joint_loss_is_differentiable_everywhere():
    from tirnas.dimp.iou import draw_proposals
    from tirnas.dimp.net import TrackingNet
    from tirnas.nets.genotype import DerivedNetwork, random_genotype
    net = TrackingNet(DerivedNetwork(random_genotype("single", 3), Macro("single", 3, 4, 4)), HeadSettings(8, 16, 4, 16))
    images, boxes = to_tensors(EpisodeSampler(BLOCKS, EPISODES, Augmentation(), 0)(0), CPU)
    proposals = draw_proposals(boxes[:, 2:], 4, torch.Generator().manual_seed(0))
    loss, _ = joint_loss(net, images, boxes, proposals, LossWeights(1, 1, 1, 1, 1, 0.3, 1.0, 1), 2)
    assert all(g is not None and torch.isfinite(g).all() for g in gradients(loss, list(net.parameters())))
