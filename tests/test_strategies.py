"""Proposals by chance, evolution and policy; their evaluator, budget and resumption: brute force, closed form, a killed process."""
import dataclasses
import json
import math
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from blocks import BLOCKS, CPU
from conftest import ENV, ROOT

from tirnas.bilevel import AdamSettings, WeightSettings
from tirnas.core import UserError
from tirnas.data.crops import Augmentation
from tirnas.data.episodes import EpisodeSampler, EpisodeSettings
from tirnas.dimp.net import ClassifierSettings
from tirnas.nets.cells import Macro, full_links
from tirnas.nets.cost import count_macs, count_parameters
from tirnas.nets.genotype import EDGES_KEPT, OPERATIONS, DerivedNetwork, Genotype, positions, random_genotype
from tirnas.nets.relaxation import PLAIN
from tirnas.objective import (STRATEGIES, ProxySettings, Regularisation, SearchNet, SearchParams, batch_budget, deal,
                              held_out)
from tirnas.proposals import (LIMIT, PROPOSERS, Evolution, RandomCells, Reinforce, Trial, advantages, decide, decisions,
                              make_evolution, make_proposer, moved, moves, picks_of, score_gradient, softmax)
from tirnas.search import search
from tirnas.strategies import (DIVERGED, Judgement, best_genotype, candidate_record, examine, find_genotype, judge, next_record,
                               num_candidates)

KINDS = ["single", "dual"]


def neighbours_by_hand(genotype):
    "All genotypes of which one node differs in one edge, and that edge in either operation or source, by trying every node."
    kept, found = EDGES_KEPT[genotype.kind], set()
    for which, (i, sources) in product(("normal", "reduce"), enumerate(full_links(genotype.kind))):
        old = set(getattr(genotype, which)[i])
        for chosen, operations in product(combinations(sources, kept), product(OPERATIONS, repeat=kept)):
            new = set(zip(operations, chosen))
            if len(old - new) != 1: continue
            (was,), (is_,) = old - new, new - old
            if (was[0] == is_[0]) != (was[1] == is_[1]): found.add((which, i, frozenset(new)))
    return found


def difference(old, new):
    "Where two genotypes differ: cell, node and the edges there."
    return [(which, i, frozenset(b)) for which in ("normal", "reduce")
            for i, (a, b) in enumerate(zip(getattr(old, which), getattr(new, which))) if a != b]


def sep_convs(genotype):
    return sum(op == "sep_conv_3x3" for which in ("normal", "reduce") for node in getattr(genotype, which) for op, _ in node)


def planted_loss(seed):
    "Minus the mean of a random worth of each operation on each edge."
    worth = np.random.default_rng(seed).normal(size=(2, 14, 8))

    def loss(genotype):
        places = [(c, *place) for c, which in enumerate(("normal", "reduce"))
                  for place in positions(getattr(genotype, which), genotype.kind)]
        return -float(np.mean([worth[place] for place in places]))
    return loss


def run(proposer, budget, loss):
    trials = []
    while len(trials) < budget: trials.append(Trial(g := proposer.propose(trials), loss(g)))
    return trials


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_moves_are_all_single_changes(kind, seed):
    parent = random_genotype(kind, seed)
    children = [moved(parent, m) for m in moves(parent)]
    changes = [difference(parent, child) for child in children]
    assert all(len(c) == 1 for c in changes) and len(set(children)) == len(children) == {"single": 60, "dual": 120}[kind]
    assert {c[0] for c in changes} == neighbours_by_hand(parent)


@pytest.mark.parametrize("kind", KINDS)
def test_any_genotype_can_be_reached(kind):
    "Moves that bring a genotype nearer to a target, one at a time, end there: no part of the space is cut off."
    shared = lambda a, b: sum(x == y or 0.4 * (x[1] == y[1]) + 0.4 * (x[0] == y[0]) for which in ("normal", "reduce")
                              for m, n in zip(getattr(a, which), getattr(b, which)) for x, y in zip(m, n))
    for seed in range(4):
        here, goal = random_genotype(kind, seed), random_genotype(kind, seed + 100)
        for _ in range(40):
            if here == goal: break
            here = max((moved(here, m) for m in moves(here)), key=lambda g: shared(g, goal))
        assert here == goal


