"""The gradient search: groups, gradients, second order, budget, and runs that are killed and go on to the same bytes."""
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from blocks import BLOCKS, CPU, EPISODES
from conftest import ROOT

from tirnas.bilevel import AdamSettings, WeightSettings, apply_gradients, frozen, gradients, unrolled_gradients
from tirnas.core import UserError, load_params, load_state
from tirnas.data.crops import Augmentation
from tirnas.dimp.net import ClassifierSettings
from tirnas.nets.cells import Macro
from tirnas.nets.fused import FusedOps
from tirnas.nets.genotype import DerivedNetwork, Genotype, discretise, random_genotype
from tirnas.nets.ops import PRIMITIVES
from tirnas.nets.relaxation import PLAIN, Relaxation, decided_mixing
from tirnas.nets.supernet import Supernet, plain_cell
from tirnas.objective import ProxySettings, Regularisation, SearchNet, SearchParams, batch_budget, classify, held_out, hit_share, to_tensors
from tirnas.search import (begin_epoch, count_skips, decide, decision_gap, epoch_record, move_alpha, move_weights, regulariser, search,
                           start_search)


SEARCH = SearchParams(seed=0, strategy="darts", epochs=3, steps=2, warmup_epochs=1, order="first", rate=2, selection="random", filter_steps=2,
                      label_sigma=1.0, hinge=10.0, auxiliary=0.0, max_skips=8, relaxation=PLAIN, regularisation=Regularisation(0.0, 0.0, "macs"),
                      proxy=ProxySettings(2, 2), macro=Macro("dual", 3, 4, 4), heads=ClassifierSettings(8, 16, 4), episodes=EPISODES,
                      augmentation=Augmentation(flip=0.5), weights=WeightSettings("sgd", 0.1, 0.001, 0.9, 3e-4, 5.0),
                      alpha=AdamSettings(0.02, 0.5, 0.999, 1e-3))
EVERY = [dict(), dict(order="second"), dict(relaxation=dataclasses.replace(PLAIN, sampled=True, temperature=2.0, temperature_end=0.2)),
         dict(relaxation=dataclasses.replace(PLAIN, edge_normalisation=True, skip_dropout=0.3, drop_path=0.2)), dict(auxiliary=0.4),
         dict(regularisation=Regularisation(0.5, 0.5, "macs")), dict(selection="fixed")]
NAMES = [", ".join(map(str, change)) or "paper" for change in EVERY]


def copies(parameters):
    return [p.detach().clone() for p in parameters]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("change", EVERY, ids=NAMES)
def test_each_group_moves_alone(change):
    "The optimisers share no parameter and hold all of them; an update of one group leaves the other as it was, to the last bit."
    run = start_search(BLOCKS, dataclasses.replace(SEARCH, **change), CPU)
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (run.weight_optimiser, run.alpha_optimiser)]
    assert not held[0] & held[1] and held[0] | held[1] == {id(p) for p in run.net.parameters()}
    assert held[1] == {id(p) for p in [*run.net.backbone.alpha.values(), *run.net.backbone.beta.values()]}
    batch = {which: [(0, sampler(0))] for which, sampler in run.samplers.items()}
    alpha, weights = run.net.alpha_parameters(), run.net.weight_parameters()
    for move, moving, resting in ((move_weights, weights, alpha), (move_alpha, alpha, weights)):
        before = copies(moving), copies(resting)
        move(run, batch)
        assert same(resting, before[1]) and not any(torch.equal(a, b) for a, b in zip(moving[:2], before[0]))
    assert all(p.requires_grad for p in run.net.parameters())


def test_alpha_rests_while_the_weights_warm_up():
    _, history = search(BLOCKS, dataclasses.replace(SEARCH, warmup_epochs=2), CPU, report=lambda r: None)
    assert history[0]["alpha"] == history[1]["alpha"] != history[2]["alpha"]
    assert [r["loss"]["arch"] is None for r in history] == [True, True, False]


