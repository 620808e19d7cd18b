"The index: any mixture of layouts trains, wrong boxes are left out with file and line, and the repository can be moved."
import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.data.crops import Augmentation
from tirnas.data.episodes import EpisodeSampler, EpisodeSettings, split_halves
from tirnas.data.prepare import PrepareParams, load_index, prepare
from tirnas.data.sequences import write_sequence
from tirnas.data.synthetic import simulate

RENDER = PrepareParams(train_roots=(), sequences=2, frames=5, seed=3)


@pytest.fixture
def home(tmp_path):
    simulate(tmp_path / "data", 1, 4, seed=9, prefix="test", progress=False)
    return tmp_path


def frames(number, size=(60, 80)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, size).astype(np.uint8) for _ in range(number)]


def write_coco(folder):
    (folder / "data").mkdir(parents=True)
    for number, frame in enumerate(frames(3)): cv2.imwrite(str(folder / "data" / f"thermal {number}.png"), frame)
    boxes = [(0, [5, 6, 20, 30]), (0, [40, 6, 20, 30]), (1, [10, 10, 12, 24]), (2, [-50, 10, 12, 24])]
    (folder / "coco.json").write_text(json.dumps({
        "images": [{"id": n, "file_name": f"data/thermal {n}.png", "width": 80, "height": 60} for n in range(3)],
        "annotations": [{"id": i, "image_id": n, "bbox": box, "category_id": 1, "iscrowd": 0} for i, (n, box) in enumerate(boxes)],
        "categories": [{"id": 1, "name": "person"}]}))


def test_stills_videos_and_rendered_scenes_train_together(home):
    write_coco(home / "stills")
    write_sequence(home / "videos" / "spazierg\u00e4nger 1", frames(6), np.tile([10.0, 10, 20, 30], (6, 1)))
    with pytest.warns(UserWarning): prepare(dataclasses.replace(RENDER, train_roots=("stills", "videos")), home / "data", home / "prepared")
    train = load_index(home / "prepared", "train")
    assert [len(s) for s in train].count(1) >= 3 and {"train_0000", "train_0001", "spazierg\u00e4nger 1"} <= {s.name for s in train}
    settings = EpisodeSettings(num_pedestrians=3, num_frames=4, crop_px=48, search_factor=4.0, max_gap=5, center_jitter=1.0,
                               scale_jitter=0.2, with_replacement=False, still_share=0.5)
    sampler, seen = EpisodeSampler(train, settings, Augmentation(), seed=0), set()
    for step in range(30):
        batch = sampler(step)
        assert batch.images.shape == (3, 4, 1, 48, 48) and np.isfinite(batch.images).all() and (batch.boxes_xywh[..., 2:] > 0).all()
        seen |= set(batch.names)
    assert {"thermal 0_0", "thermal 0_1", "thermal 1_0", "train_0000", "spazierg\u00e4nger 1"} <= seen and "thermal 2_0" not in seen


def test_wrong_boxes_are_left_out_of_training_and_kept_in_tests(home):
    boxes = np.tile([10.0, 10, 20, 30], (6, 1))
    boxes[1], boxes[2], boxes[4] = (200, 10, 20, 30), (0, 0, 0, 0), (10, 10, 0, 30)
    for side in ("mine", "tests"): write_sequence(home / side / f"walk {side}", frames(6), boxes)
    with pytest.warns(UserWarning, match=r"walk mine/groundtruth.txt:2: the box 201,11,20,30 .*80 x 60 px \(2 such"):
        prepare(dataclasses.replace(RENDER, train_roots=("mine",), sequences=0), home / "tests", home / "prepared")
    (train,), (test,) = (load_index(home / "prepared", part) for part in ("train", "test"))
    assert np.isnan(train.boxes_xywh).all(1).tolist() == [False, True, False, False, True, False]
    assert np.array_equal(test.boxes_xywh, boxes) and (train.boxes_xywh[2] == 0).all()


def test_the_repository_can_be_moved(home, tmp_path):
    (home / "repo").mkdir()
    shutil.move(home / "data", home / "repo" / "data")
    prepare(RENDER, home / "repo" / "data", home / "repo" / "prepared")
    before = [s.frame(0) for part in ("train", "test") for s in load_index(home / "repo" / "prepared", part)]
    shutil.move(home / "repo", home / "elsewhere")
    after = [s.frame(0) for part in ("train", "test") for s in load_index(home / "elsewhere" / "prepared", part)]
    assert len(before) == 3 and all(np.array_equal(a, b) for a, b in zip(before, after))
    assert str(tmp_path) not in (home / "elsewhere" / "prepared" / "index.json").read_text()