def test_every_neighbour_is_equally_likely():
    parent = random_genotype("dual", 3)
    evolution, drawn = Evolution("dual", 0, 4, 2), Counter()
    for n in range(4, 4804): drawn[evolution.propose([Trial(parent, 1.0)] * n)] += 1
    assert set(drawn) == {moved(parent, m) for m in moves(parent)}
    chi2 = sum((count - 40) ** 2 / 40 for count in drawn.values())
    assert chi2 < 119 + 4 * math.sqrt(2 * 119)


def test_the_oldest_dies_and_the_best_of_a_tournament_has_the_child():
    "Parents come from the last P trials only; the best of them wins as often as k draws with replacement meet it."
    trials = [Trial(random_genotype("dual", i), float(i)) for i in range(12)]
    children = [{moved(t.genotype, m) for m in moves(t.genotype)} for t in trials]
    parents = Counter()
    for seed in range(1500):
        child = Evolution("dual", seed, 8, 3).propose(trials)
        (parent,) = [i for i, family in enumerate(children) if child in family]
        parents[parent] += 1
    assert set(parents) <= set(range(4, 12))
    for rank in range(8):
        share = ((8 - rank) ** 3 - (7 - rank) ** 3) / 8 ** 3
        assert abs(parents[4 + rank] / 1500 - share) < 4 * math.sqrt(share * (1 - share) / 1500)


def test_a_trial_that_diverged_is_never_preferred():
    good, bad = random_genotype("dual", 0), random_genotype("dual", 1)
    for loss in (math.inf, math.nan):
        child = Evolution("dual", 0, 4, 60).propose([Trial(bad, loss), Trial(good, 9.0), Trial(bad, loss), Trial(bad, loss)])
        assert child in {moved(good, m) for m in moves(good)}


@pytest.mark.parametrize("budget", [2, 3, 5, 8, 40, 399, 400, 5000])
def test_evolution_fits_its_budget(budget):
    e = make_evolution("dual", 0, budget)
    assert 2 <= e.population <= max(2, min(budget // 4, 100)) and 2 <= e.tournament <= max(2, e.population)


@pytest.mark.parametrize("kind", KINDS)
def test_genotypes_and_decisions_translate_both_ways(kind):
    rng, sizes = np.random.default_rng(0), [len(options) for options in decisions(kind)]
    for seed in range(50):
        genotype, picks = random_genotype(kind, seed), [int(rng.integers(n)) for n in sizes]
        assert decide(picks_of(genotype), kind) == genotype and picks_of(decide(picks, kind)) == picks


def test_score_gradient_is_autograds():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4))
    logits[1, 3] = logits[2, 1:] = -np.inf
    picks, leaf = [3, 1, 0, 2, 0], torch.tensor(logits, requires_grad=True)
    leaf.log_softmax(1)[torch.arange(5), torch.tensor(picks)].sum().backward()
    assert np.allclose(score_gradient(logits, picks), np.nan_to_num(leaf.grad.numpy()), atol=1e-12)


def test_expected_step_is_the_gradient_of_the_expected_reward():
    "Over all outcomes of a tiny policy, the mean of reward x score is the gradient of the mean reward, whatever the baseline."
    rng = np.random.default_rng(1)
    logits, reward = rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
    outcomes = list(product(range(3), repeat=2))
    chance = {o: np.prod(softmax(logits)[[0, 1], o]) for o in outcomes}
    leaf = torch.tensor(logits, requires_grad=True)
    p = leaf.softmax(1)
    (p[0] @ torch.tensor(reward) @ p[1]).backward()
    for baseline in (0.0, 5.0):
        step = sum(chance[o] * (reward[o] - baseline) * score_gradient(logits, list(o)) for o in outcomes)
        assert np.allclose(step, leaf.grad.numpy())


def test_policy_is_the_sum_of_its_steps():
    "Two trials by hand: the first has nothing to be compared with, the second is one usual deviation better."
    trials = [Trial(random_genotype("single", 0), 5.0), Trial(random_genotype("single", 1), 3.0)]
    policy = Reinforce("single", 0, rate=0.25)
    flat, after = policy.logits([]), policy.logits(trials)
    assert np.array_equal(policy.logits(trials[:1]), flat)
    by_hand = flat + 0.25 * score_gradient(flat, picks_of(trials[1].genotype))
    assert np.allclose(after[np.isfinite(after)], by_hand[np.isfinite(flat)])
    assert (np.isfinite(flat).sum(1) == [len(options) for options in decisions("single")]).all()


