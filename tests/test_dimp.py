"""DiMP's equations against autograd, brute force and an exact line search."""
import pytest
import torch
import torch.nn.functional as F

from tirnas.boxes import iou
from tirnas.dimp.filter import (FilterOptimiser, apply_adjoint, apply_filter, apply_filters, descent_step, distance_map,
                                from_score_cells, gaussian_label, lookup, stretches, to_score_cells)
from tirnas.dimp.net import Classifier, ClassifierSettings
from tirnas.dimp.iou import draw_proposals, refine_boxes
from tirnas.dimp.prpool import prroi_pool


def fractions(map_hw, box_xyxy, bins, samples):
    "Average of the bilinear extension over bins by midpoint sampling, in cell coordinates."
    x0, y0, x1, y1 = box_xyxy
    at = lambda a, b: a + (b - a) * (torch.arange(bins * samples, dtype=torch.float64) + 0.5) / (bins * samples)
    hat = lambda points, n: (1 - (points[:, None] - torch.arange(n)).abs()).clamp(0)
    values = hat(at(y0, y1), map_hw.shape[0]) @ map_hw @ hat(at(x0, x1), map_hw.shape[1]).T
    return values.reshape(bins, samples, bins, samples).mean((1, 3))


@pytest.mark.parametrize("bins", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 8])
def test_pooling_is_the_integral(bins, stride):
    generator = torch.Generator().manual_seed(bins)
    field = torch.randn(2, 3, 12, 15, generator=generator, dtype=torch.float64)
    corners = torch.rand(2, 4, 2, 2, generator=generator, dtype=torch.float64) * 20 - 3
    boxes = torch.cat([corners.amin(2), corners.amax(2) + 0.5], -1)
    pooled = prroi_pool(field, boxes * stride + 0.5, bins, stride)
    for b in range(2):
        for n in range(4):
            for c in range(3):
                assert torch.allclose(pooled[b, n, c], fractions(field[b, c], boxes[b, n], bins, 300), atol=2e-4)


def test_pooling_many_images_and_boxes_is_pooling_each():
    "One box of one image and one channel at a time, on a map that is not square."
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(3, 4, 9, 13, generator=generator, dtype=torch.float64)
    corners = torch.rand(3, 6, 2, 2, generator=generator, dtype=torch.float64) * 14 - 2
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1)
    pooled = prroi_pool(field, boxes, 3, 1)
    single = lambda b, n, c: prroi_pool(field[b:b + 1, c:c + 1], boxes[b:b + 1, n:n + 1], 3, 1)[0, 0, 0]
    assert pooled.shape == (3, 6, 4, 3, 3)
    assert all(torch.allclose(pooled[b, n, c], single(b, n, c)) for b in range(3) for n in range(6) for c in range(4))


def test_pooling_gradients():
    field = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[[0.7, 1.3, 4.4, 5.1], [-1.2, 2.1, 3.3, 9.4]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, b: prroi_pool(f, b, 3, 1), (field, boxes))


def episode(size):
    torch.manual_seed(size)
    feat = 0.1 * torch.randn(2, 3, 5, 9, 9, dtype=torch.float64)
    filt = torch.randn(2, 5, size, size, dtype=torch.float64)
    hw = (10, 10) if size % 2 == 0 else (9, 9)
    centers = torch.rand(2, 3, 2, dtype=torch.float64) * 8
    label, mask, weight = (m.detach() for m in FilterOptimiser().double().maps(distance_map(centers, hw)))
    return filt, feat, label, mask, weight * torch.rand(2, 3, 1, 1, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64)


def objective(f, feat, label, mask, weight, reg):
    s = apply_filter(f, feat)
    return (weight * (mask * s + (1 - mask) * s.relu() - label)).square().sum((1, 2, 3)) + reg * f.square().sum((1, 2, 3))


@pytest.mark.parametrize("size", [3, 4])
def test_adjoint(size):
    filt, feat, label, *_ = episode(size)
    assert torch.allclose((apply_filter(filt, feat) * label).sum(), (filt * apply_adjoint(label, feat, size)).sum())
    grad, = torch.autograd.grad((apply_filter(filt.requires_grad_(), feat) * label).sum(), filt)
    assert torch.allclose(grad, apply_adjoint(label, feat, size))