def test_data_outside_the_repository_is_named_by_its_full_path(home, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    write_sequence(away / "walk", frames(4), np.tile([10.0, 10, 20, 30], (4, 1)))
    before = sorted(p.relative_to(away) for p in away.rglob("*"))
    prepare(dataclasses.replace(RENDER, train_roots=(str(away),), sequences=0), home / "data", home / "prepared")
    (train,) = load_index(home / "prepared", "train")
    assert str(train.frame_paths[0]).startswith(str(away)) and sorted(p.relative_to(away) for p in away.rglob("*")) == before


def test_names_tell_targets_of_several_sets_apart(home):
    good = np.tile([10.0, 10, 20, 30], (4, 1))
    for root in ("a", "b", "c/a"):
        for name in ("s1", "s2"): write_sequence(home / root / name, frames(4), good)
    write_sequence(home / "b" / "a_s1", frames(4), good)
    write_sequence(home / "b" / "train_0000", frames(4), good)
    prepare(dataclasses.replace(RENDER, train_roots=("a", "b", "c/a")), home / "data", home / "prepared")
    train = load_index(home / "prepared", "train")
    names = [s.name for s in train]
    assert len(names) == len(set(names)) == 10 and {"a_s1", "b_s1", "a_s1_2", "b_train_0000", "rendered_train_0000", "train_0001"} <= set(names)
    weight, arch = split_halves(train, 0)
    assert len(weight) + len(arch) == 10 and not {s.place.frames for s in weight} & {s.place.frames for s in arch}


def test_sequences_that_cannot_train_are_left_out(home):
    good = np.tile([10.0, 10, 20, 30], (4, 1))
    for name in ("fine", "empty", "absent", "broken"): write_sequence(home / "mine" / name, frames(4), good if name != "absent" else 0 * good)
    (home / "mine" / "empty" / "groundtruth.txt").write_text("")
    (home / "mine" / "broken" / "img" / "0001.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="is not trained on") as caught:
        prepare(dataclasses.replace(RENDER, train_roots=("mine",), sequences=0), home / "data", home / "prepared")
    assert [s.name for s in load_index(home / "prepared", "train")] == ["fine"]
    assert all(any(name in str(w.message) for w in caught) for name in ("empty", "absent", "broken"))
    (home / "mine" / "fine" / "groundtruth.txt").write_text("0,0,0,0\n" * 4)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="no training sequence has a frame with a usable box"):
        prepare(dataclasses.replace(RENDER, train_roots=("mine",), sequences=0), home / "data", home / "prepared")


def test_only_as_many_rendered_ones_as_asked_for(home):
    for number in (3, 1):
        prepare(dataclasses.replace(RENDER, sequences=number), home / "data", home / "prepared")
        assert len(load_index(home / "prepared", "train")) == number


def test_annotations_that_shrank_after_the_index_was_made(home):
    boxes = np.tile([10.0, 10, 20, 30], (6, 1))
    boxes[5] = (300, 10, 20, 30)
    write_sequence(home / "mine" / "walk", frames(6), boxes)
    with pytest.warns(UserWarning): prepare(dataclasses.replace(RENDER, train_roots=("mine",), sequences=0), home / "data", home / "prepared")
    (home / "mine" / "walk" / "groundtruth.txt").write_text("11,11,20,30\n" * 3)
    with pytest.warns(UserWarning, match="6 frames but 3 boxes"): assert len(load_index(home / "prepared", "train")[0]) == 3


@pytest.mark.parametrize("change, said", [
    (dict(sequences=0), "nothing to train on"), (dict(sequences=-1), "prepare.sequences is -1"), (dict(frames=0), "frames is 0"),
    (dict(train_roots=("none",)), "none does not exist"), (dict(train_roots=("data",)), "would both train and test"),
])
def test_bad_parameters_are_one_sentence(home, change, said):
    with pytest.raises(UserError, match=said): prepare(dataclasses.replace(RENDER, **change), home / "data", home / "prepared")
    assert not (home / "prepared" / "index.json").exists()


def test_frames_of_several_sizes_and_sixteen_bits_train(home):
    folder = write_sequence(home / "mine" / "walk", frames(4), np.tile([10.0, 10, 20, 30], (4, 1)))
    deep = (frames(1, (90, 120))[0].astype(np.uint16) << 5) + 7000
    cv2.imwrite(str(folder / "img" / "0004.png"), deep)
    (folder / "img" / "0004.jpg").unlink()
    prepare(dataclasses.replace(RENDER, train_roots=("mine",), sequences=0), home / "data", home / "prepared")
    (train,) = load_index(home / "prepared", "train")
    assert train.frame(3).dtype == np.uint16 and train.frame(3).shape == (90, 120) and train.frame(0).dtype == np.uint8