def test_advantages():
    assert advantages([], 0.9) == [] and advantages([4.0, 4.0, 4.0], 0.9) == [0.0, 0.0, 0.0]
    losses = list(np.random.default_rng(0).gamma(2.0, size=60))
    gains = advantages(losses, 0.9)
    assert max(map(abs, gains)) <= LIMIT and np.allclose(gains, advantages([1e-3 * x - 8 for x in losses], 0.9))
    for bad in (math.nan, math.inf):
        assert advantages([bad, *losses[:30], bad, *losses[30:]], 0.9) == [-LIMIT, *gains[:30], -LIMIT, *gains[30:]]


def test_a_flat_policy_draws_evenly():
    drawn = np.array([picks_of(Reinforce("dual", seed).propose([])) for seed in range(1200)])
    for d, options in enumerate(decisions("dual")):
        counts, expected = np.bincount(drawn[:, d], minlength=len(options)), 1200 / len(options)
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert len(counts) == len(options) and chi2 < len(options) + 4 * math.sqrt(2 * len(options))


def test_policy_learns_a_planted_reward():
    "The reward is the number of 3x3 separable convolutions: the last draws have far more than even draws, which have one in seven."
    last = lambda name, seed: run(make_proposer(name, "dual", seed, 150), 150, lambda g: -sep_convs(g))[-20:]
    ends = {name: [np.mean([sep_convs(t.genotype) for t in last(name, seed)]) for seed in range(3)] for name in ("random", "reinforce")}
    assert max(ends["random"]) < 3.5 and min(ends["reinforce"]) > 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["evolution", "reinforce"])
def test_learners_beat_chance_on_a_planted_loss(kind, strategy):
    lowest = lambda name, seed: min(t.loss for t in run(make_proposer(name, kind, seed, 100), 100, planted_loss(seed)))
    best = {name: np.array([lowest(name, seed) for seed in range(8)]) for name in ("random", strategy)}
    assert (best[strategy] < best["random"]).sum() >= 7 and best[strategy].mean() < best["random"].mean() - 0.15


@pytest.mark.parametrize("strategy", PROPOSERS)
def test_trials_and_seed_decide(strategy):
    "Any prefix of a run goes on as the run did, with a proposer made anew; another seed goes elsewhere."
    fresh = lambda seed=5: make_proposer(strategy, "dual", seed, 40)
    whole = run(fresh(), 40, planted_loss(0))
    for cut in (0, 1, 9, 10, 11, 39): assert fresh().propose(whole[:cut]) == whole[cut].genotype
    assert run(fresh(6), 3, planted_loss(0)) != whole[:3]


def test_evolution_starts_with_the_draws_of_chance():
    trials = run(make_evolution("dual", 2, 40), 12, planted_loss(0))
    assert [t.genotype for t in trials[:10]] == [t.genotype for t in run(RandomCells("dual", 2), 10, planted_loss(0))]
    assert trials[10].genotype not in [t.genotype for t in run(RandomCells("dual", 2), 12, planted_loss(0))]


class Noted(EpisodeSampler):
    "A sampler that writes down which batches were asked for."
    def __call__(self, step):
        self.asked.append(step)
        return super().__call__(step)


PARAMS = SearchParams(
    seed=0, strategy="evolution", epochs=5, steps=4, warmup_epochs=2, order="first", rate=2, selection="random",
    filter_steps=2, label_sigma=0.9, hinge=10.0, auxiliary=0.0, max_skips=8, proxy=ProxySettings(3, 2),
    relaxation=PLAIN, regularisation=Regularisation(0.0, 0.0, "macs"), macro=Macro("dual", 3, 4, 4),
    heads=ClassifierSettings(8, 16, 4), episodes=EpisodeSettings(2, 4, 64, 4.0, 10, 2.0, 0.2),
    augmentation=Augmentation(flip=0.5), weights=WeightSettings("sgd", 0.1, 0.001, 0.9, 3e-4, 5.0),
    alpha=AdamSettings(0.02, 0.5, 0.999, 1e-3))
QUIET = lambda record: None


def noted_samplers():
    samplers = {half: Noted(s.sequences, s.settings, s.augmentation, s.seed) for half, s in deal(BLOCKS, PARAMS).items()}
    for sampler in samplers.values(): sampler.asked = []
    return samplers


