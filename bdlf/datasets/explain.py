"""Says in words what is evaluated on a dataset. It needs no data: all of it stands in the dataset's own file."""

from __future__ import annotations

import textwrap

from bdlf.datasets import DATASETS
from bdlf.datasets.choices import OPTIONS, Asked, Choice, choices
from bdlf.datasets.description import MODALITIES, Dataset
from bdlf.datasets.protocol import Gallery, Rule

_WIDTH = 110
_INDENT = 11


def explain(dataset: str, asked: Asked) -> str:
    """Lines of text that say what is evaluated on a dataset if `asked` is asked for.

    The text names, for each setting that is scored, the queries and the gallery with their published numbers; then how
    galleries are drawn and in how many trials, what a query does not see, what CMC ranks, what the figures are, and
    where the protocol comes from.

    Raises InputError on an unknown dataset, and on what the dataset's protocol does not define.
    """
    chosen = choices(dataset, asked)
    described = DATASETS[dataset]
    protocol, first = described.protocol, chosen[0]
    drawing = protocol.galleries[first.gallery]
    parts = [("Dataset", _about(described))]
    parts += [("Setting", _setting(described, choice)) for choice in chosen]
    parts.append(("Trials", _trials(drawing)))
    if first.reading is not None:
        parts.append(("Reading", f"{first.reading}: {protocol.readings[first.reading]}"))
    parts += [("Hidden", _hidden(protocol.rule)), ("CMC", _ranked(protocol.rule)), ("Figures", _figures(drawing))]
    if protocol.remark:
        parts.append(("Note", protocol.remark))
    parts += [("Source", f"{protocol.source}."), ("Options", _options(described))]
    return "\n".join(_paragraph(heading, text) for heading, text in parts)


def _about(dataset: Dataset) -> str:
    title = f"{dataset.title} ({dataset.paper})."
    if dataset.published is None:
        return title
    held = [
        f"{split} {size.identities} identities in {size.images:,} images"
        for split in dataset.splits
        if (size := dataset.published.sizes.get((split, None, None))) is not None
    ]
    return f"{title} As published: {', '.join(held)}."


def _setting(dataset: Dataset, choice: Choice) -> str:
    queried, searched = choice.direction.split("_to_")
    protocol = dataset.protocol
    drawing = protocol.galleries[choice.gallery]
    cameras = protocol.modes[choice.mode] if choice.mode is not None else ()
    where = f" of cameras {', '.join(map(str, cameras))}" if cameras else ""
    queries, images = protocol.sizes.get(choice.name, (None, None))
    whole = f"all {MODALITIES[queried]} test images{_published(queries or _test_images(dataset, queried))}"
    if drawing.trials == 1:
        drawn = f"all {MODALITIES[searched]} test images{where}{_published(images)}"
    else:
        number = f"{choice.shots} image{'' if choice.shots == 1 else 's'}"
        drawn = f"{number} of each test identity and camera, of the {MODALITIES[searched]} images{where}"
        drawn += _published(images) if images is not None else " (their number is not published)"
    if (choice.reading, choice.direction) in protocol.drawn_queries:
        whole, drawn = drawn, whole
    return f"{choice.name}. Queries: {whole}. Gallery: {drawn}."


def _test_images(dataset: Dataset, modality: str) -> int | None:
    size = None if dataset.published is None else dataset.published.sizes.get(("test", modality, None))
    return None if size is None else size.images


def _published(count: int | None) -> str:
    return "" if count is None else f" ({count:,} as published)"


def _trials(drawing: Gallery) -> str:
    return f"{drawing.trials} for each setting. {drawing.how}"


def _hidden(rule: Rule) -> str:
    words = []
    for query, other in rule.hidden_cameras:
        words.append(f"A query of camera {query} does not see any gallery image of camera {other}, of any identity")
    if rule.hides_own_camera:
        words.append("A query does not see the gallery images of its own identity and its own camera number")
    if not words:
        return "Nothing: every query sees the whole gallery."
    reason = f" ({rule.reason})" if rule.reason else ""
    return f"{'. '.join(words)}{reason}. A query that is left without a match is in no figure."


def _ranked(rule: Rule) -> str:
    if rule.ranks == "identities":
        return "It ranks identities, each at the place of its most similar image."
    return "It ranks images."


def _figures(drawing: Gallery) -> str:
    spread = "" if drawing.trials == 1 else " Each is the mean over the trials, with their standard deviation (ddof 1)."
    return (
        "rank1, rank5, rank10 and rank20 are the shares of the queries whose first match is that early (CMC). mAP and "
        "mINP are means over the queries of the average precision and of (matches / rank of the last match), and rank "
        "images. All are in percent. The similarity is the dot product of L2-normalised features; equal similarities "
        f"rank in the order of the listing.{spread}"
    )


def _options(dataset: Dataset) -> str:
    words = []
    for option in OPTIONS:
        known = dataset.protocol.known(option)
        if len(known) > 1:
            words.append(f"evaluation.{option}={'|'.join(map(str, known))}")
    if not words:
        return "There is nothing to choose."
    every = "Of modes and directions, every one is scored unless one is named; of the rest, the first is the default."
    return f"{', '.join(words)}. {every}"


def _paragraph(heading: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=heading.ljust(_INDENT),
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
