"The simulator: exact boxes, the same bytes from the same seed, resumable writing, and the frozen benchmark."
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.data import synthetic as sim
from tirnas.data import scenes, simtir
from tirnas.data.camera import Gain, Sensor
from tirnas.data.figures import Body, Figure, Pose, box_of, paint
from tirnas.data.kinds import LOOKS, random_look
from tirnas.data.sequences import ATTRIBUTES, open_dataset

SAMPLES = Path(__file__).parents[1] / "samples"
PLAIN = Sensor(exposure=0.0, netd=0.0, fixed=0.0, drift=0.0)


def box_by_sampling(figure: Figure, per_px: int = 8) -> np.ndarray:
    "The box of all sample points that lie within any convex outline, by half planes: no OpenCV, no capsule algebra."
    low, high = np.floor(figure.outlines.min((0, 1))) - 1, np.ceil(figure.outlines.max((0, 1))) + 1
    x, y = (np.arange(low[i] * per_px, high[i] * per_px) / per_px + 0.5 / per_px for i in (0, 1))
    points, inside = np.stack(np.meshgrid(x, y), -1), np.zeros((len(y), len(x)), bool)
    for outline in figure.outlines:
        edge = np.roll(outline, -1, 0) - outline
        edge, start = edge[np.abs(edge).sum(1) > 1e-9], outline[np.abs(edge).sum(1) > 1e-9]
        away = points[:, :, None] - start
        side = edge[:, 0] * away[..., 1] - edge[:, 1] * away[..., 0]
        inside |= (side >= -1e-9).all(-1) | (side <= 1e-9).all(-1)
    rows, columns = y[inside.any(1)], x[inside.any(0)]
    half = 0.5 / per_px
    return np.array([columns[0] - half, rows[0] - half, np.ptp(columns) + 2 * half, np.ptp(rows) + 2 * half])


def to_edges(box_xywh) -> np.ndarray:
    return np.r_[box_xywh[:2], box_xywh[:2] + box_xywh[2:]]


@pytest.mark.parametrize("kind", LOOKS)
def test_box_is_the_outline_to_half_a_pixel(kind):
    rng = np.random.default_rng(1)
    for _ in range(4):
        pose = Pose(rng.uniform(0, 6), *rng.uniform(0, 1, 4), rng.uniform(-3, 3), rng.uniform(0, 1.4))
        figure = random_look(rng, kind, 5).figure(pose)
        scale = rng.uniform(14, 40) / box_of(figure)[2:].max()
        figure = Figure(figure.outlines * scale + rng.uniform(60, 90, 2), figure.temps)
        edges = to_edges(box_of(figure))
        assert np.abs(edges - to_edges(box_by_sampling(figure))).max() <= 0.5
        sprite = paint(figure, samples=8)
        covered = [np.flatnonzero(sprite.cover.max(axis) > 0.02) for axis in (0, 1)]
        painted = np.array([covered[0][0] + sprite.x, covered[1][0] + sprite.y, covered[0][-1] + 1 + sprite.x, covered[1][-1] + 1 + sprite.y])
        assert (painted[:2] <= edges[:2] + 0.5).all() and (painted[2:] >= edges[2:] - 0.5).all()
        assert np.abs(painted - edges).max() <= 1.1


def test_box_of_a_filmed_scene_is_where_the_target_changes_the_field():
    "Warm the target by 40 K: the field changes exactly within its box, by the same outline whether the camera moves or not."
    for seed, camera in ((5, "drone"), (6, "zoom"), (9, "static")):
        scene = sim.random_scene(seed, 8, kind="aerial", target="person", camera=camera, sensor=PLAIN, distractors=0, crossings=0, occluders=0, zoom=1.3)
        stage = sim.set_stage(scene)
        warm = stage._replace(actors=[stage.actors[0]._replace(texture=stage.actors[0].texture + 40)])
        for t in (0, 7):
            (cold_field, take), (warm_field, _) = (sim.shoot(scene, s, t) for s in (stage, warm))
            changed = np.argwhere(warm_field - cold_field > 0.4)
            found = np.r_[changed.min(0)[::-1], changed.max(0)[::-1] + 1]
            assert take.visible > 0.98
            assert (np.abs(found - to_edges(take.boxes_xywh[0])) <= 1.01).all()


