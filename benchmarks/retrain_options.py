"""What does a choice of the retraining bring? The same recipe with and without it, several seeds, one machine, one run.

    python benchmarks/retrain_options.py --prepared prepared --genotype out/genotype.json --work checkpoints/options \\
        elliptic=heads.cls_elliptic:true uncovered=augmentation.cover:0.0 led=unroll.share:0.0

Each argument names an arm and what it changes in the recipe's retrain group, `a.b:value`, more than one after commas; the recipe as
it stands is always the first arm. Every arm is trained with every seed and tracks the test sequences. Results are kept in `--work`, one
file for each parameters, data and code, so that the same command goes on where it stopped. Printed are the success of every run, mean
and standard deviation over seeds, and the difference from the recipe with a 95 % interval from a paired bootstrap over sequences
(all seeds averaged first; it does not hold the spread of seeds, which stands beside it).
"""
import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from tirnas.benchmark import run_benchmark
from tirnas.core import UserError, fingerprint, params_from_dict, print_record, read_params, use_threads, write_json
from tirnas.data.prepare import load_index
from tirnas.data.sequences import digest
from tirnas.dimp.card import save_model
from tirnas.evaluation import truth_of
from tirnas.health import hold_out
from tirnas.metrics import OFFICIAL
from tirnas.nets.genotype import Genotype
from tirnas.retrain import RetrainParams, retrain
from tirnas.scoring import score_folder
from tirnas.trackers import Contender
from tirnas.unroll import unrolling

ROOT = Path(__file__).parent.parent


def changed(group: dict, changes: str) -> dict:
    "A copy of a group of parameters with `a.b:value,...` set."
    group = copy.deepcopy(group)
    for change in filter(None, changes.split(",")):
        path, value = change.split(":")
        *parents, last = path.split(".")
        place = group
        for name in parents: place = place[name]
        if last not in place: raise UserError(f"{path} is unknown: it has {', '.join(place)}")
        place[last] = yaml.safe_load(value)
    return group


def one_run(label: str, params: RetrainParams, args: argparse.Namespace) -> dict:
    "Train and track one arm with one seed, or read what an earlier call found."
    genotype, (train, tests) = Genotype.load(args.genotype), (load_index(args.prepared, part) for part in ("train", "test"))
    train, _ = hold_out(train, params.validate_sequences)
    work = args.work / fingerprint(params, genotype, digest(train), digest(tests))
    if (kept := work / "found.json").exists(): return json.loads(kept.read_text())
    net, history = retrain(train, genotype, params, torch.device("cpu"), work / "checkpoint.safetensors", print_record,
                           unroll=unrolling(train, params, genotype))
    model = save_model(work / "model.safetensors", net, params.card(genotype, {"seed": params.seed}))
    folder = run_benchmark(Contender.of(model, label), tests, work / "raw", 1)
    scores, _ = score_folder(folder, truth_of(tests), OFFICIAL, label)
    found = {"success": scores["success"], "precision": scores["precision"],
             "sequences": {s: v["success"] for s, v in scores["per_sequence"].items()}}
    write_json(kept, found)
    return found


def difference(arm: list[dict], recipe: list[dict], samples: int = 10_000) -> tuple[float, float, float]:
    "Mean success of an arm minus that of the recipe, and a 95 % interval over sequences."
    names = sorted(recipe[0]["sequences"])
    mean = lambda runs: np.mean([[r["sequences"][n] for n in names] for r in runs], axis=0)
    gaps = mean(arm) - mean(recipe)
    draws = gaps[np.random.default_rng(0).integers(len(gaps), size=(samples, len(gaps)))].mean(1)
    return gaps.mean(), *np.quantile(draws, (0.025, 0.975))


def show(found: dict[str, list[dict]], recipe: str) -> None:
    "Print all arms that have runs."
    print(f"{'arm':12} {'mean':>6} {'std':>6}  {'minus ' + recipe:>14} {'95 % over sequences':>20}  runs")
    for name, runs in found.items():
        values, same = [r["success"] for r in runs], min(len(runs), len(found["recipe"]))
        gap, low, high = difference(runs[:same], found["recipe"][:same])
        spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
        print(f"{name:12} {np.mean(values):6.3f} {spread:6.3f}  {gap:+14.3f} {f'[{low:+.3f}, {high:+.3f}]':>20}  {' '.join(f'{v:.3f}' for v in values)}")


def main() -> None:
    "Measure as asked and print the table."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", help="name=a.b:value,...")
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for name in ("prepared", "work", "genotype"): parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    use_threads()
    group = read_params(ROOT / "params.yaml")[args.recipe]["retrain"]
    arms = {"recipe": ""} | dict(arm.split("=", 1) for arm in args.arms)
    found = {name: [] for name in arms}
    for seed in args.seeds:
        for name, changes in arms.items():
            params = params_from_dict(RetrainParams, changed(group, changes) | {"seed": seed}, name)
            found[name].append(one_run(f"{name}-{seed}", params, args))
            show({n: runs for n, runs in found.items() if runs}, args.recipe)


if __name__ == "__main__": main()