@pytest.mark.parametrize("which", ["normal", "reduce"])
def test_alpha_gradient_is_that_of_the_loss(which):
    "A finite difference of the loss along one alpha, with the channel selection held by the seed."
    run = start_search(BLOCKS, SEARCH, CPU)
    run.net.double()
    batch, alpha = [x.double() for x in to_tensors(run.samplers["arch"](0), CPU)], run.net.backbone.alpha[which]

    def value(shift):
        torch.manual_seed(1)
        with torch.no_grad(): alpha[0, 3] += shift
        loss = classify(run.net, *batch, SEARCH).loss
        with torch.no_grad(): alpha[0, 3] -= shift
        return loss

    grad = gradients(value(0.0), [alpha])[0][0, 3]
    assert torch.isclose(grad, (value(1e-6) - value(-1e-6)).detach() / 2e-6, rtol=1e-5, atol=1e-9)


class Foreseen:
    "A real search network in double precision, whose weights have had two steps of SGD with momentum."
    def __init__(self):
        run = start_search(BLOCKS, SEARCH, CPU)
        self.net = run.net.double()
        self.batches = {which: [x.double() for x in to_tensors(run.samplers[which](0), CPU)] for which in ("weight", "arch")}
        self.alpha, self.weights = run.net.alpha_parameters(), run.net.weight_parameters()
        self.optimiser = torch.optim.SGD(self.weights, lr=0.02, momentum=0.9, weight_decay=1e-3)
        for seed in (4, 5): apply_gradients(gradients(self.loss("weight", seed), self.weights), self.weights, self.optimiser)
        self.start = copies(self.weights)
        self.momentum = [self.optimiser.state[w].get("momentum_buffer", torch.zeros_like(w)).clone() for w in self.weights]

    def loss(self, which, seed):
        torch.manual_seed(seed)
        return classify(self.net, *self.batches[which], SEARCH).loss

    @torch.no_grad()
    def shift(self, direction, size):
        for a, d in zip(self.alpha, direction): a += size * d

    def after_step(self, direction, size):
        "The architecture loss after one written-out step of the weights, with alpha moved along a direction."
        self.shift(direction, size)
        slopes = gradients(self.loss("weight", 1), self.weights)
        with torch.no_grad():
            for w, g, m in zip(self.weights, slopes, self.momentum): w -= 0.02 * ((0 if g is None else g) + 1e-3 * w + 0.9 * m)
        value = self.loss("arch", 2).item()
        with torch.no_grad():
            for w, s in zip(self.weights, self.start): w.copy_(s)
        self.shift(direction, -size)
        return value


def test_second_order_is_the_gradient_through_the_foreseen_step():
    "Finite differences of L_arch(w - step(alpha), alpha) along random directions of alpha."
    case = Foreseen()
    grads, ahead = unrolled_gradients(case.alpha, case.weights, lambda: case.loss("weight", 1), lambda: case.loss("arch", 2), case.optimiser)
    assert same(case.weights, case.start)
    assert case.after_step([torch.zeros_like(a) for a in case.alpha], 0.0) == pytest.approx(ahead.item(), rel=1e-12)
    generator, direct = torch.Generator().manual_seed(0), gradients(case.loss("arch", 2), case.alpha)
    for _ in range(3):
        direction = [torch.randn(a.shape, generator=generator, dtype=a.dtype) for a in case.alpha]
        along = lambda slopes: sum((g * d).sum() for g, d in zip(slopes, direction)).item()
        numeric = (case.after_step(direction, 1e-6) - case.after_step(direction, -1e-6)) / 2e-6
        assert along(grads) == pytest.approx(numeric, rel=1e-4, abs=1e-9)
        assert abs(along(grads) - along(direct)) > 1e-3 * abs(along(grads))


def test_frozen_weights_get_no_gradient_and_change_none():
    run = start_search(BLOCKS, SEARCH, CPU)
    batch, alpha = to_tensors(run.samplers["arch"](0), CPU), run.net.alpha_parameters()
    torch.manual_seed(0)
    plain = gradients(classify(run.net, *batch, SEARCH).loss, alpha)
    torch.manual_seed(0)
    with frozen(run.net.weight_parameters()): assert same(gradients(classify(run.net, *batch, SEARCH).loss, alpha), plain)


