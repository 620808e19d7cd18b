"""Is the searched cell better than random cells? Retrain all of them alike, track, and compare.

    python benchmarks/search_value.py --genotype out/genotype.json --prepared prepared --work checkpoints/value

Every genotype is trained from scratch with the recipe's retrain group, shortened to `--updates`, for each seed, on the same
batches of one shard; each model then tracks the test sequences. A seed changes start values and batches. Results are kept in
`--work`, in one folder for each genotype, parameters, data and code, so that the same command goes on where it stopped. Printed are the success of every run, mean and
standard deviation over seeds for each genotype, and the difference of the searched genotype from the mean of the random ones
with a 95 % interval from a paired bootstrap over sequences (all seeds averaged first).
"""
import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from tirnas.benchmark import run_benchmark
from tirnas.core import UserError, fingerprint, load_params, use_threads, write_json
from tirnas.data.prepare import load_index
from tirnas.data.sequences import digest
from tirnas.dimp.card import ModelCard, save_model
from tirnas.evaluation import truth_of
from tirnas.metrics import OFFICIAL
from tirnas.nets.cost import genotype_cost
from tirnas.nets.genotype import Genotype, random_genotype
from tirnas.retrain import RetrainParams, retrain
from tirnas.scoring import score_folder
from tirnas.trackers import Contender

ROOT = Path(__file__).parent.parent


def shortened(args: argparse.Namespace, seed: int) -> RetrainParams:
    "The recipe's retraining, shortened."
    params = load_params(RetrainParams, "retrain", args.recipe, ROOT / "params.yaml")
    epochs = max(args.updates // params.steps, 1)
    return dataclasses.replace(params, seed=seed, epochs=epochs, steps=args.updates // epochs, shards=1)


def one_run(name: str, text: str, seed: int, args: argparse.Namespace) -> dict:
    "Train and track one genotype with one seed, or read what an earlier call found."
    genotype, params = Genotype.from_json(text), shortened(args, seed)
    train, tests = (load_index(args.prepared, part) for part in ("train", "test"))
    work = args.work / fingerprint(text, params, digest(train), digest(tests))
    kept = work / f"{name}.json"
    if kept.exists(): return json.loads(kept.read_text())
    use_threads()
    net, history = retrain(train, genotype, params, torch.device("cpu"), work / "checkpoint.safetensors")
    card = ModelCard(genotype, params.macro, params.heads, params.episodes.crop_px, params.episodes.search_factor, {"seed": seed})
    model = save_model(work / "model.safetensors", net, card)
    folder = run_benchmark(Contender.of(model, f"{name}-{seed}"), tests, work / "raw", 1)
    scores, _ = score_folder(folder, truth_of(tests), OFFICIAL, name)
    found = {"name": name, "seed": seed, "loss": history[-1], "success": scores["success"], "precision": scores["precision"],
             "sequences": {s: v["success"] for s, v in scores["per_sequence"].items()}}
    write_json(kept, found)
    return found


def difference(found: list[dict], samples: int = 10_000) -> tuple[float, float, float]:
    "Searched minus the mean of random cells, and a 95 % interval over sequences."
    names = sorted(found[0]["sequences"])
    table = lambda which: np.mean([[r["sequences"][n] for n in names] for r in found if (r["name"] == "searched") == which], axis=0)
    gaps = table(True) - table(False)
    draws = gaps[np.random.default_rng(0).integers(len(gaps), size=(samples, len(gaps)))].mean(1)
    return gaps.mean(), *np.quantile(draws, (0.025, 0.975))


def show(found: list[dict], genotypes: dict[str, Genotype], args: argparse.Namespace) -> None:
    "Print all runs, means and spreads."
    params = shortened(args, 0)
    print(f"recipe {args.recipe}, {params.epochs * params.steps} updates of {params.episodes.num_pedestrians * params.episodes.num_frames} crops each")
    print(f"{'genotype':10} {'params':>8} {'MMACs':>6} {'success, mean':>14} {'std over seeds':>15}  runs")
    for name, genotype in genotypes.items():
        runs = [r["success"] for r in found if r["name"] == name]
        cost = genotype_cost(genotype, params.macro, params.episodes.crop_px)
        print(f"{name:10} {cost.parameters:8} {cost.macs / 1e6:6.1f} {np.mean(runs):14.3f} {np.std(runs, ddof=1):15.3f}  {' '.join(f'{r:.3f}' for r in runs)}")
    others = [np.mean([r["success"] for r in found if r["name"] == n]) for n in genotypes if n != "searched"]
    print(f"random cells: mean {np.mean(others):.3f}, standard deviation between cells {np.std(others, ddof=1):.3f}, best {max(others):.3f}")
    print("searched - random: {:+.3f} [{:+.3f}, {:+.3f}] (95 %, over sequences)".format(*difference(found)))


def main() -> None:
    "Run what is left of all runs, and print them."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genotype", type=Path, default=ROOT / "out/genotype.json")
    parser.add_argument("--prepared", type=Path, default=ROOT / "prepared")
    parser.add_argument("--work", type=Path, default=ROOT / "checkpoints/value")
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--random", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if min(args.seeds, args.random) < 2: parser.error("--seeds and --random must be at least 2: a spread is asked for")
    try: searched, _ = Genotype.load(args.genotype), shortened(args, 0)
    except UserError as e: parser.error(str(e))
    genotypes = {"searched": searched, **{f"random{i}": random_genotype(searched.kind, 100 + i) for i in range(args.random)}}
    runs = [(name, g.to_json(), seed, args) for seed in range(args.seeds) for name, g in genotypes.items()]
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool: found = list(pool.map(one_run, *zip(*runs)))
    show(found, genotypes, args)


if __name__ == "__main__": main()
