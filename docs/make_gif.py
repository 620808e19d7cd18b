"""Film a tracker at work: `python docs/make_gif.py docs/track.gif` makes the README's picture from an embedded sequence.

The model follows the target from the first box; each frame is drawn as in a film of `tirnas track --video`. Frames of one GIF share a palette of greys and a few colours.
"""
import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from tirnas.canvas import COLOURS
from tirnas.core import root, use_threads
from tirnas.data.sequences import open_dataset
from tirnas.film import draw_track
from tirnas.tracker import Tracker


def film(sequence, model: str, step: int) -> list[np.ndarray]:
    "Pictures of every `step`-th frame of a sequence, followed by a model from its first box."
    tracker = Tracker.load(model)
    tracker.init(sequence.frame(0), sequence.boxes_xywh[0])
    pictures = [draw_track(sequence.frame(0), sequence.boxes_xywh[0], "given", None)]
    for t in range(1, len(sequence)):
        box_xywh, state = tracker.update(frame := sequence.frame(t))
        if t % step == 0: pictures.append(draw_track(frame, box_xywh, state.status, state.confidence))
    return [picture[..., ::-1] for picture in pictures]


def palette() -> Image.Image:
    "20 greys and the colours of the states with their darker shades: noise in thermal frames needs no more, and packs well."
    greys = [(v, v, v) for v in np.linspace(0, 255, 20).astype(int)]
    shades = [tuple(int(f * v) for v in colour[::-1]) for colour in COLOURS.values() for f in (0.5, 0.75, 1.0)]
    image = Image.new("P", (1, 1))
    image.putpalette([int(v) for colour in greys + shades for v in colour])
    return image


def main() -> None:
    "Read the options, film, write."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sequence", default="person_field_07", help="a sequence of samples/")
    parser.add_argument("--model", default="base")
    parser.add_argument("--step", type=int, default=3, help="frames from one picture to the next")
    options = parser.parse_args()
    use_threads()
    (sequence,) = [s for s in open_dataset(root() / "samples") if s.name == options.sequence]
    frames = [Image.fromarray(p).quantize(palette=palette(), dither=Image.Dither.NONE) for p in film(sequence, options.model, options.step)]
    frames[0].save(options.out, save_all=True, append_images=frames[1:], duration=40 * options.step, loop=0, optimize=False)
    print(f"{options.out}: {len(frames)} pictures, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__": main()