def test_flatness_and_cost_by_their_definitions():
    run = start_search(BLOCKS, dataclasses.replace(SEARCH, regularisation=Regularisation(2.0, 3.0, "macs")), CPU)
    run.net.backbone.progress = 0.25
    alpha = {which: a.detach().double().numpy() for which, a in run.net.backbone.alpha.items()}
    flat = np.mean([np.log(np.exp(a).sum(1)).mean() for a in alpha.values()])
    soft = {which: np.exp(a) / np.exp(a).sum(1, keepdims=True) for which, a in alpha.items()}
    spent = sum((soft[w] * run.costs[w].numpy()).sum() for w in soft) / sum((run.costs[w].numpy() / 8).sum() for w in soft)
    assert regulariser(run).item() == pytest.approx(2.0 * 0.25 * flat + 3.0 * spent, rel=1e-5)


def test_edge_weights_take_part_in_the_decision():
    run = start_search(BLOCKS, dataclasses.replace(SEARCH, relaxation=dataclasses.replace(PLAIN, edge_normalisation=True)), CPU)
    with torch.no_grad():
        for b in run.net.backbone.beta.values(): b.copy_(torch.arange(14.0))
    assert [[source for _, source in node] for node in decide(run, 8).normal] == [[0, 1], [1, 2], [2, 3], [3, 4]]


def test_max_skips_limits_the_decided_normal_cell():
    run = start_search(BLOCKS, SEARCH, CPU)
    with torch.no_grad():
        for a in run.net.backbone.alpha.values(): a[:, PRIMITIVES.index("skip_connect")] += 3 + torch.rand(14)
    assert [count_skips(decide(run, limit)) for limit in (8, 1, 0)] == [8, 1, 0]
    assert all(name == "skip_connect" for node in decide(run, 1).reduce for name, _ in node)
    record = epoch_record(dataclasses.replace(run, params=dataclasses.replace(SEARCH, max_skips=1)), 0)
    assert record["skips"] == 8 and count_skips(Genotype.from_json(record["genotype"])) == 1


def test_the_temperature_takes_part_in_the_decision_between_edges():
    "A flat edge with a clear winner and a sharp one change places with the temperature; sampled edges are ranked at temperature 1."
    relaxation = Relaxation(False, 0.05, 0.05, False, 0.0, 0.0)
    torch.manual_seed(0)
    alpha = {which: torch.randn(14, 8) for which in ("normal", "reduce")}
    for sampled, temperature in ((False, 0.05), (True, 1.0)):
        run = start_search(BLOCKS, dataclasses.replace(SEARCH, relaxation=dataclasses.replace(relaxation, sampled=sampled)), CPU)
        for which, a in run.net.backbone.alpha.items(): a.data = alpha[which]
        assert decide(run, 8) == discretise(alpha["normal"] / temperature, alpha["reduce"] / temperature, "dual")
    assert discretise(alpha["normal"] / 0.05, alpha["reduce"] / 0.05, "dual") != discretise(alpha["normal"], alpha["reduce"], "dual")


@pytest.mark.parametrize("change", [EVERY[0], EVERY[2], EVERY[3]], ids=["paper", "sampled", "edges and dropouts"])
def test_a_decided_alpha_has_no_gap(change):
    "Nothing is drawn or dropped when the gap is measured, channels are the same, and the random state is left as it was."
    run = start_search(BLOCKS, dataclasses.replace(SEARCH, **change), CPU)
    run.net.backbone.progress = 1.0
    genotype, before = decide(run, 8), torch.get_rng_state()
    soft = decision_gap(run, genotype)
    assert soft == decision_gap(run, genotype) and torch.equal(torch.get_rng_state(), before) and soft["supernet"] != soft["discrete"]
    for which, a in run.net.backbone.alpha.items(): a.data = 500.0 * decided_mixing(getattr(genotype, which), "dual").weights_EO
    sure = decision_gap(run, genotype)
    assert sure["supernet"] == pytest.approx(sure["discrete"], rel=1e-6)


def test_progress_and_rate_follow_the_epochs():
    run = start_search(BLOCKS, dataclasses.replace(SEARCH, epochs=5, steps=2), CPU)
    seen = []
    for run.step in range(0, 10, 2):
        begin_epoch(run)
        seen.append((run.net.backbone.progress, run.weight_optimiser.param_groups[0]["lr"]))
    assert seen == [(e / 4, pytest.approx(0.001 + 0.0495 * (1 + np.cos(np.pi * e / 5)))) for e in range(5)]