def test_first_frame_shows_the_whole_target():
    for seed in range(40):
        scene = sim.random_scene(seed, 2)
        _, take = next(sim.film(scene))
        x, y, w, h = take.boxes_xywh[0]
        assert take.visible >= 0.6, seed
        assert min(w, h) >= 12 and x > 0 and y > 0 and x + w < 320 and y + h < 240, seed


def clipped_by_hand(x, y, w, h, width=320, height=240):
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    return [left, top, right - left, bottom - top] if right - left >= 1 and bottom - top >= 1 else [0, 0, 0, 0]


def test_a_target_that_leaves_is_absent_and_comes_back():
    "One that walks out of a static view: whole box, box inside the frame, or zeros."
    scene = sim.random_scene(405, 60, exits=True, camera="static", zoom=1.0, target="person", speed_mps=3.0)
    stage = sim.set_stage(scene)
    away = stage.actors[0]._replace(feet=stage.actors[0].feet + np.linspace(0, 500, 60)[:, None] * [1, 0])
    takes = [sim.shoot(scene, stage._replace(actors=[away]), t)[1] for t in range(0, 60, 3)]
    whole = np.array([take.boxes_xywh[0] for take in takes])
    boxes = sim.clip_boxes(whole, scene.size_hw)
    assert np.allclose(boxes, [clipped_by_hand(*box) for box in whole])
    assert (boxes[0, 2:] > 1).all() and (boxes[-1] == 0).all() and (takes[-1].visible_xywh == 0).all() and takes[-1].visible == 0


def test_visible_box_is_what_changes_when_the_target_warms():
    "Warm the target by 40 K: pixels that warm by 10 K, a quarter, are those it makes up a quarter of; others stand before it."
    for seed in (432, 443, 410):
        scene = sim.random_scene(seed, 40, sensor=PLAIN)
        stage = sim.set_stage(scene)
        warm = stage._replace(actors=[stage.actors[0]._replace(texture=stage.actors[0].texture + 40), *stage.actors[1:]])
        for t in (0, 20, 39):
            (cold_field, take), (warm_field, _) = (sim.shoot(scene, s, t) for s in (stage, warm))
            changed = np.argwhere(warm_field - cold_field >= 10)
            if not len(changed): assert (take.visible_xywh == 0).all(); continue
            found = np.r_[changed.min(0)[::-1], changed.max(0)[::-1] + 1]
            assert np.abs(found - to_edges(take.visible_xywh)).max() <= 1


def test_rendered_boxes_agree_with_one_another():
    for seed in (405, 13):
        rendered = sim.render(sim.random_scene(seed, 40))
        assert len(rendered.frames) == 40 and all(f.shape == (240, 320) and f.dtype == np.uint8 for f in rendered.frames)
        assert np.allclose(rendered.boxes_xywh, [clipped_by_hand(*box) for box in rendered.amodal_xywh])
        assert (rendered.visible >= 0).all() and (rendered.visible <= 1).all()
        for whole, part in zip(rendered.boxes_xywh, rendered.visible_xywh):
            if part[2]: assert (to_edges(part)[:2] >= to_edges(whole)[:2] - 2).all() and (to_edges(part)[2:] <= to_edges(whole)[2:] + 2).all()


def test_fourteen_bits_show_the_same_scene_without_loss():
    scene = sim.random_scene(11, 6)
    raw = sim.render(dataclasses.replace(scene, sensor=dataclasses.replace(scene.sensor, bits=14)))
    shown = sim.render(scene)
    assert np.array_equal(raw.boxes_xywh, shown.boxes_xywh) and raw.attributes == shown.attributes
    assert all(f.dtype == np.uint16 and f.max() < 2 ** 14 for f in raw.frames)
    plain = dataclasses.replace(scene, sensor=dataclasses.replace(PLAIN, jpeg=95, headroom=0.5))
    screen, counts = (next(sim.film(dataclasses.replace(plain, sensor=dataclasses.replace(plain.sensor, bits=b))))[0] for b in (8, 14))
    order = np.argsort(counts, axis=None, kind="stable")
    assert (np.diff(screen.ravel()[order].astype(int)) >= -2).all(), "gain keeps the order; one count is up to two grey values"


