"""tirnas.data.frames: every kind of image, file and source, and each way in which one can be broken."""
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.data.frames import (ARCHIVE_SUFFIXES, VideoFrame, frame_files, image_size, is_inside, is_pattern, open_source, read_frame,
                                read_image, refuse_archive, refuse_outside, to_8bit, to_gray, video_frames)


def noise(seed, hw=(48, 64), depth=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(depth).max, hw).astype(depth)


def save(path, frame):
    "Write an image under any name, also one that OpenCV's writer cannot spell."
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, frame)[1].tofile(path)
    return path


def video(path, frames, codec="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, frames[0].shape[::-1])
    for frame in frames: writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


@pytest.mark.parametrize("suffix, depth", ((".png", np.uint8), (".tif", np.uint8), (".bmp", np.uint8), (".png", np.uint16), (".tiff", np.uint16)))
def test_images_keep_their_values(tmp_path, suffix, depth):
    frame = noise(1, depth=depth)
    np.testing.assert_array_equal(read_image(save(tmp_path / f"frame{suffix}", frame)), frame)


def test_equal_channels_become_one(tmp_path):
    frame = noise(2)
    for channels in (3, 4):
        stored = save(tmp_path / "c.png", np.dstack([frame] * 3 + [np.full_like(frame, 9)] * (channels - 3)))
        np.testing.assert_array_equal(read_image(stored), frame)
    assert to_gray(frame[..., None]).shape == frame.shape


@pytest.mark.parametrize("suffix", (".jpg", ".png", ".tif", ".bmp"))
@pytest.mark.parametrize("hw", ((48, 64), (1, 1), (513, 7)))
@pytest.mark.parametrize("channels", (1, 3))
def test_size_from_the_header(tmp_path, suffix, hw, channels):
    frame = np.squeeze(np.zeros((*hw, channels), np.uint8), 2) if channels == 1 else np.zeros((*hw, channels), np.uint8)
    path = save(tmp_path / f"f{suffix}", frame)
    assert image_size(path) == hw == read_image(path).shape


def test_size_needs_no_pixels(tmp_path):
    path = save(tmp_path / "f.jpg", noise(3, (480, 640)))
    path.write_bytes(path.read_bytes()[:2000])
    assert image_size(path) == (480, 640)
    with pytest.raises(UserError, match="f.jpg cannot be read as an image"): read_image(path)


def test_size_of_a_progressive_jpeg_and_of_a_tall_bitmap(tmp_path):
    cv2.imwrite(str(tmp_path / "p.jpg"), noise(4, (33, 21)), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert image_size(tmp_path / "p.jpg") == (33, 21)
    flipped = bytearray(save(tmp_path / "f.bmp", noise(4, (33, 21))).read_bytes())
    flipped[22:26] = (-33).to_bytes(4, "little", signed=True)
    (tmp_path / "f.bmp").write_bytes(flipped)
    assert image_size(tmp_path / "f.bmp") == (33, 21)


@pytest.mark.parametrize("content", (b"", b"\xff\xd8\xff\xe0\x00", b"II*\x00\xff\xff\xff\x7f", b"BM", b"\x89PNG", b"no image"))
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "f.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(UserError, match="f.jpg cannot be read as an image") as caught: read(path)
        assert "\n" not in str(caught.value)


def test_a_truncated_jpeg_and_a_missing_file(tmp_path):
    path = save(tmp_path / "f.jpg", noise(5, (200, 200)))
    whole = path.read_bytes()
    for keep in (len(whole) - 1, len(whole) // 2, 30):
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match="f.jpg cannot be read as an image"): read_image(path)
    path.write_bytes(whole + b"\n some cameras add a trailer")
    assert read_image(path).shape == (200, 200)
    with pytest.raises(UserError, match="none.jpg cannot be read as an image .No such file"): read_image(tmp_path / "none.jpg")


def test_a_header_that_announces_a_gigapixel(tmp_path):
    whole = bytearray(save(tmp_path / "f.bmp", noise(5)).read_bytes())
    whole[18:26] = (100_000).to_bytes(4, "little") * 2
    (tmp_path / "f.bmp").write_bytes(whole)
    def chunk(kind, content): return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0))
    (tmp_path / "f.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    for name in ("f.bmp", "f.png"):
        with pytest.raises(UserError, match=f"{name} cannot be read as an image, as it announces 100000 x 100000 px: replace"): read_image(tmp_path / name)


def test_links_out_of_a_folder(tmp_path):
    save(tmp_path / "set" / "1.png", noise(1))
    save(tmp_path / "settled" / "2.png", noise(2))
    (tmp_path / "set" / "3.png").symlink_to(tmp_path / "set" / "1.png")
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    refuse_outside(tmp_path / "set", tmp_path / "set")
    refuse_outside(tmp_path / "alias" / "1.png", tmp_path / "set")
    assert is_inside(tmp_path / "set" / "1.png", tmp_path / "alias") and not is_inside(tmp_path / "settled", tmp_path / "set")
    (tmp_path / "set" / "2.png").symlink_to(tmp_path / "settled" / "2.png")
    for path in (tmp_path / "set", tmp_path / "set" / "2.png"):
        with pytest.raises(UserError, match="2.png is a link that leads out of the data folder .*: copy the file there"): refuse_outside(path, tmp_path / "set")


def test_float_images_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "f.tiff"), np.full((4, 5), 293.15, np.float32))
    with pytest.raises(UserError, match="f.tiff has values of type float32: convert it"): read_image(tmp_path / "f.tiff")