def test_the_regulariser_moves_alpha():
    "With a heavy cost, the first update of alpha follows the gradient of the cost alone."
    run = start_search(BLOCKS, dataclasses.replace(SEARCH, regularisation=Regularisation(0.0, 1e6, "macs")), CPU)
    before = copies(run.net.backbone.alpha.values())
    slopes = gradients(regulariser(run), list(run.net.backbone.alpha.values()))
    move_alpha(run, {which: [(0, sampler(0))] for which, sampler in run.samplers.items()})
    for a, old, slope in zip(run.net.backbone.alpha.values(), before, slopes):
        assert torch.equal((a - old).sign()[slope.abs() > 1], -slope.sign()[slope.abs() > 1])


def test_second_order_foresees_with_the_same_channels_and_leaves_the_generator_behind_the_architecture_pass():
    run = start_search(BLOCKS, dataclasses.replace(SEARCH, order="second"), CPU)
    drawn = []
    for cell in run.net.backbone.cells:
        true = cell.draw
        cell.draw = lambda true=true: drawn.append(true()) or drawn[-1]
    move_alpha(run, {which: [(0, sampler(0))] for which, sampler in run.samplers.items()})
    passes = [drawn[i:i + 2] for i in range(0, len(drawn), 2)]
    assert len(passes) == 3 and same(passes[0], passes[2]) and not same(passes[0], passes[1])
    behind = torch.get_rng_state()
    first = start_search(BLOCKS, SEARCH, CPU)
    for _ in range(2): [cell.draw() for cell in first.net.backbone.cells[:2]]
    assert torch.equal(torch.get_rng_state(), behind)


@pytest.mark.parametrize("kind", ["single", "dual"])
def test_a_decided_cell_inside_the_supernet_is_the_derived_cell(kind):
    "At K = 1 the supernet with decided weights is the derived network without learnt scales."
    torch.manual_seed(0)
    macro, genotype = Macro(kind, 3, 4, 4), random_genotype(kind, {"single": 14, "dual": 148}[kind])
    net, derived = Supernet(macro, 1, make_cell=plain_cell), DerivedNetwork(genotype, macro)
    derived.stem.load_state_dict(net.stem.state_dict(), strict=False)
    for plan, cell, decided in zip(macro.plan(), net.cells, derived.cells):
        decided.preprocess.load_state_dict(cell.preprocess.state_dict(), strict=False)
        nodes = getattr(genotype, plan.which)
        numbers = [(s, i) for i in range(4) for s in range(len(nodes[0]) + i)]
        chosen = [(numbers.index((s, i)), name) for i, node in enumerate(nodes) for name, s in node]
        for edge, (number, name) in zip(decided.edges, chosen):
            source = cell.edges[number].ops[name]
            edge.load_state_dict((source[0] if "pool" in name else source).state_dict(), strict=False)
    told = {which: decided_mixing(getattr(genotype, which), kind) for which in ("normal", "reduce")}
    image = torch.randn(3, 1, 32, 32)
    pools = any("pool" in name for which in ("normal", "reduce") for node in getattr(genotype, which) for name, _ in node)
    assert not pools, "choose a genotype without pools: those are normalised in the supernet only"
    for stride, found in net(image, told).items():
        torch.testing.assert_close(found, derived(image)[stride], rtol=1e-4, atol=1e-4)


def test_the_budget_is_the_number_of_batches_with_gradients(monkeypatch):
    asked = []
    run_params = dataclasses.replace(SEARCH, epochs=4, steps=3, warmup_epochs=2)
    import tirnas.search as module
    true = module.ask_shard
    monkeypatch.setattr(module, "ask_shard", lambda *args: asked.append(1) or true(*args))
    search(BLOCKS, run_params, CPU, report=lambda r: None)
    assert len(asked) == batch_budget(run_params) == 4 * 3 + 2 * 3
    assert batch_budget(dataclasses.replace(run_params, shards=3)) == 3 * batch_budget(run_params)
    assert batch_budget(dataclasses.replace(run_params, order="second")) == 4 * 3 + 2 * 3 * 3
    assert not set(held_out(run_params)) & set(range(4 * 3))


