"""Film a tracker at work: `python docs/make_gif.py docs/track.gif` makes the README's picture from an embedded sequence.

The model follows the target from the first box; each frame is drawn enlarged with the box, coloured by the tracker's
own state (held, uncertain, lost), and its confidence. Frames of one GIF share a palette of greys and a few colours.
"""
import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tirnas.core import root, use_threads
from tirnas.data.sequences import open_dataset
from tirnas.tracker import Tracker

COLOURS = {"held": (60, 220, 90), "uncertain": (255, 190, 40), "lost": (240, 60, 60)}


def draw(frame: np.ndarray, box_xywh, state: str, confidence: float, scale: float) -> np.ndarray:
    "A frame (H, W), 8 bit, as a picture (scale H, scale W, 3) with box, state and confidence."
    grey = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    x, y, w, h = (round(scale * v) for v in box_xywh)
    cv2.rectangle(picture, (x, y), (x + w, y + h), COLOURS[state], 2)
    cv2.rectangle(picture, (0, 0), (150, 22), (0, 0, 0), -1)
    cv2.putText(picture, f"{state} {confidence:.2f}", (8, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, COLOURS[state], 1, cv2.LINE_AA)
    return picture


def film(sequence, model: str, scale: float, step: int) -> list[np.ndarray]:
    "Pictures of every `step`-th frame of a sequence, followed by a model from its first box."
    tracker = Tracker.load(model)
    tracker.init(sequence.frame(0), sequence.boxes_xywh[0])
    pictures = [draw(sequence.frame(0), sequence.boxes_xywh[0], "held", 1.0, scale)]
    for t in range(1, len(sequence)):
        box_xywh, state = tracker.update(frame := sequence.frame(t))
        if t % step == 0: pictures.append(draw(frame, box_xywh, state.status, state.confidence, scale))
    return pictures


def palette() -> Image.Image:
    "20 greys and the colours of the states with their darker shades: noise in thermal frames needs no more, and packs well."
    greys = [(v, v, v) for v in np.linspace(0, 255, 20).astype(int)]
    shades = [tuple(int(f * v) for v in colour) for colour in COLOURS.values() for f in (0.4, 0.7, 1.0)]
    image = Image.new("P", (1, 1))
    image.putpalette([int(v) for colour in greys + shades for v in colour])
    return image


def main() -> None:
    "Read the options, film, write."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sequence", default="person_field_07", help="a sequence of samples/")
    parser.add_argument("--model", default="base")
    parser.add_argument("--scale", type=float, default=1.5, help="enlargement")
    parser.add_argument("--step", type=int, default=3, help="frames from one picture to the next")
    options = parser.parse_args()
    use_threads()
    (sequence,) = [s for s in open_dataset(root() / "samples") if s.name == options.sequence]
    frames = [Image.fromarray(p).quantize(palette=palette(), dither=Image.Dither.NONE) for p in film(sequence, options.model, options.scale, options.step)]
    frames[0].save(options.out, save_all=True, append_images=frames[1:], duration=40 * options.step, loop=0, optimize=False)
    print(f"{options.out}: {len(frames)} pictures, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__": main()