def test_a_judgement_depends_on_the_genotype_alone():
    "Neither the state of the random numbers nor what was judged before matters; the seed and the genotype do."
    samplers, genotype = deal(BLOCKS, PARAMS), random_genotype("dual", 0)
    first = judge(genotype, samplers, PARAMS, CPU)
    torch.manual_seed(99)
    other = judge(random_genotype("dual", 1), samplers, PARAMS, CPU)
    assert judge(genotype, samplers, PARAMS, CPU) == first != other
    assert judge(genotype, samplers, dataclasses.replace(PARAMS, seed=1), CPU) != first
    assert all(0 <= hit <= 1 for hit in first.hit.values()) and all(loss > 0 for loss in first.loss.values())


def test_training_and_exam_use_the_batches_they_should():
    "Each candidate sees batches 0, 1, ... of the weight half, and of the other half those that no search trains on."
    samplers = noted_samplers()
    for seed in range(2): judge(random_genotype("dual", seed), samplers, PARAMS, CPU)
    assert samplers["weight"].asked == [0, 1, 2] * 2 and samplers["arch"].asked == held_out(PARAMS) * 2
    assert not set(held_out(PARAMS)) & set(range(PARAMS.epochs * PARAMS.steps))


def test_the_exam_teaches_nothing():
    "Asked twice it answers the same, and no parameter moves."
    net = SearchNet(DerivedNetwork(random_genotype("dual", 0), PARAMS.macro), PARAMS).train()
    before, sampler = [p.detach().clone() for p in net.parameters()], deal(BLOCKS, PARAMS)["arch"]
    exams = [list(examine(net, sampler, held_out(PARAMS), PARAMS, CPU)) for _ in range(2)]
    assert exams[0] == exams[1] and all(torch.equal(p, q) and p.grad is None for p, q in zip(net.parameters(), before))


def test_training_is_that_of_the_settings():
    "A rate of zero leaves the random start, so the exam is that of a fresh network of the same seed."
    still = dataclasses.replace(PARAMS, weights=WeightSettings("sgd", 0.0, 0.0, 0.0, 0.0, 5.0))
    genotype, samplers = random_genotype("dual", 2), deal(BLOCKS, PARAMS)
    torch.manual_seed(PARAMS.seed)
    fresh = SearchNet(DerivedNetwork(genotype, PARAMS.macro), PARAMS).train()
    exam = [loss for loss, _ in examine(fresh, samplers["arch"], held_out(PARAMS), PARAMS, CPU)]
    untrained, trained = (judge(genotype, samplers, params, CPU).loss["arch"] for params in (still, PARAMS))
    assert untrained == sum(exam) / len(exam) != trained


def test_a_longer_training_lowers_the_loss():
    longer = dataclasses.replace(PARAMS, proxy=ProxySettings(25, 4))
    samplers = deal(BLOCKS, PARAMS)
    for seed in range(2):
        genotype = random_genotype("dual", seed)
        brief = dataclasses.replace(longer, proxy=ProxySettings(1, 4))
        assert judge(genotype, samplers, longer, CPU).loss["arch"] < judge(genotype, samplers, brief, CPU).loss["arch"]


def test_the_budget_is_that_of_the_gradient_search():
    assert batch_budget(PARAMS) == 5 * 4 + 3 * 4 == 32
    for steps, count in ((1, 32), (3, 10), (10, 3), (16, 2)):
        assert num_candidates(dataclasses.replace(PARAMS, proxy=ProxySettings(steps, 1))) == count
    with pytest.raises(UserError, match="give at most 16"): num_candidates(dataclasses.replace(PARAMS, proxy=ProxySettings(17, 1)))


@pytest.mark.parametrize("strategy", PROPOSERS)
def test_search_by_trial(strategy, tmp_path):
    "As many candidates as the budget pays for, each reported once and complete; the best is returned, the file is the history."
    params, reported = dataclasses.replace(PARAMS, strategy=strategy), []
    genotype, history = find_genotype(BLOCKS, params, CPU, log=tmp_path / "search.json", report=reported.append)
    assert len(history) == 32 // 3 == 10 and reported == history and [r["candidate"] for r in history] == list(range(10))
    assert json.loads((tmp_path / "search.json").read_text()) == history
    assert all(set(r) == {"candidate", "genotype", "loss", "hit", "cost", "warnings"} for r in history)
    best = min(history, key=lambda r: r["loss"]["arch"])
    assert genotype == Genotype.from_json(best["genotype"])
    net = DerivedNetwork(genotype, PARAMS.macro)
    assert best["cost"] == {"parameters": count_parameters(net), "macs": count_macs(net, torch.zeros(1, 1, 64, 64))}
    assert find_genotype(BLOCKS, params, CPU, report=QUIET) == (genotype, history)