def test_hits_by_hand():
    net = SearchNet(Supernet(SEARCH.macro, 2), SEARCH)
    scores = torch.zeros(1, 3, 9, 9)
    for t, (row, column) in enumerate(((4, 4), (0, 8), (2, 5))): scores[0, t, row, column] = 1
    centers = torch.tensor([[[28.5, 28.5], [60.5, -3.5], [36.5, 12.5]]])
    around = torch.cat([centers - 3, torch.full((1, 3, 2), 6.0)], -1)
    assert hit_share(scores, around, net.classifier) == 1.0
    around[0, 1, 0] -= 20
    assert hit_share(scores, around, net.classifier) == pytest.approx(2 / 3)


@pytest.mark.parametrize("change, text", [
    (dict(strategy="annealing"), "strategy is 'annealing': use one of darts, random, evolution, reinforce"),
    (dict(order="third"), "order is 'third': use first or second"),
    (dict(warmup_epochs=3), "alpha would never move"), (dict(epochs=0), "search nothing"),
    (dict(rate=3), "K = 3 does not divide 4 channels"), (dict(rate=0), "K = 0 does not divide"),
    (dict(max_skips=9), "max_skips is 9"), (dict(seed=-1), "seed is -1: give at least 0"), (dict(warmup_epochs=-3), "warmup_epochs is -3"),
    (dict(hinge=-5.0), "hinge is -5.0"), (dict(label_sigma=0.0), "label_sigma is 0.0"), (dict(filter_steps=-1), "filter_steps is -1"),
    (dict(order="second", weights=WeightSettings("adamw", 0.1, 0.0, 0.9, 0.0, 5.0)), "set weights.optimiser to sgd")])
def test_bad_settings_are_one_sentence(change, text):
    with pytest.raises(UserError, match=text) as e: dataclasses.replace(SEARCH, **change)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("make, text", [
    (lambda: WeightSettings("sgd", -1.0, 0.0, 0.9, 0.0, 5.0), "lr is -1.0"), (lambda: WeightSettings("sgd", 0.1, 0.0, 1.5, 0.0, 5.0), "momentum is 1.5"),
    (lambda: WeightSettings("sgd", 0.1, 0.0, 0.9, 0.0, 0.0), "clip is 0.0"), (lambda: AdamSettings(0.1, 1.5, 0.9, 0.0), "beta1 is 1.5"),
    (lambda: Regularisation(-1.0, 0.0, "macs"), "flatness is -1.0"), (lambda: Regularisation(0.0, 0.0, "joule"), "use one of macs, ms"),
    (lambda: ProxySettings(0, 1), "give at least 1 of each"), (lambda: Relaxation(False, 1.0, float("nan"), False, 0.0, 0.0), "above 0 and finite")])
def test_bad_groups_are_one_sentence(make, text):
    with pytest.raises(UserError, match=text): make()


def test_a_search_that_diverges_says_so():
    wild = dataclasses.replace(SEARCH, weights=dataclasses.replace(SEARCH.weights, lr=1e30))
    with pytest.raises(UserError, match="diverged at step . .*: lower weights.lr or alpha.lr"): search(BLOCKS, wild, CPU, report=lambda r: None)


def test_a_stale_log_and_checkpoint_are_not_taken_for_this_run(tmp_path):
    log, checkpoint, seen = tmp_path / "log.json", tmp_path / "c.safetensors", []
    log.write_text("[1, 2, 3]")
    search(BLOCKS, SEARCH, CPU, checkpoint, log, report=lambda r: seen.append(len(json.loads(log.read_text()))))
    assert seen == [1, 2, 3]
    old = checkpoint.read_bytes()
    search(BLOCKS, dataclasses.replace(SEARCH, seed=1), CPU, checkpoint, log, report=lambda r: None)
    second = checkpoint.read_bytes()
    assert (tmp_path / "c.safetensors.old").read_bytes() == old != second
    search(BLOCKS, SEARCH, CPU, checkpoint, log, report=lambda r: None)
    assert (tmp_path / "c.safetensors.old").read_bytes() == old and (tmp_path / "c.safetensors.old2").read_bytes() == second


