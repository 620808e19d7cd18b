"""Sequences small enough for any test, in memory: a warm block that walks over fixed noise."""
import numpy as np
import torch

from tirnas.bilevel import WeightSettings
from tirnas.data.crops import Augmentation
from tirnas.data.episodes import EpisodeSettings
from tirnas.data.sequences import Sequence
from tirnas.data.unrolled import UnrollSettings
from tirnas.dimp.net import HeadSettings
from tirnas.dimp.online import TrackSettings
from tirnas.losses import LossWeights
from tirnas.nets.cells import Macro
from tirnas.nets.pretrained import BackboneSettings
from tirnas.retrain import PartRates, RetrainParams


class Blocks(Sequence):
    "The last two letters of the name are the width of the block, px."
    def frame(self, t):
        size = int(self.name[-2:])
        ground = np.random.default_rng(size).normal(80, 8, (60, 96))
        ground[20:20 + 2 * size, 10 + t:10 + t + size] += 60
        return ground.astype(np.uint8)


BLOCKS = [Blocks(f"block_{s:02d}", tuple(range(30)), np.array([[10.0 + t, 20, s, 2 * s] for t in range(30)])) for s in range(7, 13)]
EPISODES = EpisodeSettings(num_pedestrians=2, num_frames=4, crop_px=64, search_factor=4.0, max_gap=10, center_jitter=2.0, scale_jitter=0.2)
CPU = torch.device("cpu")
PARAMS = RetrainParams(
    seed=0, epochs=3, steps=2, shards=2, warmup_steps=1, validate_sequences=1, validate_every=2, filter_steps=2,
    num_proposals=4, backbone=BackboneSettings("searched"), start_from=None, macro=Macro("single", 3, 4, 4), heads=HeadSettings(8, 8, 4, 8),
    episodes=EPISODES, unroll=UnrollSettings(0, 2, 0.0), augmentation=Augmentation(), loss=LossWeights(1.0, 1.0, 0.1, 10.0, 1.0, 0.3, 1.0, 1.0),
    weights=WeightSettings("sgd", 0.01, 0.001, 0.9, 3e-4, 5.0), rates=PartRates(1.0, 1.0, 1.0, 1.0, 1.0), track=TrackSettings())
