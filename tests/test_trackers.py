"""tirnas.trackers: words that name trackers, and every way in which a stranger's code can be none."""
import sys

import numpy as np
import pytest

from tirnas.core import TrackState, UserError
from tirnas.trackers import Contender, box_of, confidence_of, device_of, make_tracker, source_digest

BODY = """
    def init(self, frame, box): pass
    def update(self, frame): return [1, 2, 3, 4]
"""


@pytest.mark.parametrize("code, said", [
    ("class Mine(:", "cannot be imported (SyntaxError"),
    ("import no_such_package", "cannot be imported (ModuleNotFoundError: No module named 'no_such_package')"),
    ("1 / 0", "cannot be imported (ZeroDivisionError"),
    ("Mine = 3", "has no class or function 'Mine'"),
    ("class Mine:\n    def update(self, frame): pass", "has no method init(frame, box_xywh)"),
    ("class Mine:\n    init = 3\n    def update(self, frame): pass", "has no method init(frame, box_xywh)"),
    ("class Mine:\n    def __init__(self, path): pass" + BODY, "cannot be built (TypeError"),
    ("def Mine(): return None", "has no method init(frame, box_xywh)"),
])
def test_what_is_no_tracker(tmp_path, code, said):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError) as caught: make_tracker(f"{tmp_path / 'mine.py'}:Mine")
    assert said in str(caught.value) and "mine.py" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_finds_its_neighbours_and_itself(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("SIZE = 5")
    (tmp_path / "mine.py").write_text("import dataclasses\nfrom neighbour_of_mine import SIZE\n@dataclasses.dataclass\nclass Mine:\n"
                                      "    size: int = SIZE" + BODY)
    assert make_tracker(f"{tmp_path / 'mine.py'}:Mine").size == 5


def test_a_function_or_a_path_with_a_colon_may_name_one(tmp_path):
    home = tmp_path / "a:b"
    home.mkdir()
    (home / "mine.py").write_text("class Mine:" + BODY + "def make(): return Mine()")
    who = Contender.of(f"{home / 'mine.py'}:make")
    assert who.label == "make" and make_tracker(who).update(None) == [1, 2, 3, 4] and len(source_digest(who)) == 64


@pytest.mark.parametrize("label", ("", ".", "..", "a/b"))
def test_labels_are_folders(label):
    with pytest.raises(UserError, match="cannot be the name of a folder"): Contender.of("csrt", label)


@pytest.mark.parametrize("answer", ([1, 2, 3, 4], (1, 2, 3, 4), np.arange(1, 5), np.array([[1, 2, 3, 4]]), ([1, 2, 3, 4], None),
                                    (np.arange(1, 5.0), TrackState(0.5, "held"))))
def test_boxes_in_many_forms(answer):
    assert box_of(answer).tolist() == [1, 2, 3, 4] and box_of(answer).dtype == np.float64


@pytest.mark.parametrize("answer", (None, 3, "box", [1, 2, 3], [1, 2, 3, 4, 5], (True, [1, 2, 3, 4]), {}, [[1, 2], [3]]))
def test_what_is_no_box(answer):
    with pytest.raises(UserError, match="update returned .*: return x,y,w,h in pixels"): box_of(answer)


def test_confidence_where_there_is_one():
    assert confidence_of(([1, 2, 3, 4], TrackState(0.25, "held"))) == 0.25
    assert confidence_of(([1, 2, 3, 4], None)) is confidence_of([1, 2, 3, 4]) is None


def test_a_failed_import_leaves_no_module(tmp_path):
    (tmp_path / "broken_one.py").write_text("1 / 0")
    with pytest.raises(UserError): make_tracker(f"{tmp_path / 'broken_one.py'}:Mine")
    assert "tracker_broken_one" not in sys.modules


@pytest.mark.parametrize("label", ("a\nb", "a\x1b[31mb", "a\x00b", "a\tb"))
def test_labels_have_no_control_characters(label):
    with pytest.raises(UserError, match="cannot be the name of a folder"): Contender.of("csrt", label)


def test_devices_are_checked_and_resolved(tmp_path):
    (tmp_path / "mine.py").write_text("class Mine:" + BODY)
    for word in ("kcf", f"{tmp_path / 'mine.py'}:Mine", "mini"):
        with pytest.raises(UserError, match="device 'foo' cannot be used here"): make_tracker(Contender.of(word, "x", "foo"))
    assert device_of(Contender.of("kcf", device="auto")) == "cpu" and device_of(Contender.of(f"{tmp_path / 'mine.py'}:Mine")) is None
    assert device_of(Contender.of("mini", device="auto")) in ("cpu", "cuda")


@pytest.mark.parametrize("code", ("raise SystemExit(0)", "class Mine:\n    def __init__(self): raise SystemExit('bye')" + BODY))
def test_code_that_exits_is_a_sentence(tmp_path, code):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match="cannot be .* .SystemExit"): make_tracker(f"{tmp_path / 'mine.py'}:Mine")