def test_a_finished_epoch_outlives_a_report_that_fails(tmp_path):
    def broken(record): raise BrokenPipeError
    with pytest.raises(BrokenPipeError): search(BLOCKS, SEARCH, CPU, tmp_path / "c", report=broken)
    assert len(load_state(tmp_path / "c")["history"]) == 1


def test_bad_settings_are_refused_when_the_file_is_read(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("rate: 4 ", "rate: 5 ", 1))
    with pytest.raises(UserError, match="K = 5 does not divide 16 channels"): load_params(SearchParams, "search", "mini", tmp_path / "params.yaml")


def test_too_few_selected_channels_to_halve():
    "K = channels leaves one channel in the first cells; at the first reduction the width has doubled, so two remain."
    assert Supernet(Macro("dual", 3, 4, 4), 4)(torch.randn(2, 1, 32, 32))[8].shape[1] == 32
    with pytest.raises(UserError, match="even number"): FusedOps(4, 1, 2)


KILLS = int(os.environ.get("TIRNAS_KILLS", 0))
SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import dataclasses, torch
from safetensors.torch import save_file
from blocks import BLOCKS, CPU
from test_search import EVERY, SEARCH
from tirnas.core import use_threads
from tirnas.search import search, start_search
import tirnas.search
use_threads()
params = dataclasses.replace(SEARCH, epochs=4, steps=4, **EVERY[{which}])
keep, runs = tirnas.search.start_search, []
tirnas.search.start_search = lambda *args: runs.append(keep(*args)) or runs[-1]
genotype, history = search(BLOCKS, params, CPU, "state.safetensors", "search.json", report=lambda r: print("epoch", r["epoch"], flush=True))
genotype.save("genotype.json")
save_file({{k: v.contiguous() for k, v in runs[0].net.state_dict().items()}}, "weights.safetensors")
"""
RESULTS = ("genotype.json", "search.json", "weights.safetensors", "state.safetensors")


def start(folder, which):
    folder.mkdir(exist_ok=True)
    code = SCRIPT.format(paths=[str(ROOT / "tests"), str(ROOT)], which=which)
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-2000:]


def unbroken(tmp_path, which):
    "A run that nobody disturbs: how long its work takes after the start-up, and its files."
    process = start(tmp_path / "whole", which)
    first = process.stdout.readline()
    begun = time.monotonic()
    finish(process)
    assert first == "epoch 0\n"
    return time.monotonic() - begun


@pytest.mark.parametrize("which", [0, 3], ids=["paper", "edges and dropouts"])
def test_killed_at_random_moments_and_resumed_to_the_same_bytes(tmp_path, which):
    "Real processes, killed by SIGKILL or asked to stop by SIGTERM at random times: four for the paper's settings and two for others, more at will."
    took, rng, left = unbroken(tmp_path, which), random.Random(which), KILLS or {0: 4, 3: 2}[which]
    while left:         # runs that end before the signal are not counted, and start afresh
        process, number = start(tmp_path / "broken", which), rng.choice((signal.SIGKILL, signal.SIGTERM))
        while not (tmp_path / "broken" / "state.safetensors").exists() and process.poll() is None: time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.8 * took))
        if process.poll() is None: process.send_signal(number)
        out, err = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM), err[-2000:]
        if process.returncode == 128 + signal.SIGTERM: assert "the same command goes on from there" in out
        left -= process.returncode != 0
        if process.returncode == 0 and left:
            for name in RESULTS: (tmp_path / "broken" / name).unlink()
    finish(start(tmp_path / "broken", which))
    for name in RESULTS: assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_sigterm_keeps_the_middle_of_an_epoch(tmp_path):
    "Asked to stop, a run saves at the next step; what it noted since the epoch began is kept."
    process = start(tmp_path, 0)
    assert process.stdout.readline() == "epoch 0\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and "stopped after step" in out, err[-2000:]
    state = load_state(tmp_path / "state.safetensors")
    noted = state["notes"]["weight"]["loss"]
    assert 4 <= state["step"] < 16 and len(noted) == state["step"] % 4
    assert len(state["history"]) == len(json.loads((tmp_path / "search.json").read_text())) == state["step"] // 4
