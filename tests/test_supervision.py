"""The training pass and every term of its loss, recomputed frame by frame; the filter's start; what an update does to each part."""
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from blocks import BLOCKS, CPU, PARAMS

from tirnas.bilevel import WeightSettings
from tirnas.boxes import iou, xywh_to_xyxy
from tirnas.dimp.filter import FilterOptimiser, InstanceNorm, apply_filter, distance_map
from tirnas.dimp.iou import draw_proposals, move_boxes, shift_to
from tirnas.dimp.net import HeadSettings, TrackingNet
from tirnas.dimp.prpool import prroi_pool
from tirnas.losses import LossWeights, batch_hard_triplet, joint_loss
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import DerivedNetwork, random_genotype
from tirnas.retrain import PartRates, align_copies, batch_loss, start_retrain

WEIGHTS = LossWeights(classification=0.7, triplet=0.9, center=0.3, hinge=5.0, overlap=1.1, margin=1.5, label_sigma=1.4, shift=2.0)
SIZE, STEPS = 4, 2


def lively_net(seed=0):
    "A small network in double precision whose every weight and statistic is drawn, in evaluation mode."
    torch.manual_seed(seed)
    net = TrackingNet(DerivedNetwork(random_genotype("single", 3), Macro("single", 3, 4, 4)), HeadSettings(8, 8, SIZE, 8, cls_fuse=True)).double().eval()
    for m in net.modules():
        if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 2)
    for module in (net.classifier.initialiser.conv, net.box_branch.shift, net.box_branch.out): torch.nn.init.normal_(module.weight, std=0.2)
    return net


def drawn_batch(frames, seed=0):
    "Images of noise, and another box in every frame."
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, frames, 1, 64, 64, generator=generator, dtype=torch.float64)
    low, high = torch.tensor([8.0, 6, 10, 14], dtype=torch.float64), torch.tensor([30.0, 24, 26, 30], dtype=torch.float64)
    boxes = low + (high - low) * torch.rand(3, frames, 4, generator=generator, dtype=torch.float64)
    proposals = draw_proposals(boxes[:, frames // 2:].float(), 5, generator).double()
    return images, boxes, proposals


def enlarged(feat_CHW):
    "Twice the cells by linear interpolation between cell centres, along rows, then along columns."
    def along(x):
        before, after = torch.cat([x[..., :1], x[..., :-1]], -1), torch.cat([x[..., 1:], x[..., -1:]], -1)
        return torch.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], -1).flatten(-2)
    return along(along(feat_CHW).mT).mT


def features(net, maps):
    "Classification features (D, H, W) of one frame's maps."
    cls = net.classifier
    feat = F.conv2d(maps[8], cls.head.weight, padding=1)[0] + enlarged(F.conv2d(maps[16], cls.lift.weight)[0])
    return feat * math.sqrt(1 / (len(feat) * SIZE ** 2)) / feat.square().mean().sqrt()


def modulation(branch, maps, box):
    "The vectors for strides 8 and 16 from one frame and its box."
    box, r = xywh_to_xyxy(box)[None, None], branch.reference
    at8 = r.squeeze8(prroi_pool(r.conv8(maps[8]), box, 3, 8)[:, 0]).flatten(1)
    both = torch.cat([at8, prroi_pool(r.conv16(maps[16]), box, 1, 16)[:, 0].flatten(1)], 1)
    return {8: r.to8(both), 16: r.to16(both)}


def judged(branch, maps, vectors, boxes_N4):
    "Predicted overlaps (N,) and shifts (N, 4) of boxes in one frame."
    rows = []
    for stride, bins in ((8, 5), (16, 3)):
        seen = branch.maps[str(stride)](maps[stride]) * vectors[stride][:, :, None, None]
        rows.append(branch.boxes[str(stride)](prroi_pool(seen, xywh_to_xyxy(boxes_N4)[None], bins, stride)[0].flatten(1)))
    both = torch.cat(rows, 1)
    return branch.out(both)[:, 0], branch.shift(both)