def test_stuck_pixels_are_where_they_were():
    scene = sim.random_scene(3, 3, sensor=dataclasses.replace(PLAIN, dead=12, bits=14))
    clean = dataclasses.replace(scene, sensor=dataclasses.replace(scene.sensor, dead=0))
    odd = [np.abs(a.astype(int) - b) > 500 for a, b in zip(*([f for f, _ in sim.film(s)] for s in (scene, clean)))]
    assert 8 <= odd[0].sum() <= 12 and (odd[0] == odd[2]).all()


def test_a_pause_is_not_walked_through():
    "Who sits or crouches stands still."
    for seed in range(20):
        scene = sim.random_scene(seed, 80, target="person", agility=1.0, camera="static")
        target = sim.set_stage(scene).actors[0]
        low = np.array([max(p.sit, p.crouch) for p in target.poses])
        step = np.r_[0, np.hypot(*np.diff(target.feet, axis=0).T)]
        usual = np.max(step)
        assert (step[low > 0.55] <= 0.45 * usual + 1e-6).all()


def test_companions_stay_with_the_target():
    scene = sim.random_scene(21, 80, target="person", distractors=3, crossings=0, companions=3, kind="field")
    stage = sim.set_stage(scene)
    for other in stage.actors[1:4]:
        apart = np.abs(other.feet[:, 0] - stage.actors[0].feet[:, 0]) / stage.actors[0].scale[0]
        assert 0.1 < apart.min() and apart.max() < 2.6


def test_who_sits_is_lower_and_the_knee_is_level():
    stands, sits = (box_of(Body().figure(Pose(stride=0.03, sit=s))) for s in (0.0, 1.0))
    assert 0.6 * stands[3] < sits[3] < 0.85 * stands[3] and sits[2] > 1.5 * stands[2]


@pytest.mark.parametrize("name", sim.FAVOUR)
def test_a_scene_can_be_asked_for_an_attribute(name):
    scene = sim.scene_with([name], seed=77_000, frames=30)
    assert name in sim.render(scene).attributes


def test_two_attributes_at_once_and_what_cannot_be_had(tmp_path):
    assert {"occlusion", "fast motion"} <= sim.render(sim.scene_with(["occlusion", "fast motion"], 5, frames=40)).attributes
    with pytest.raises(UserError, match="none of 2 scenes of 1 frames has scale variation"):
        sim.scene_with(["scale variation"], 5, frames=1, tries=2)
    assert sim.simulate(tmp_path, 2, 30, seed=3, progress=False, attributes=["thermal crossover"]) == 2
    assert all("thermal crossover" in s.attributes for s in open_dataset(tmp_path))


def test_a_stored_scene_can_be_edited_and_filmed_again(tmp_path):
    scene = sim.random_scene(8, 4)
    assert [sim.film_scene(tmp_path / "a", scene) for _ in range(2)] == [1, 0]
    path = tmp_path / "a" / "scene" / "scene.yaml"
    assert sim.read_scene(path) == scene
    edited = tmp_path / "edited.yaml"
    edited.write_text(path.read_text().replace(f"white_hot: {str(scene.sensor.white_hot).lower()}", f"white_hot: {str(not scene.sensor.white_hot).lower()}"))
    assert sim.film_scene(tmp_path / "b", sim.read_scene(edited)) == 1
    boxes = [(tmp_path / name / "scene" / "groundtruth.txt").read_text() for name in "ab"]
    frames = [cv2.imread(str(tmp_path / name / "scene" / "img" / "0001.jpg"), 0).astype(float) for name in "ab"]
    assert boxes[0] == boxes[1] and np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1] < -0.9


@pytest.mark.parametrize("name", ["blur_px", "exposure", "netd", "fixed", "rows", "dead", "vignette", "low_res", "sharpen", "plateau",
                                  "gamma", "low_pct", "high_pct", "headroom", "drift", "jumps", "jpeg", "overlay"])