@pytest.mark.parametrize("name", [f"set{suffix}" for suffix in sorted(ARCHIVE_SUFFIXES)])
def test_archives_are_named_as_such(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"anything")
    for use in (refuse_archive, open_source, frame_files):
        with pytest.raises(UserError, match="is an archive: unpack it and give the folder"): use(path)


def test_a_renamed_archive(tmp_path):
    path = tmp_path / "0001.jpg"
    path.write_bytes(b"PK\x03\x04 rest")
    with pytest.raises(UserError, match="0001.jpg is an archive"): read_image(path)


def test_natural_order_and_strange_names(tmp_path):
    folder = tmp_path / "Wärme [2] straße 雪"
    names = [f"кадр {n}.PNG" for n in (1, 2, 9, 10, 100)]
    for value, name in enumerate(reversed(names)): save(folder / name, np.full((4, 5), value, np.uint8))
    (folder / "._кадр 1.PNG").write_bytes(b"resource fork")
    (folder / "Thumbs.db").write_bytes(b"x")
    assert [p.name for p in frame_files(folder)] == names
    assert [int(read_image(p)[0, 0]) for p in frame_files(folder)] == [4, 3, 2, 1, 0]
    assert not is_pattern(folder)
    stream, count = open_source(folder)
    assert count == len(list(stream)) == 5


def test_patterns(tmp_path):
    for n in (1, 2, 10): save(tmp_path / "clip" / f"ir_{n}.tiff", np.full((4, 5), n, np.uint16))
    save(tmp_path / "clip" / "rgb_1.png", noise(6))
    assert [p.name for p in frame_files(f"{tmp_path}/clip/ir_*")] == ["ir_1.tiff", "ir_2.tiff", "ir_10.tiff"]
    stream, count = open_source(f"{tmp_path}/clip/*.tiff")
    assert count == 3 and [int(f[0, 0]) for f in stream] == [1, 2, 10]
    with pytest.raises(UserError, match="holds no images"): frame_files(f"{tmp_path}/clip/*.bmp")


@pytest.mark.parametrize("codec, suffix", (("MJPG", ".avi"), ("mp4v", ".mp4")))
def test_random_access_gives_the_sequential_frames(tmp_path, codec, suffix):
    frames = [np.full((48, 64), 20, np.uint8) for _ in range(60)]
    for t, frame in enumerate(frames): frame[10:30, t:t + 4] = 220
    path = video(tmp_path / f"clip{suffix}", frames, codec)
    places = video_frames(path)
    ordered = [frame.copy() for frame in open_source(path)[0]]
    assert len(places) == len(ordered) == 60
    for t in np.random.default_rng(0).permutation(60): np.testing.assert_array_equal(read_frame(places[t]), ordered[t])


def test_threads_share_a_video(tmp_path):
    path = video(tmp_path / "clip.avi", [np.full((48, 64), 4 * t, np.uint8) for t in range(50)])
    wanted = np.random.default_rng(1).integers(0, 50, 200)
    with ThreadPoolExecutor(4) as pool: got = list(pool.map(lambda t: float(read_frame(VideoFrame(path, int(t))).mean()), wanted))
    assert threading.active_count() < 20 and np.abs(np.array(got) - 4 * wanted).max() < 2


def test_videos_that_changed_end_or_never_were(tmp_path):
    path = video(tmp_path / "clip.avi", [noise(t) for t in range(5)])
    with pytest.raises(UserError, match="clip.avi has no readable frame 7"): read_frame(VideoFrame(path, 7))
    video(path, [np.full((20, 30), 100, np.uint8)] * 3)
    assert read_frame(VideoFrame(path, 1)).shape == (20, 30)
    path.unlink()
    with pytest.raises(UserError, match="clip.avi does not exist"): read_frame(VideoFrame(path, 0))
    path.write_text("no video")
    with pytest.raises(UserError, match="cannot be opened as a video"): open_source(path)


def test_sources(tmp_path):
    single = save(tmp_path / "one.png", noise(7))
    stream, count = open_source(str(single))
    np.testing.assert_array_equal(next(iter(stream)), noise(7))
    assert count == 1
    with pytest.raises(UserError, match="does not exist: give a folder of images"): open_source(tmp_path / "missing.mp4")
    with pytest.raises(UserError, match="99 cannot be opened as a video: there is no such camera"): open_source("99")
    for name in ("²", "9" * 5000, "-1", "1²"):
        with pytest.raises(UserError, match="does not exist: give a folder of images, a video file or a camera number"): open_source(name)


def test_to_8bit():
    frame = np.array([[1000, 1100], [1200, 1300]], np.uint16)
    np.testing.assert_array_equal(to_8bit(frame, 0, 100), [[0, 85], [170, 255]])
    np.testing.assert_array_equal(to_8bit(np.full((2, 2), 7, np.uint16)), np.zeros((2, 2)))
    same = noise(8)
    assert to_8bit(same) is same
