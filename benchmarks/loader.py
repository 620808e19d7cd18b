"""Crops per second that the loader makes against those that training consumes, at a recipe, and where the time goes.

    python benchmarks/loader.py [--recipe mini] [--sequences 16] [--updates 3]

Training data is rendered into a temporary folder. The consumption is measured on a network of random cells, which costs
what a searched one does; it is the crops of an update over the seconds it takes when crops cost nothing.
"""
import argparse
import dataclasses
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from history import Measured, begin, keep
from tirnas.core import load_params, use_threads
from tirnas.data.crops import Augmentation
from tirnas.data.episodes import EpisodeSampler, crops_per_second, time_shares
from tirnas.data.sequences import Sequence, open_dataset
from tirnas.data.synthetic import simulate
from tirnas.nets.genotype import random_genotype
from tirnas.retrain import RetrainParams, side_by_side, start_retrain


def training_rate(sequences: list[Sequence], params: RetrainParams, updates: int) -> float:
    "Crops per second that updates on ready batches consume, all cores busy."
    run = start_retrain(sequences, random_genotype(params.macro.kind, params.seed), params, torch.device("cpu"))
    batches = run.batches(0)
    with ThreadPoolExecutor(side_by_side(params.shards), initializer=use_threads) as pool:
        run.update(batches, pool)
        start = time.perf_counter()
        for _ in range(updates): run.update(batches, pool)
        seconds = (time.perf_counter() - start) / updates
    return sum(batch.frame_indices.size for _, batch in batches) / seconds


def main() -> None:
    "Print the table."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--sequences", type=int, default=16, help="rendered")
    parser.add_argument("--updates", type=int, default=3, help="timed")
    given = parser.parse_args()
    use_threads()
    began = begin()
    params = load_params(RetrainParams, "retrain", given.recipe)
    steps = range(max(4, 400 // (params.episodes.num_pedestrians * params.episodes.num_frames)))
    with tempfile.TemporaryDirectory() as folder:
        simulate(folder, given.sequences, 20, seed=1, progress=False)
        sequences = open_dataset(folder)
        sampler = EpisodeSampler(sequences, params.episodes, params.augmentation, params.seed)
        dimp = EpisodeSampler(sequences, dataclasses.replace(params.episodes, with_replacement=True), params.augmentation, params.seed)
        plain = EpisodeSampler(sequences, params.episodes, Augmentation(), params.seed)
        for each in (sampler, dimp, plain): each(0)
        consumed = training_rate(sequences, params, given.updates)
        print(f"recipe {given.recipe}: crops of {params.episodes.crop_px} px, {os.cpu_count()} cores")
        print(f"{'training consumes':32}{consumed:8.0f} crops/s")
        rows = [Measured("training consumes", "crops/s", [consumed])]
        for name, each, workers in (("P x K, 1 thread", sampler, 1), ("P x K, 2 threads", sampler, 2), ("DiMP, 1 thread", dimp, 1),
                                    ("P x K, no augmentation, 1 thread", plain, 1)):
            rate = crops_per_second(each, steps, workers)
            rows.append(Measured(name, "crops/s", [rate]))
            print(f"{name:32}{rate:8.0f} crops/s {rate / consumed:6.1f} times what training consumes")
        for part, share in time_shares(sampler, steps).items(): print(f"  {part:30}{share:8.0%}")
        keep("loader", rows, began)


if __name__ == "__main__":
    main()