def test_what_is_allowed_can_be_filmed(name):
    for value in scenes.LIMITS[f"sensor.{name}"]:
        sensor = dataclasses.replace(PLAIN, **{name: value})
        frame, _ = next(sim.film(sim.random_scene(4, 2, (96, 128), sensor=sensor)))
        assert frame.shape == (96, 128) and frame.dtype == np.uint8


def test_a_world_too_large_to_paint_is_refused():
    scene = sim.random_scene(2, 3000, kind="aerial", camera="pan", speed_mps=50.0, target_px=200.0)
    with pytest.raises(UserError, match="the camera would sweep over"): sim.set_stage(scene)


def test_traffic_is_no_distractor():
    "Of the actors, those of the target's kind are counted; a vehicle that passes is not."
    for seed in range(200):
        scene = sim.random_scene(seed, 4, kind="street", target="person")
        stage = sim.set_stage(scene)
        looks = [type(actor.look).__name__ for actor in stage.actors]
        assert all(look == "Body" for look in looks[:1 + stage.distractors]) and all(look == "Vehicle" for look in looks[1 + stage.distractors:])
        if "Vehicle" in looks: break
    assert "Vehicle" in looks and len(sim.shoot(scene, stage, 1)[1].boxes_xywh) == 1 + stage.distractors


@pytest.mark.parametrize("text, message", [
    ("seed: [", "is not YAML"), ("just words", "it must be a group of keys"), ("seed: 1\nfog: 2\n", "fog is unknown"),
    ("seed: 1\n", "frames is missing"),
])
def test_bad_scene_files_are_one_sentence(tmp_path, text, message):
    (tmp_path / "scene.yaml").write_text(text)
    with pytest.raises(UserError, match=message): sim.read_scene(tmp_path / "scene.yaml")
    with pytest.raises(UserError, match="cannot be read"): sim.read_scene(tmp_path / "none.yaml")


def test_gain_settles_between_its_percentiles():
    "Without swing, headroom and equalisation the median lies a little below middle grey and nothing wraps around."
    field = np.random.default_rng(0).normal(0, 3, (120, 160)).astype(np.float32)
    sensor = Sensor(drift=0.0, low_pct=1.0, high_pct=99.0)
    grey = Gain(sensor, 1, np.random.default_rng(0))(field)
    low, high = np.percentile(field, (1, 99))
    expected = np.clip(0.45 + (field - (low + 2 * np.median(field) + high) / 4) / (high - low), 0, 1) * 255
    assert np.abs(grey - expected).max() < 8 and abs(np.median(grey) - 0.45 * 255) < 4


def test_visible_share_is_lost_to_what_stands_before_the_target():
    scene = sim.random_scene(3, 2, kind="field", target="person", camera="static", sensor=PLAIN, distractors=0, crossings=0, occluders=0)
    stage = sim.set_stage(scene)
    target = stage.actors[0]
    twin = target._replace(depth=target.depth + 1)
    assert sim.shoot(scene, stage, 0)[1].visible > 0.97
    assert sim.shoot(scene, stage._replace(actors=[target, twin]), 0)[1].visible < 0.1
    assert sim.shoot(scene, stage._replace(actors=[target, target._replace(depth=target.depth - 1)]), 0)[1].visible > 0.97
    assert sim.shoot(scene, stage._replace(front=np.full_like(stage.front, 1e9)), 0)[1].visible < 0.01


def test_sensor_changes_the_picture_but_not_the_scene():
    scene = sim.random_scene(11, 6)
    hot, cold = (sim.render(dataclasses.replace(scene, sensor=dataclasses.replace(PLAIN, white_hot=w))) for w in (True, False))
    assert np.array_equal(hot.boxes_xywh, cold.boxes_xywh) and np.array_equal(hot.visible, cold.visible)
    assert all(np.abs(a.astype(int) + b - 255).max() <= 1 for a, b in zip(hot.frames, cold.frames))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes_whatever_the_number_of_jobs(tmp_path):
    for name, jobs in (("one", 1), ("two", 2)):
        assert sim.simulate(tmp_path / name, 3, 4, seed=5, jobs=jobs, progress=False) == 3
    assert files(tmp_path / "one") == files(tmp_path / "two")
    sim.simulate(tmp_path / "other", 3, 4, seed=6, progress=False)
    assert files(tmp_path / "one") != files(tmp_path / "other")