SIZES = pytest.mark.parametrize("size", [1, 2, 3, 4, 5])


def uneven(size):
    "Three filters for each of two sequences of three frames of 7 x 9 cells, and a map over their scores."
    generator = torch.Generator().manual_seed(size)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    grow = 1 - size % 2
    return draw(3, 2, 5, size, size), draw(2, 3, 5, 7, 9), draw(2, 3, 7 + grow, 9 + grow)


@SIZES
@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_scores_are_plain_convolutions(size, dtype, atol):
    filters, feat, _ = (t.to(dtype) for t in uneven(size))
    for filt, scores in zip(filters, apply_filters(list(filters), feat), strict=True):
        plain = torch.stack([F.conv2d(frames, f[None], padding=size // 2)[:, 0] for f, frames in zip(filt, feat)])
        assert scores.shape == plain.shape and torch.allclose(scores, plain, atol=atol)
        assert torch.allclose(apply_filter(filt, feat), plain, atol=atol)


@SIZES
def test_adjoint_is_the_sum_over_every_cell(size):
    "By its definition: tap (i, j) meets score (y, x) at cell (y + i, x + j) of the padded features."
    filters, feat, scores = uneven(size)
    padded, expected = F.pad(feat, [size // 2] * 4), torch.zeros_like(filters[0])
    rows, columns = scores.shape[2:]
    for i in range(size):
        for j in range(size):
            expected[..., i, j] = (padded[..., i:i + rows, j:j + columns] * scores[:, :, None]).sum((1, 3, 4))
    assert torch.allclose(apply_adjoint(scores, feat, size), expected, atol=1e-12)
    for filt in filters:
        assert torch.allclose((apply_filter(filt, feat) * scores).sum(), (filt * expected).sum(), atol=1e-11)


@SIZES
def test_filter_and_adjoint_gradients(size):
    "First and second derivatives of both, small enough for finite differences."
    hw, grow = (4, 5), 1 - size % 2
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(size)
    filt, feat, scores = draw(2, 2, size, size), draw(2, 2, 2, *hw), draw(2, 2, hw[0] + grow, hw[1] + grow)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(apply_filter, (filt, feat))
        assert check(lambda s, x: apply_adjoint(s, x, size), (scores, feat))


@pytest.mark.parametrize("size", [3, 4])
def test_step_is_the_gradient_and_its_exact_length(size):
    "Direction from autograd; length from a parabola through the objective linearised at the filter."
    filt, *terms = episode(size)
    step, change = descent_step(filt, apply_filter(filt, terms[0]), *terms)
    grad, = torch.autograd.grad(objective(filt.requires_grad_(), *terms).sum(), filt)
    feat, label, mask, weight, reg = terms
    scores = apply_filter(filt, feat).detach()
    slope = weight * (mask + (1 - mask) * (scores > 0))
    residual = weight * (mask * scores + (1 - mask) * scores.relu() - label)
    along = slope * apply_filter(grad / 2, feat)
    value = lambda a: ((residual - a * along).square().sum((1, 2, 3)) + reg * (filt - a * grad / 2).square().sum((1, 2, 3))).detach()
    low, mid, high = value(0.0), value(0.5), value(1.0)
    best = (0.75 * low - mid + 0.25 * high) / (low - 2 * mid + high)
    assert torch.allclose(step, (best[:, None, None, None] * grad / 2).detach())


def test_optimiser_descends_and_learns():
    filt, feat, *_ = episode(4)
    module = FilterOptimiser().double()
    iterates = module(torch.zeros_like(filt), feat, torch.full((2, 3, 2), 4.0, dtype=torch.float64), 6)
    label, mask, weight = module.maps(distance_map(torch.full((2, 3, 2), 4.0, dtype=torch.float64), (10, 10)))
    values = [objective(f, feat, label, mask, weight / 3 ** 0.5, torch.tensor(0.01)).sum().item() for f in iterates]
    assert all(b < a for a, b in zip(values, values[1:]))
    apply_filter(iterates[-1], feat).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_sample_weights_equal_repetition():
    "A frame of weight 2/3 beside one of 1/3 is a frame that occurs twice among three."
    _, feat, *_ = episode(4)
    module, centers = FilterOptimiser().double(), torch.rand(2, 2, 2, dtype=torch.float64) * 8
    start, twice = torch.zeros(2, 5, 4, 4, dtype=torch.float64), [0, 0, 1]
    weights = torch.tensor([[2 / 3, 1 / 3]], dtype=torch.float64).expand(2, 2)
    weighted = module(start, feat[:, :2], centers, 3, weights)[-1]
    assert torch.allclose(weighted, module(start, feat[:, twice], centers[:, twice], 3)[-1])


def test_lookup_beyond_the_table_is_its_end():
    table = torch.randn(100)
    assert torch.allclose(lookup(table, torch.tensor([9.9, 50.0])), table[-1].expand(2), atol=1e-4)


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("stride", [8, 16])
def test_score_cells_round_trip(size, stride):
    points = torch.rand(10, 2, dtype=torch.float64) * 100
    assert torch.allclose(from_score_cells(to_score_cells(points, stride, size), stride, size), points)


def test_a_stretched_label_is_the_gaussian_of_an_ellipse():
    "Cell by cell from the definition; half-axes sqrt(w / h) and its inverse, between one half and two."
    boxes = torch.tensor([[10.0, 4, 18, 50], [3, 9, 40, 20], [0, 0, 10, 90]], dtype=torch.float64)
    centers, half = torch.tensor([[5.3, 7.8], [2.0, 2.5], [8.1, 3.0]], dtype=torch.float64), stretches(boxes)
    for (cx, cy), (_, _, w, h), (rx, ry), label in zip(centers, boxes, half, gaussian_label(torch.cat([centers, half], -1), (11, 13), 1.2)):
        assert rx == pytest.approx(min(max((w / h) ** 0.5, 0.5), 2)) and ry == pytest.approx(min(max((h / w) ** 0.5, 0.5), 2))
        for y in range(11):
            for x in range(13):
                d2 = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
                assert label[y, x].item() == pytest.approx(torch.exp(-d2 / (2 * 1.2 ** 2)).item(), rel=1e-9, abs=1e-12)


def test_an_elliptic_classifier_learns_another_filter_and_a_square_box_the_same():
    torch.manual_seed(0)
    round_one, feat = Classifier({8: 6, 16: 6}, ClassifierSettings(8, 6, 4)), 0.3 * torch.randn(1, 2, 6, 12, 12)
    stretched = Classifier({8: 6, 16: 6}, ClassifierSettings(8, 6, 4), elliptic=True)
    stretched.load_state_dict(round_one.state_dict())
    square, tall = torch.tensor([[[40.0, 30, 24, 24]] * 2]), torch.tensor([[[40.0, 20, 15, 45]] * 2])
    last = lambda c, box: c.filters(feat, box, 3)[-1]
    with torch.no_grad():
        assert torch.allclose(last(round_one, square), last(stretched, square), atol=1e-6)
        assert not torch.allclose(last(round_one, tall), last(stretched, tall), atol=1e-3)


def test_proposals_overlap_and_repeat():
    boxes = torch.tensor([[10.0, 10, 20, 50], [40, 5, 60, 8]])
    first, second = (draw_proposals(boxes, 50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and iou(first, boxes[:, None]).min() > 0.1 and (first[..., 2:] > 0).all()


def test_refinement_climbs_a_smooth_hill():
    goal = torch.tensor([60.0, 50.0, 3.0, 4.0])
    hill = lambda b: -((b[:, 0] + b[:, 2] / 2 - goal[0]) / 20) ** 2 - (b[:, 2].log() - goal[2]) ** 2 - (b[:, 3].log() - goal[3]) ** 2
    start = torch.tensor([[45.0, 30.0, 25.0, 40.0]])
    boxes, value = refine_boxes(hill, start, 60, 0.1)
    assert value > hill(start) and abs(boxes[0, 2].log() - 3) < 0.05 and abs(boxes[0, 3].log() - 4) < 0.05
