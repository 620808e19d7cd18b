"""Sequences small enough for any test, in memory: a warm block that walks over fixed noise."""
import numpy as np
import torch

from tirnas.data.episodes import EpisodeSettings
from tirnas.data.sequences import Sequence


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