def test_only_what_is_missing_or_half_written_is_filmed(tmp_path):
    sim.simulate(tmp_path, 3, 4, seed=5, progress=False)
    whole, kept = files(tmp_path), (tmp_path / "train_0000" / "img" / "0001.jpg").stat().st_mtime_ns
    (tmp_path / "train_0001").rename(tmp_path / ".train_0001.partial")
    (tmp_path / ".train_0001.partial" / "img" / "0002.jpg").write_bytes(b"half")
    (tmp_path / "att" / "train_0002.txt").unlink()
    assert sim.simulate(tmp_path, 3, 4, seed=5, progress=False) == 2
    assert files(tmp_path) == whole and (tmp_path / "train_0000" / "img" / "0001.jpg").stat().st_mtime_ns == kept


@pytest.mark.parametrize("theirs", ["notes.md", "scene.yaml", "img/holiday.jpg"])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, theirs):
    mine = tmp_path / "train_0000" / theirs
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="not made here"): sim.simulate(tmp_path, 1, 4, seed=5, progress=False)
    with pytest.raises(UserError, match="not made here"): sim.film_scene(tmp_path, sim.random_scene(1, 3), "train_0000")
    assert mine.read_text() == "mine" and [p for p in tmp_path.rglob("*") if p.is_file()] == [mine]


def test_a_file_added_to_a_filmed_sequence_protects_it(tmp_path):
    sim.simulate(tmp_path, 1, 4, seed=5, progress=False)
    (tmp_path / "train_0000" / "notes.md").write_text("mine")
    assert sim.simulate(tmp_path, 1, 4, seed=5, progress=False) == 0
    with pytest.raises(UserError, match="not made here"): sim.simulate(tmp_path, 1, 5, seed=5, progress=False)
    assert (tmp_path / "train_0000" / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("spoil", [
    lambda place: (place / "img" / "0003.jpg").unlink(), lambda place: (place / "filmed.txt").write_text("of an older simulator"),
    lambda place: (place / "groundtruth.txt").unlink() or (place / "filmed.txt").write_text("0"),
])
def test_what_is_not_whole_is_filmed_again(tmp_path, spoil):
    sim.simulate(tmp_path, 1, 4, seed=5, progress=False)
    whole = files(tmp_path)
    spoil(tmp_path / "train_0000")
    assert sim.simulate(tmp_path, 1, 4, seed=5, progress=False) == 1 and files(tmp_path) == whole


def test_a_sequence_of_another_scene_is_filmed_anew(tmp_path):
    sim.simulate(tmp_path, 1, 4, seed=5, progress=False)
    assert sim.simulate(tmp_path, 1, 5, seed=5, progress=False) == 1
    assert len(open_dataset(tmp_path)[0]) == 5


def test_layout_is_that_of_the_benchmark(tmp_path):
    sim.simulate(tmp_path, 2, 3, seed=0, prefix="walk", progress=False)
    sequences = open_dataset(tmp_path)
    assert [s.name for s in sequences] == ["walk_0000", "walk_0001"]
    assert len((tmp_path / "att" / "walk_0000.txt").read_text().split(",")) == 12
    rendered = sim.render(sim.random_scene(0, 3))
    assert np.abs(sequences[0].boxes_xywh - rendered.boxes_xywh).max() <= 1e-4
    assert sequences[0].attributes == rendered.attributes
    for name in ("visible.txt", "visible_boxes.txt", "amodal_boxes.txt"):
        assert len((tmp_path / "walk_0000" / name).read_text().split()) == 3


@pytest.mark.parametrize("change, text", [
    (dict(sequences=0), "sequences is 0"), (dict(sequences=-2), "sequences is -2"), (dict(frames=0), "frames is 0"),
    (dict(frames=-1), "frames is -1"), (dict(jobs=0), "jobs is 0"), (dict(seed=-1), "seed is -1"), (dict(seed=10 ** 9), "seed is"),
])
def test_bad_numbers_are_named(tmp_path, change, text):
    with pytest.raises(UserError, match=text): sim.simulate(tmp_path / "out", **{**dict(sequences=1, frames=2, seed=0, progress=False), **change})
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="is a file"): sim.simulate(tmp_path / "out", 1, 2, seed=0, progress=False)
    assert (tmp_path / "out").read_text() == "mine"