def test_strategies_share_the_judge():
    "What two strategies try alike is judged alike: evolution starts with the draws of chance."
    history = lambda name: find_genotype(BLOCKS, dataclasses.replace(PARAMS, strategy=name), CPU, report=QUIET)[1]
    runs = {name: history(name) for name in ("random", "evolution")}
    start = make_evolution("dual", 0, 10).population
    assert runs["random"][:start] == runs["evolution"][:start] and runs["random"][start] != runs["evolution"][start]


def test_gradient_search_has_the_same_door():
    params = dataclasses.replace(PARAMS, strategy="darts", epochs=2, steps=2, warmup_epochs=1)
    assert STRATEGIES == ("darts", *PROPOSERS)
    assert find_genotype(BLOCKS, params, CPU, report=QUIET) == search(BLOCKS, params, CPU, report=QUIET)


def test_a_repeated_genotype_is_copied_and_counts():
    params, samplers = dataclasses.replace(PARAMS, strategy="random"), noted_samplers()
    again = RandomCells("dual", 0).propose([None])
    known = Judgement({"weight": 7.0, "arch": 8.0}, {"weight": 0.25, "arch": 0.5})
    record = next_record([candidate_record(0, again, known, params)], samplers, params, CPU)
    assert record == candidate_record(1, again, known, params) and not samplers["weight"].asked


def test_candidates_that_diverge_are_noted():
    wild = dataclasses.replace(PARAMS, weights=WeightSettings("sgd", 1e38, 1e38, 0.9, 0.0, math.inf), strategy="reinforce")
    assert judge(random_genotype("dual", 0), deal(BLOCKS, PARAMS), wild, CPU) == DIVERGED
    history = []
    with pytest.raises(UserError, match="all 10 candidates diverged: lower weights.lr"):
        find_genotype(BLOCKS, wild, CPU, report=history.append)
    assert len(history) == 10 and all(r["loss"]["arch"] is None and "diverged" in r["warnings"][0] for r in history)
    fair = Judgement({"weight": 1.0, "arch": 1.0}, {"weight": 0.5, "arch": 0.5})
    assert best_genotype([*history, candidate_record(10, random_genotype("dual", 77), fair, PARAMS)]) == random_genotype("dual", 77)


MANY = dataclasses.replace(PARAMS, epochs=6, proxy=ProxySettings(1, 1))     # 40 short candidates
CHILD = """
import sys, torch
sys.path.insert(0, "tests")
from tirnas.core import use_threads
from blocks import BLOCKS, CPU
from test_strategies import MANY, find_genotype
use_threads()
find_genotype(BLOCKS, MANY, CPU, sys.argv[1], sys.argv[2], lambda record: print(record["candidate"], flush=True))
"""


def test_a_killed_search_ends_as_one_that_was_not(tmp_path):
    "A real process is killed at random moments and started anew; history and checkpoint come out the same, to the byte."
    paths = lambda name: [tmp_path / f"{name}.{end}" for end in ("safetensors", "json")]
    find_genotype(BLOCKS, MANY, CPU, *paths("whole"), report=QUIET)
    chance, done, kills = random.Random(0), -1, 0
    for end in (signal.SIGKILL, signal.SIGTERM):
        command = [sys.executable, "-c", CHILD, *map(str, paths("cut"))]
        child = subprocess.Popen(command, cwd=ROOT, env=ENV, text=True, stdout=subprocess.PIPE)
        first = int(next(line for line in child.stdout if line.strip().isdecimal()))
        assert first in (done + 1, done + 2), "the last candidate may have been saved but not reported"
        time.sleep(chance.uniform(0, 0.15))
        kills += child.poll() is None
        child.send_signal(end)
        said = child.communicate(timeout=60)[0].splitlines()
        done = max([first, *(int(line) for line in said if line.isdecimal())])
        if end == signal.SIGTERM:
            assert child.returncode == 143
            assert said[-1] == f"stopped after candidate {done + 1} of 40: the same command goes on from there"
    assert kills == 2
    find_genotype(BLOCKS, MANY, CPU, *paths("cut"), report=QUIET)
    for one, other in zip(paths("whole"), paths("cut")): assert one.read_bytes() == other.read_bytes()
