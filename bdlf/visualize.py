"""Draw figures of a run: heatmaps, rankings, embeddings, distances, a batch and the terms, and a page that shows all.

Each figure is written as PNG and SVG. `index.html` shows all figures and needs no other file; `figures.json` has their
numbers. They go to `figures` in the run folder, or to `output=`.

Examples
  python -m bdlf.visualize run=outputs/synthetic/full-1a2b3c4d/seed0
  python -m bdlf.visualize run=outputs/synthetic/full-1a2b3c4d/seed0 what=attention,ranking map=norm pids=5001,5002
  python -m bdlf.visualize 'runs=outputs/synthetic/*/seed0' output=compared
  python -m bdlf.visualize features=theirs.npz dataset=sysu dataset.root=data/SYSU-MM01 width=85
"""

from __future__ import annotations

import logging
from functools import partial
from typing import IO, TYPE_CHECKING

from bdlf.commandline.command import run_command
from bdlf.commandline.jobs import DONE, WRONG_INPUT
from bdlf.config import VisualizeConfig
from bdlf.system.errors import InputError, check_choice
from bdlf.system.memory import load

if TYPE_CHECKING:
    from bdlf.inside.drawings import Drawing
    from bdlf.inside.material import Material

log = logging.getLogger("bdlf")

WHAT = ("attention", "ranking", "embedding", "distances", "batch", "terms")
"""The figures, in the order of the page."""
OF_FEATURES = ("ranking", "embedding", "distances")
"""The figures that a file of features suffices for."""


def visualize(config: VisualizeConfig) -> int:
    """Run the command. The exit code is 2 if a figure that was asked for could not be drawn."""
    from bdlf.runs.logs import show_on_screen

    show_on_screen()
    asked = _asked(config)
    load("bdlf.inside.drawings")
    from bdlf.inside.drawings import draw
    from bdlf.inside.material import Material
    from bdlf.system.device import configure_process

    configure_process(devices=config.devices, threads=config.threads)
    material = Material(config)
    output = material.output
    drawings: list[Drawing] = []
    left_out: dict[str, str] = {}
    log.setLevel(logging.WARNING)  # the store tells of each figure anew where it keeps the images
    for name in asked:
        try:
            drawings.append(draw(name, material))
        except InputError as error:
            left_out[name] = str(error)
    log.setLevel(logging.INFO)
    if not drawings:
        raise InputError("; ".join(dict.fromkeys(left_out.values())))
    for reason in dict.fromkeys(left_out.values()):
        names = [name for name, why in left_out.items() if why == reason]
        log.warning("%s left out: %s", ", ".join(names), reason)
    _write(material, drawings, left_out)
    log.info("%s written to %s; open %s", ", ".join(one.name for one in drawings), output, output / "index.html")
    return WRONG_INPUT if left_out else DONE


def _asked(config: VisualizeConfig) -> list[str]:
    """The names of the figures to draw. Raises InputError for one that does not exist or cannot go with the source."""
    if config.run is None and config.features is None and config.runs is None:
        raise InputError("one of run=FOLDER, runs=FOLDERS and features=FILE.npz is needed; none is given")
    if config.features is not None and (config.run is not None or config.runs is not None):
        raise InputError("features= does not go with run= or runs=; draw them one after the other")
    check_choice("width", config.width, (170, 85))
    check_choice("method", config.method, ("tsne", "pca"))
    check_choice("map", config.map, ("gradient", "norm"))
    possible = WHAT if config.run is not None else OF_FEATURES if config.features is not None else ("terms",)
    if config.what is None:
        return list(possible)
    names = [config.what] if isinstance(config.what, str) else list(config.what)
    for name in names:
        check_choice("what", name, WHAT)
        if name not in possible:
            source = "features=" if config.features is not None else "runs="
            raise InputError(f"what={name} is not drawn of {source}, which suffices for {', '.join(possible)}")
    return [name for name in WHAT if name in names]


def _write(material: Material, drawings: list[Drawing], left_out: dict[str, str]) -> None:
    from bdlf.inside.page import page
    from bdlf.inside.style import picture
    from bdlf.system.files import write_atomically, write_json, write_text

    pictures = {}
    for one in drawings:
        for form in ("png", "svg"):
            content = picture(one.figure, form)
            write_atomically(material.output / f"{one.name}.{form}", partial(_give, content))
            if form == "png":
                pictures[one.name] = content
    told = {one.name: {"title": one.title, "caption": one.caption, "numbers": one.numbers} for one in drawings}
    write_json(material.output / "figures.json", {"figures": told, "left_out": left_out})
    write_text(material.output / "index.html", page(f"Figures of {material.title}", drawings, pictures, left_out))


def _give(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def main() -> None:
    """The command."""
    run_command("visualize", VisualizeConfig, visualize, __doc__ or "", folder="on_disk")


if __name__ == "__main__":
    main()