def center_cell(box): return ((box[:2] + box[2:] / 2) - 0.5) / 8 + 0.5


def label_of(box, hw):
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in hw), indexing="ij")
    x, y = center_cell(box)
    return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * WEIGHTS.label_sigma ** 2))


def pooled(feat, box): return F.normalize(prroi_pool(feat[None], xywh_to_xyxy(box)[None, None], SIZE, 8)[0, 0].flatten(), dim=0)


def by_frame(net, images, boxes, proposals):
    "The terms of the joint loss, and how many of the boxes for the center loss came from the branch; one frame at a time."
    (people, frames), half, branch = images.shape[:2], images.shape[1] // 2, net.box_branch
    sums, embed, centers, own = {k: [] for k in ("classification", "hinge", "overlap", "shift")}, [], [], 0
    for p in range(people):
        maps = [net.backbone(images[p, k][None]) for k in range(frames)]
        feats = [features(net, m) for m in maps]
        first = torch.stack([net.classifier.initialiser(feats[k][None, None], boxes[p, k][None, None])[0] for k in range(half)]).mean(0)
        places = torch.stack([center_cell(boxes[p, k]) for k in range(half)])
        filters = net.classifier.optimiser(first[None], torch.stack(feats[:half])[None], places[None], STEPS)
        embed.append(torch.stack([pooled(f, b) for f, b in zip(feats, boxes[p])]))
        for j in range(frames - half):
            feat, box = feats[half + j], boxes[p, half + j]
            scores = [F.conv2d(feat[None], f, padding=SIZE // 2)[0, 0] for f in filters]
            label = label_of(box, scores[0].shape)
            sign = torch.where(label >= 0.5, 1.0, -1.0)
            sums["classification"].append(F.softplus(-sign * 8 * (scores[-1] - 0.5)).mean())
            wrong = [torch.where(label < 0.05, s.clamp(min=0), s - label) for s in scores]
            sums["hinge"].append(torch.stack([w.square().mean() for w in wrong]).mean())
            vectors, now = modulation(branch, maps[j % half], boxes[p, j % half]), proposals[p, j]
            for _ in range(2):
                overlaps, shifts = judged(branch, maps[half + j], vectors, now)
                sums["overlap"].append((overlaps - (2 * iou(now, box[None]) - 1)).square().mean())
                error = (shifts - shift_to(now, box[None])).abs()
                sums["shift"].append(torch.where(error < 0.1, error ** 2 / 0.2, error - 0.05).mean())
                judged_boxes, now = now, move_boxes(now, shifts.detach())
            best = overlaps.argmax()
            guess = judged_boxes[best]
            if overlaps[best] <= 0:
                y, x = divmod(int(scores[-1].argmax()), scores[-1].shape[1])
                middle = (torch.tensor([x, y], dtype=torch.float64) - 0.5) * 8 + 0.5
                guess = torch.cat([middle - boxes[p, 0, 2:] / 2, boxes[p, 0, 2:]])
            own += int(overlaps[best] > 0)
            centers.append(0.5 * (pooled(feat, guess.detach()) - embed[p][half + j]).square().sum())
    terms = {k: torch.stack(v).mean() for k, v in sums.items()}
    return terms | {"triplet": batch_hard_triplet(torch.stack(embed), WEIGHTS.margin), "center": torch.stack(centers).mean()}, own


@pytest.mark.parametrize("frames", [6, 5])
def test_every_term_frame_by_frame(frames):
    "Values and gradients; with an odd number of frames a partner serves twice."
    net, batch = lively_net(), drawn_batch(frames)
    with torch.no_grad(): net.box_branch.out.bias.fill_(1e-3 - float(net(*batch, STEPS).rounds[-1].overlaps_PTN.amax(2).median()))
    loss, terms = joint_loss(net, *batch, WEIGHTS, STEPS)
    expected, own = by_frame(net, *batch)
    assert 0 < own < 3 * (frames - frames // 2) and all(v > 0 for v in expected.values()) and terms.keys() == expected.keys()
    for name, value in expected.items(): assert torch.isclose(terms[name], value, rtol=1e-6), name
    total = sum(getattr(WEIGHTS, name) * value for name, value in expected.items())
    assert torch.isclose(loss, total, rtol=1e-6)
    parameters = list(net.parameters())
    for ours, theirs in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(total, parameters)):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-7 * (1 + theirs.abs().max().item()))


def test_a_shift_goes_no_farther_than_one():
    "One side of the box, and a factor of e, whatever the branch says."
    box, far = torch.tensor([10.0, 20, 8, 16]), torch.tensor([3.0, -2, 5, -7])
    w, h = 8 * math.e, 16 / math.e
    assert torch.allclose(move_boxes(box, far), torch.tensor([14 + 8 - w / 2, 28 - 16 - h / 2, w, h]))


# where the filter starts

def test_the_optimiser_starts_as_in_dimp():
    "Label, mask, weight, step and regulariser at their first values, given in closed form."
    o, d = FilterOptimiser(), torch.arange(100) / 10
    bell = torch.exp(-0.5 * (d / 0.9) ** 2)
    assert torch.allclose(o.label, bell - bell.min()) and torch.allclose(torch.sigmoid(o.mask_logit), 1 / (1 + torch.exp(-3 * torch.tanh(2 - d))))
    assert torch.sigmoid(o.mask_logit[[0, 10, 20, 30, 50]]).detach().numpy().round(3).tolist() == pytest.approx([0.948, 0.908, 0.5, 0.092, 0.048], abs=2e-3)
    assert (o.weight == 1).all() and math.isclose(o.log_step.exp().item(), 0.9, rel_tol=1e-6) and math.isclose(o.reg.item(), 0.1, rel_tol=1e-6)


def slow_iterates(o, filt, feat, places, number, share):
    "Steepest descent by autograd on the objective, scores computed anew each time; the length from the objective's own curvature."
    label, mask, weight = (m.detach() for m in o.maps(distance_map(places, (7, 7))))
    lam = max(o.reg.item() ** 2, 1e-6)
    found = [filt]
    for _ in range(number):
        f = found[-1].detach().requires_grad_()
        s = apply_filter(f, feat)
        loss = 0.5 * ((share[..., None, None] * (weight * (mask * s + (1 - mask) * s.relu() - label)) ** 2).sum() + lam * f.square().sum())
        gradient, = torch.autograd.grad(loss, f)
        slope = weight * (mask + (1 - mask) * (s > 0))
        curve = (share[..., None, None] * (slope * apply_filter(gradient, feat)) ** 2).sum() + lam * gradient.square().sum()
        found.append((f - 0.9 * gradient.square().sum() / curve * gradient).detach())
    return found


@pytest.mark.parametrize("reg", [0.1, 0.0, -0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_iterates_by_autograd(reg, weighted):
    "Sample weights enter the squared error as they are; lambda is squared, whatever its sign, and has a floor."
    torch.manual_seed(0)
    o, feat, filt = FilterOptimiser().double(), torch.randn(1, 3, 5, 6, 6, dtype=torch.float64), torch.randn(1, 5, 4, 4, dtype=torch.float64)
    feat[:, :, :, :, :3] *= 1e-3 if reg == 0 else 1
    with torch.no_grad(): o.reg.fill_(reg)
    places, share = 6 * torch.rand(1, 3, 2, dtype=torch.float64), torch.tensor([[0.7, 0.2, 0.1]] if weighted else [[1 / 3] * 3], dtype=torch.float64)
    ours = o(filt, feat, places, 4, share if weighted else None)
    for a, b in zip(ours, slow_iterates(o, filt, feat, places, 4, share), strict=True): assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)


def test_lambda_has_a_floor():
    "Where nothing is seen, only the regulariser pulls: one step takes 0.9 of the filter, if it is not zero."
    o, filt = FilterOptimiser().double(), torch.full((1, 5, 4, 4), 1e5, dtype=torch.float64)
    with torch.no_grad(): o.reg.fill_(0.0)
    after = o(filt, torch.zeros(1, 1, 5, 6, 6, dtype=torch.float64), torch.zeros(1, 1, 2, dtype=torch.float64), 1)[-1]
    assert torch.allclose(after, 0.1 * filt, rtol=1e-4)


def test_features_have_the_given_mean_square():
    "Over channels and cells of an image together: a weak channel stays weak."
    feat = torch.randn(2, 3, 4, 5, dtype=torch.float64) * torch.tensor([1.0, 5, 0.1], dtype=torch.float64)[:, None, None]
    found = InstanceNorm(0.25)(feat)
    for a, b in zip(found, feat): assert torch.allclose(a, 0.25 * b / math.sqrt((b ** 2).sum() / 60), rtol=1e-6)


# an update

def test_an_update_moves_each_part_at_its_rate_and_warms_up():
    "Plain descent: the step of a parameter over its gradient is the warm rate times the share of its part."
    rates = PartRates(backbone=1.0, head=0.5, initialiser=0.25, optimiser=0.125, box_branch=2.0)
    params = dataclasses.replace(PARAMS, shards=1, warmup_steps=4, rates=rates, weights=WeightSettings("sgd", 0.01, 0.001, 0.0, 0.0, 1e9))
    run = start_retrain(BLOCKS, random_genotype("single", 3), params, CPU)
    (number, batch), = run.batches(1)
    net = run.copies[0]
    before, names = {n: p.detach().clone() for n, p in net.named_parameters()}, [n for n, _ in net.named_parameters()]
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    grads = torch.autograd.grad(batch_loss(net, batch, params, number, CPU)[0], list(net.parameters()), allow_unused=True)
    with torch.no_grad():
        for n, b in net.named_buffers(): b.copy_(buffers[n])
    from concurrent.futures import ThreadPoolExecutor
    run.done = 1
    with ThreadPoolExecutor(1) as pool: run.update([(number, batch)], pool)
    of = lambda n: (rates.backbone if n.startswith("backbone") else rates.box_branch if n.startswith("box_branch") else rates.optimiser if ".optimiser." in n
                    else rates.initialiser if ".initialiser." in n else rates.head)
    moved = 0
    for name, grad, p in zip(names, grads, net.parameters()):
        if grad is None: continue
        assert torch.allclose(p.detach() - before[name], -0.01 * 2 / 4 * of(name) * grad, rtol=1e-3, atol=1e-7), name
        moved += bool(grad.abs().sum())
    assert moved > 20


def test_every_batch_has_proposals_of_its_own():
    net = PARAMS.card(random_genotype("single", 3), {}).build().eval()
    run = start_retrain(BLOCKS, random_genotype("single", 3), PARAMS, CPU)
    (_, batch), _ = run.batches(0)
    with torch.no_grad(): overlap = [batch_loss(net, batch, PARAMS, number, CPU)[1]["overlap"].item() for number in (0, 0, 1)]
    assert overlap[0] == overlap[1] != overlap[2]


def test_copies_are_aligned():
    "The first one's weights, and the mean of the statistics."
    copies = [PARAMS.card(random_genotype("single", 3), {}).build() for _ in range(2)]
    for seed, net in enumerate(copies):
        torch.manual_seed(seed)
        for b in net.buffers():
            if b.is_floating_point(): b.uniform_(0.5, 2)
    means = [torch.stack(pair).double().mean(0) for pair in zip(*(net.buffers() for net in copies))]
    first = [p.detach().clone() for p in copies[0].parameters()]
    align_copies(copies)
    for net in copies:
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), first))
        assert all(torch.allclose(b.double(), m, atol=0.51 if not b.is_floating_point() else 1e-6) for b, m in zip(net.buffers(), means))
