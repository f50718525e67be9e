from __future__ import annotations

import json
import shutil

import pytest

from bdlf.data import listing
from bdlf.datasets import DATASETS
from bdlf.datasets.checking.published import compare, published, quick_findings, sizes_of
from bdlf.datasets.description import Published, Size
from bdlf.system.errors import InputError


def images(name: str, split: str, modality: str | None) -> int:
    return DATASETS[name].published.sizes[split, modality, None].images


def test_sums_are_those_that_the_papers_give():
    sysu = DATASETS["sysu"].published.sizes
    assert sum(size.identities for (_, modality, _), size in sysu.items() if modality is None) == 491
    assert [sum(images("sysu", split, kind) for split in ("train", "val")) for kind in ("vis", "ir")] == [22258, 11909]
    assert (images("sysu", "test", "vis"), images("sysu", "test", "ir")) == (6775, 3803)
    of_unlisted = 1118
    assert sum(images("sysu", split, None) for split in ("train", "val", "test")) + of_unlisted == 45863
    assert {images("regdb", half, kind) for half in ("train", "test") for kind in ("vis", "ir")} == {2060}
    llcm = DATASETS["llcm"].published.sizes
    assert sum(llcm[split, None, None].images for split in ("train", "test")) == 46767
    assert sum(llcm[split, None, None].identities for split in ("train", "test")) == 1064
    for split in ("train", "test"):
        assert sum(images("llcm", split, kind) for kind in ("vis", "ir")) == images("llcm", split, None)


def test_queries_are_the_published_test_images():
    for name, dataset in DATASETS.items():
        for protocol, (queries, _) in dataset.protocol.sizes.items():
            assert queries == images(name, "test", protocol.split("_to_")[0])
    assert [len(dataset.protocol.sizes) for dataset in DATASETS.values()] == [6, 2, 2, 0]


def test_sizes_of_each_split_modality_and_camera(sysu_root):
    sizes = sizes_of(listing("sysu", sysu_root))
    assert sizes["train", None, None] == (2, 18) and sizes["train", "ir", None] == (2, 6)
    assert sizes["train", "ir", 3] == (2, 4) and sizes["train", "vis", 4] == (2, 4)
    assert sizes["test", "vis", 1] == (1, 2) and ("test", "vis", 3) not in sizes


def test_the_finest_difference_is_named_and_its_sums_are_not():
    want = {("train", None, None): Size(2, 9), ("train", "vis", None): Size(None, 6), ("train", "vis", 1): Size(2, 4)}
    expected = Published("a paper", want)
    assert compare(dict(want), expected) == []
    (one,) = compare({**want, ("train", "vis", 1): Size(2, 3), ("train", "vis", None): Size(2, 5)}, expected)
    assert one.kind == "too few images" and one.where == "train visible camera 1"
    assert one.message == "train visible camera 1: 3 images on disk, 4 in a paper: 1 missing"
    (one,) = compare({**want, ("train", "vis", None): Size(2, 8)}, expected, label="split 3: ")
    assert one.kind == "too many images" and one.where == "split 3: train visible"
    assert [found.kind for found in compare({**want, ("train", None, None): Size(3, 9)}, expected)] == [
        "too many identities"
    ]
    assert [found.where for found in compare({**want, ("train", "vis", 7): Size(1, 1)}, expected)] == [
        *("train visible camera 7",) * 2
    ]


def test_a_tree_of_ours_is_compared_with_its_record(written_tree):
    tree = written_tree("sysu")
    whole = listing("sysu", tree.root)
    assert quick_findings(whole, tree.root, "sysu") == []
    test = listing("sysu", tree.root, splits=("test",))
    assert quick_findings(test, tree.root, "sysu") == []
    (line,) = quick_findings(whole.drop(index=whole.index[whole["split"] == "val"][0]), tree.root, "sysu")
    assert ": 1 missing" in line and line.startswith("val infrared camera 3")
    drawn = listing("synthetic", None, synthetic={"train_identities": 3, "test_identities": 2})
    assert quick_findings(drawn, None, "synthetic") == []


def test_other_records_are_refused_with_the_remedy(written_tree):
    tree = written_tree("llcm")
    with pytest.raises(InputError, match="layout llcm: set dataset=llcm"):
        published("sysu", tree.root)
    record = json.loads((tree / "synthetic.json").read_text())
    tree.put("synthetic.json", json.dumps(record | {"schema": 1}))
    with pytest.raises(InputError, match=r"schema 1, here 2\): write the tree again"):
        published("llcm", tree.root)
    tree.put("synthetic.json", "[]")
    assert len(quick_findings(listing("llcm", tree.root), tree.root, "llcm")) == 1


@pytest.mark.parametrize("layout", ["sysu", "regdb", "llcm"])
def test_only_the_asked_splits_are_read(written_tree, layout):
    tree = written_tree(layout)
    whole = listing(layout, tree.root)
    if layout == "sysu":
        (tree / "exp/train_id.txt").unlink()
        (tree / "exp/val_id.txt").unlink()
    else:
        for path in (tree / "idx").glob("train_*"):
            path.unlink()
    if layout == "llcm":
        shutil.rmtree(tree / "vis")
        shutil.rmtree(tree / "nir")
    test = listing(layout, tree.root, splits=("test",))
    assert list(test["path"]) == list(whole["path"][whole["split"] == "test"])
    with pytest.raises(InputError):
        listing(layout, tree.root)
    with pytest.raises(InputError, match=f"{layout} has no split 'query': choose of .*train"):
        listing(layout, tree.root, splits=("query", "test"))