def test_bad_scenes_are_named():
    for size in ((95, 320), (240,), (240, 5000)):
        with pytest.raises(UserError, match="frame size"): sim.check_scene(dataclasses.replace(sim.random_scene(0), size_hw=size))
    for name in scenes.LIMITS:
        for wrong in (float("nan"), -1e9, 1e30):
            scene, part = sim.random_scene(0), name.removeprefix("sensor.")
            change = {"sensor": dataclasses.replace(scene.sensor, **{part: wrong})} if part != name else {part: wrong}
            with pytest.raises(UserError, match=f"^{name} is .*: give "): sim.check_scene(dataclasses.replace(scene, **change))
    with pytest.raises(UserError, match="sensor.bits is 16"):
        sim.random_scene(0, sensor=dataclasses.replace(PLAIN, bits=16))
    for name in ("kind", "target", "camera"):
        with pytest.raises(UserError, match=f"{name} is 'moon'"): sim.random_scene(0, **{name: "moon"})


def test_odd_sizes_and_single_frames_can_be_filmed():
    for size, frames in (((96, 96), 1), ((480, 640), 1), ((200, 97), 2)):
        rendered = sim.render(sim.random_scene(17, frames, size))
        assert len(rendered.frames) == frames and rendered.frames[0].shape == size


def test_benchmark_is_complete_and_small():
    scenes, sequences = simtir.simtir_scenes(), open_dataset(SAMPLES)
    assert {s.name for s in sequences} == set(scenes) and len(sequences) >= 16
    assert all(len(s) >= 84 and s.frame(0).shape == (240, 320) and s.frame(0).dtype == np.uint8 for s in sequences)
    assert sum(p.stat().st_size for p in SAMPLES.rglob("*") if p.is_file()) <= 12e6
    counts = {name: sum(name in s.attributes for s in sequences) for name in ATTRIBUTES["simtir"]}
    assert min(counts.values()) >= 2, counts


def test_benchmark_seeds_are_never_training_seeds():
    assert min(scene.seed for scene in simtir.simtir_scenes().values()) >= (10 ** 9 - 1) * 10 ** 6 + 10 ** 6


def leaves(value, name=""):
    "The numbers and texts of a nested record, by name."
    if dataclasses.is_dataclass(value): value = dataclasses.asdict(value)
    if isinstance(value, (list, tuple)): value = dict(enumerate(value))
    if not isinstance(value, dict): return {name: value}
    return {k: v for key, part in value.items() for k, v in leaves(part, f"{name}.{key}").items()}


def test_stored_scenes_are_those_of_the_list():
    "Up to the last digits: exp and pow of other vector instructions round otherwise."
    for name, scene in simtir.simtir_scenes().items():
        stored, drawn = leaves(sim.read_scene(SAMPLES / name / "scene.yaml")), leaves(scene)
        assert stored.keys() == drawn.keys()
        for key, value in drawn.items():
            assert stored[key] == value or isinstance(value, float) and stored[key] == pytest.approx(value, rel=1e-11), (name, key)


@pytest.mark.parametrize("number", [0, 11])
def test_benchmark_can_be_filmed_again(number):
    name, scene = list(simtir.simtir_scenes().items())[number]
    stored = next(s for s in open_dataset(SAMPLES) if s.name == name)
    rendered = sim.render(scene)
    assert np.abs(stored.boxes_xywh - rendered.boxes_xywh).max() <= 1e-4
    assert stored.attributes == rendered.attributes
    for t in (0, len(stored) // 2, len(stored) - 1):
        assert np.abs(stored.frame(t).astype(int) - rendered.frames[t]).mean() < 6
        assert abs(stored.frame(t).mean() - rendered.frames[t].mean()) < 1
