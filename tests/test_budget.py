"""What a frame costs, counted while tracking and by hand."""
import dataclasses

import pytest
import torch
from blocks import BLOCKS

from tirnas.budget import part_costs
from tirnas.dimp.card import ModelCard
from tirnas.dimp.net import HeadSettings
from tirnas.dimp.online import BoxSettings, PeakSettings, TrackSettings
from tirnas.nets.cells import Macro
from tirnas.nets.cost import count_parameters, macs_of
from tirnas.nets.genotype import random_genotype
from tirnas.tracker import Tracker

CARD = ModelCard(random_genotype("single", 3), Macro("single", 3, 4, 4), HeadSettings(8, 8, 4, 8), 64, 4.0, {}, "searched",
                 TrackSettings())
EVERY_FRAME = ("backbone", "classifier head", "filter application", "box maps", "box proposals")


def make_net():
    torch.manual_seed(0)
    return CARD.build().eval()


PLAIN = TrackSettings(update_every=1000, peaks=PeakSettings(not_found=0.0, hard_negative=1e9, distractor=1e9))


@pytest.mark.parametrize("box", [BoxSettings(), BoxSettings(num_boxes=3, rounds=4, top_boxes=1), BoxSettings("ascent"),
                                 BoxSettings("fixed")])
def test_a_frame_costs_what_its_parts_cost(box):
    "In a frame without an update the tracker computes backbone, classifier and box branch, and nothing else that counts."
    net, card = make_net(), dataclasses.replace(CARD, track=dataclasses.replace(PLAIN, box=box))
    tracker = Tracker(net, card)
    tracker.init(BLOCKS[0].frame(0), BLOCKS[0].boxes_xywh[0])
    counted = macs_of(lambda: tracker.update(BLOCKS[0].frame(1)))
    assert tracker.last.peak.verdict != "lost"
    costs = {c.part: c for c in part_costs(net, card)}
    assert counted == sum(costs[part].macs for part in EVERY_FRAME)
    assert costs["total"].parameters == count_parameters(net) == sum(c.parameters for c in costs.values()) // 2
    assert costs["total"].macs == sum(c.macs for c in costs.values()) // 2


def test_an_update_costs_its_steps():
    "Each step is two products of features and filter on the whole memory (gradient, response), after one for the scores."
    def cost(**track):
        rows = part_costs(make_net(), dataclasses.replace(CARD, track=TrackSettings(**track)))
        return {row.part: row.macs for row in rows}["filter update"]
    product = CARD.heads.cls_dim * 4 * 4 * 8 * 8 * TrackSettings().memory.size
    assert [cost(update_steps=n, update_every=1) for n in range(4)] == [0, 3 * product, 5 * product, 7 * product]
    assert cost(update_steps=2, update_every=4) == 5 * product // 4
