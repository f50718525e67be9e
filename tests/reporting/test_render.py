"""Blocks as text: what is shown, what is bold, how wide it is, and that each format holds any name."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from bdlf.reporting.block import Block
from bdlf.reporting.columns import cells, notes, sections
from bdlf.reporting.fitting import Legend, packed
from bdlf.reporting.render import FORMATS, rendered

HOSTILE = [
    "lr|sweep & 100% #1 of $x_i$ {y} ~ ^ \\ <b>*bold*</b> [a](b) `code`",
    "[20, 95]",
    "*",
    "a--b __init__ &lt; \"quoted\" 'x'",
    "naïve ± α × ✓ …",
]


def line(row: str, mean: float, apart: float | None = None, p: float = 1.0, **more) -> dict:
    """A row whose figures are `mean`, `mean` + 1 and `mean` + 2; `apart` is its difference to the reference row."""
    found = {"row": row, "runs": "3 of 3"}
    for place, figure in enumerate(("rank1", "mAP", "mINP")):
        found |= {figure: mean + place, f"{figure}_std": 1.5}
        if apart is not None and figure != "mINP":
            found |= {f"{figure}_difference": apart, f"{figure}_low": apart - 5, f"{figure}_high": apart + 7}
            found |= {f"{figure}_p": p}
    return found | more


COSTS = {"train_seconds": 1234.4, "images_per_second": 812.3, "peak_memory_gib": 11.257, "parameters": 30_260_000,
         "train_gflops": 9.204, "inference_gflops": 8.1}  # fmt: skip
PRINTED = {"paper_rank1": 72.0, "paper_mAP": 68.1, "paper_protocol": "sysu ir_to_vis all 1-shot"}


def block(lines: list[dict], keys: tuple[str, ...] = ("row",), reference: str | None = "baseline", **more) -> Block:
    return Block(more.pop("title", "Table 2: synthetic"), keys, pd.DataFrame(lines), more.pop("notes", ()),
                 reference=reference, **more)  # fmt: skip


def component_block() -> Block:
    switches = {"baseline": (0, 0, 0, 0), "dfe_app": (1, 1, 0, 0), "full": (1, 1, 1, 1)}
    marks = {row: dict(zip(("DFE", "app", "orth", "skd"), map(bool, on), strict=True)) for row, on in switches.items()}
    lines = [
        line("baseline", 40.0, **marks["baseline"], **COSTS, **PRINTED),
        line("dfe_app", 41.0, 1.0, 0.6, **marks["dfe_app"], **COSTS, **PRINTED),
        line("full", 47.26, 7.26, 0.01, **marks["full"], **COSTS, **PRINTED),
    ]
    return block(lines, ("DFE", "app", "orth", "skd"), notes=("The averaged model.",), card=(("direction", "a < b"),))


def wild_blocks() -> list[Block]:
    """Long and hostile names, many keys, many rows, Table 1's shape, gaps: what no file may be broken by."""
    long = ["n" * 60, "lr_sweep_without_warm_up_and_with_a_very_long_name_of_60_let", *HOSTILE]
    gap = {"runs": "1 of 3, seed 1 unfinished after 12 epochs, seed 2 unreadable"}
    lines = [line(name, 40.0 + i, i - 30.0 if i else None, 0.04 / (1 + i), **COSTS, **(gap if i == 2 else {}))
             for i, name in enumerate(long)]  # fmt: skip
    values = {f"group{k}.quite.long.key{k}": f"value {k}" for k in range(7)}
    many = [line(f"row{i}", 40.0, 1.0 if i else None, **COSTS, **values | {"group0.quite.long.key0": f"{i}"})
            for i in range(70)]  # fmt: skip
    methods = [{"row": f"method{i}", "runs": "ECCV'22", **PRINTED | {"paper_protocol": "the same"}} for i in range(12)]
    other = {"paper_protocol": "gallery official, not agw; flip false, not true; 296 identities trained on, not 395"}
    own = line("this code", 99.9, **COSTS, **PRINTED, rank1_to_paper=27.9, mAP_to_paper=32.8)
    sentences = tuple(
        f"A note on {name} and on nothing else, which goes on for a while. 2. Then it ends." for name in long
    )
    four = [
        line(f"row{i}", 40.0, 1.0 if i else None, **{f"key{k}": f"value {i} " + "x" * 10 for k in range(4)})
        for i in range(3)
    ]
    return [
        component_block(),
        block(four, ("key0", "key1", "key2", "key3"), "row0", title="By four keys", notes=("/a" * 80,)),
        block(lines, reference=long[0], title=f"By row: {long[1]}, {HOSTILE[0]}", notes=sentences),
        block(many, tuple(values), "row0", title="By seven keys"),
        block([*methods, own, own | {"row": "other"} | other], reference=None, title="Table 1"),
    ]


def tables_of(text: str) -> list[list[list[str]]]:
    """The Markdown tables of `text`: their lines of cells, without the rule."""
    found = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    split = [[re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()] for table in found]
    return [[[cell.strip() for cell in row] for row in table if not set("".join(row)) <= set("-: ")] for table in split]


# What is shown


def test_cells_are_the_texts_of_every_column():
    shown = cells(component_block())
    assert list(shown) == [
        "DFE", "app", "orth", "skd", "runs", "rank-1", "mAP", "mINP", "diff. rank-1", "diff. mAP",
        "paper R-1", "paper mAP", "train s", "images/s", "peak GiB", "M param.", "GFLOP train", "GFLOP test",
    ]  # fmt: skip
    assert shown.iloc[2].tolist() == [
        "✓", "✓", "✓", "✓", "3 of 3", "47.3 ± 1.5", "48.3 ± 1.5", "49.3 ± 1.5", "+7.3 [+2.3, +14.3] *",
        "+7.3 [+2.3, +14.3] *", "72.0", "68.1", "1234", "812", "11.26", "30.3", "9.20", "8.10",
    ]  # fmt: skip
    assert shown.iloc[1, :4].tolist() == ["✓", "✓", "", ""] and shown["diff. mAP"][0] == "reference"
    assert shown["diff. rank-1"][1] == "+1.0 [-4.0, +8.0]"


def test_what_is_missing_is_a_dash_and_what_nobody_has_is_no_column():
    lines = [
        line("baseline", 40.0),
        {"row": "dfe", "runs": "no run"},
        line("full", 41.0, 1.0, rank1_low=None, rank1_high=None, mAP_std=None, peak_memory_gib=None),
    ]
    lines = [one | {"lr": rate} for one, rate in zip(lines, ["0.1", None, "-"], strict=True)]
    shown = cells(block(lines, ("row", "lr")))
    assert shown.iloc[1].tolist() == ["dfe", "-", "no run", "-", "-", "-", "-", "-"]
    assert shown["diff. rank-1"][2] == "+1.0" and shown["mAP"][2] == "42.0"
    assert not {"peak GiB", "paper R-1", "train s"} & set(shown)


@pytest.mark.parametrize(
    ("lines", "bold"),
    [
        ([line("baseline", 40), line("dfe", 45, 5, 0.049), line("full", 44, 4, 0.3)], "dfe"),
        ([line("baseline", 40), line("dfe", 45, 5, 0.05), line("full", 44, 4, 0.01)], None),  # the best is not marked
        ([line("baseline", 40), line("dfe", 35, -5, 0.2), line("full", 36, -4, 0.01)], "baseline"),
        (
            [line("baseline", 40), line("dfe", 35, -5, 0.01), line("full", 36, -4, 0.2)],
            None,
        ),  # the second is not marked
        ([line("baseline", 40), line("dfe", 45, -5, 0.01)], None),  # its pairs say the opposite of its mean
        ([line("baseline", 40), line("dfe", 35, 5, 0.01)], None),
        ([line("baseline", 40), line("full", 45)], None),  # without a comparison
        ([line("baseline", 40), {"row": "dfe", "runs": "no run"}], None),
    ],
)
def test_the_best_is_bold_only_where_the_comparison_supports_it(lines, bold):
    found = block(lines)
    figures = {column.head: column for column in sections(found)[0].columns}
    places = [{lines[place]["row"] for place in figures[head].bold} for head in ("rank-1", "mAP", "mINP")]
    assert places == [{bold} - {None}, {bold} - {None}, set()]  # mINP is not compared
    text = rendered([found], "md")
    assert text.count("**") == (4 if bold else 0) and ("Bold is" in text) == bool(bold)
    assert ("The sign" in text) == any(one.get("rank1_p", 1) < 0.05 for one in lines)
    for form, sign in {"tex": r"\textbf{", "html": "<strong>"}.items():
        assert rendered([found], form).count(sign) == (2 if bold else 0)


def test_figures_differences_published_numbers_and_costs_are_sections():
    found = sections(component_block())
    assert [section.caption.split()[0] if section.caption else "" for section in found] == [
        "",
        "Difference",
        "Beside",
        "Costs",
    ]
    assert all([key.head for key in section.keys] == ["DFE", "app", "orth", "skd"] for section in found)
    assert not any(column.group == "GFLOP" for section in found[:3] for column in section.columns)


def test_published_methods_stand_among_the_published_numbers_alone():
    (first, beside, costs) = sections(wild_blocks()[-1])
    assert first.keys[0].texts == costs.keys[0].texts == ("this code", "other")
    assert len(beside.keys[0].texts) == 14 and beside.columns[0].texts[0] == "ECCV'22"
    by_name = {column.full: column.texts for column in beside.columns}
    assert by_name["ours R-1"][-3:] == ("-", "99.9", "99.9")
    assert by_name["to paper mAP"][0] == "-" and by_name["to paper mAP"][-2] == "+32.8"
    assert len(by_name["paper's protocol"]) == 14, "protocols differ from row to row"


def test_one_protocol_of_all_published_numbers_is_a_note():
    other = " ".join(notes(component_block()))
    assert "their protocol is not ours: sysu ir_to_vis all 1-shot" in other and "as far as it is known" not in other
    same = " ".join(notes(block([line("baseline", 40.0, **PRINTED | {"paper_protocol": "the same"})])))
    assert "as far as it is known" in same and "not ours" not in same
    assert notes(block([line("baseline", 40.0)])) == []


# Fitting


def test_packing_keeps_the_order_and_never_exceeds_the_room():
    random = np.random.default_rng(0)
    for _ in range(200):
        keys, columns = (list(random.integers(1, 9, n)) for n in random.integers(1, [3, 12]))
        room = sum(keys) + max(columns) + int(random.integers(0, 20))
        tables = packed(keys, columns, room, float)
        assert [width for table in tables for width in table] == columns
        assert all(sum(keys) + sum(table) <= room for table in tables)
        assert all(sum(keys) + sum(one) + other[0] > room for one, other in pairwise(tables))


def test_long_texts_are_shortened_with_a_legend():
    legend = Legend(24)
    short = [
        legend.short(text, 24) for text in ("short", "a" * 30 + "b" * 30, "a" * 31 + "b" * 29, "a" * 30 + "b" * 30)
    ]
    assert short[0] == "short" and short[1] == "aaaaaaaaaa…bbbbbbbbb (1)" and short[3] == short[1] != short[2]
    assert max(map(len, short)) <= 24 and legend.lines == {"(1)": "a" * 30 + "b" * 30, "(2)": "a" * 31 + "b" * 29}


# Formats


def test_markdown_fits_a_terminal_and_cuts_no_figure():
    for one in wild_blocks():
        text = rendered([one], "md")
        assert max(map(len, text.splitlines())) <= 100
        tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
        assert all(len(set(map(len, table.splitlines()))) == 1 for table in tables), "columns line up"
        figures = [figure for section in sections(one) for column in section.columns if column.figure
                   for figure in [column.full, *column.texts]]  # fmt: skip
        shown = [cell.strip("*").strip() for table in tables_of(text) for row in table for cell in row]
        missing = {figure.removesuffix(" *").strip() for figure in figures} - {
            cell.removesuffix(" *").strip() for cell in shown
        }
        assert not missing
        keys = len(tables_of(text)[0][0]) - 4
        assert all(table[0][:keys] == tables_of(text)[0][0][:keys] for table in tables_of(text))


def test_markdown_of_components_is_what_one_reads():
    text = rendered([component_block()], "md")
    assert text.startswith("Table 2: synthetic\n------------------\n")
    assert "| DFE | app | orth | skd | runs   |     rank-1 |        mAP |       mINP |\n" not in text  # bold is wider
    assert "| ✓   | ✓   | ✓    | ✓   | 3 of 3 | **47.3 ± 1.5** | **48.3 ± 1.5** | 49.3 ± 1.5 |\n" in text
    assert "|     |     |      |     |          reference   |          reference   |\n" in text
    assert "| ✓   | ✓   | ✓    | ✓   | +7.3 [+2.3, +14.3] * | +7.3 [+2.3, +14.3] * |\n" in text
    assert (
        "\nDifference to baseline, in points, with its 95 % interval:\n" in text and "\n- The averaged model.\n" in text
    )


def test_narrow_tables_have_figures_and_differences_in_one():
    (first, *others) = tables_of(rendered([block([line("a", 40.0), line("b", 41.0, 1.0)], reference="a")], "md"))
    assert first[0] == ["row", "runs", "rank-1", "mAP", "mINP", "diff. rank-1", "diff. mAP"] and not others


def test_markdown_shows_any_name():
    text = rendered([block([line(name, 40.0) for name in HOSTILE[1:]], reference=None)], "md")
    rows = [row[0] for row in tables_of(text)[0][1:]]
    assert rows[:2] == ["\\[20, 95\\]", "\\*"]
    assert all(len(row) == len(tables_of(text)[0][0]) for row in tables_of(text)[0])
    assert "\\&lt;" in text and "\\_\\_init\\_\\_" in text
    text = rendered([block([line(HOSTILE[0], 40.0), line("dfe_app", 40.0)], reference=None)], "md")
    assert "| dfe_app " in text and "| lr\\|sweep" in text and "\\<b>\\*bold\\*\\</b>" in text and "\\`code\\`" in text


@pytest.mark.parametrize("sign", ["-", "+", ">", "#", "2.", "17)"])
def test_no_wrapped_line_begins_a_list_or_a_heading(sign):
    text = rendered([block([line("a", 40.0)], notes=(f"{'x' * 96} {sign} y",))], "md")
    (wrapped,) = (one for one in text.splitlines() if one.endswith(" y"))
    assert wrapped == f"  {sign[:-1]}\\{sign[-1]} y"


def test_csv_holds_plain_numbers_of_everything():
    one = component_block()
    table = pd.read_csv(io.StringIO(rendered([one], "csv")))
    assert list(table) == list(one.table) and table["rank1"].tolist() == [40.0, 41.0, 47.26]
    assert table["DFE"].tolist() == [False, True, True]
    assert "72.0,68.1" in rendered([one], "csv")
    both = pd.read_csv(io.StringIO(rendered([one, block([line("x", 1 / 3)], title="other")], "csv")))
    assert both.columns[0] == "block" and both["block"].tolist() == [one.title] * 3 + ["other"]
    assert both["rank1"].iloc[-1] == 0.3333


class Page(HTMLParser):
    """Counts elements and checks that each is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_html_is_one_semantic_page_for_any_name():
    blocks = wild_blocks()
    page = Page(rendered(blocks, "html"))
    names = [tag for tag, _ in page.tags]
    assert names.count("html") == names.count("main") == 1 and names.count("section") == len(blocks)
    assert names.count("caption") == names.count("table") and ("meta", {"charset": "utf-8"}) in page.tags
    assert all(attributes.get("scope") in ("row", "col", "colgroup") for tag, attributes in page.tags if tag == "th")
    boxes = [attributes for tag, attributes in page.tags if tag == "div" and attributes.get("class") == "box"]
    assert len(boxes) == names.count("table") - 1, "each but the protocol card scrolls in a box of its own"
    assert any(attributes.get("name") == "viewport" for tag, attributes in page.tags if tag == "meta")
    assert not {"script", "link", "img", "b"} & set(names), "self-contained, and a name is no element"
    assert set(HOSTILE) <= set(page.texts) and "a < b" in page.texts and "direction" in page.texts
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert targets == {f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section"}
    rows = re.findall(r"<tr>(.*?)</tr>", rendered([component_block()], "html"))
    spans = [sum(int(span or 1) for span in re.findall(r"<t[hd](?: colspan=\"(\d+)\")?", row)) for row in rows]
    assert spans == [10] * 5 + [9] * 5 + [10] * 5 + [2], "heading groups are as wide as their columns"


def test_latex_escapes_any_name_and_keeps_rows_apart():
    text = rendered([block([line(name, 40.0) for name in HOSTILE], reference=None, notes=tuple(HOSTILE))], "tex")
    assert "{}[20, 95] & 3 of 3 &" in text and "{}* & 3 of 3 &" in text
    assert not re.search(r"(?<!\\)[#%]", re.sub(r"^%.*| %.*", "", text, flags=re.M).replace("\\else %", ""))
    assert r"lr\textbar{}sweep \& 100\% \#1 of $\mathdollar$x\_i$\mathdollar$ \{y\}" in text.replace(
        r"\allowbreak{}", ""
    )
    assert r"$\pm$ [U+03B1] $\times$ \checkmark{} \dots{}" in text and "a-{}-b" in text
    for signs in ("±", "✓", "…", "α"):
        assert signs not in text


def test_latex_has_booktabs_and_no_more():
    text = rendered(wild_blocks(), "tex")
    counts = {
        name: text.count(f"\\{name}")
        for name in ("toprule", "midrule", "bottomrule", r"begin{tabular}", r"end{tabular}")
    }
    assert len(set(counts.values())) == 1 and r"\hline" not in text
    assert re.findall(r"\\usepackage\{(.*?)\}", text)[1:] == ["booktabs"], "the first is in the comment"
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == text.count(r"\caption{")
    for rows in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, flags=re.S):
        assert rows.count(r"\\") <= 40, "a float is not broken over pages"
    assert r"\cmidrule(lr)" in text and r"+7.3 [+2.3, +14.3]\rlap{$^{*}$}" in text and r"[$-$4.0, +8.0]" in text


@pytest.mark.slow
def test_latex_compiles_alone_and_in_papers(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    (tmp_path / "tables.tex").write_text(rendered(wild_blocks(), "tex"), encoding="utf-8")
    body = "\\extrafloats{500}\\begin{document}One \\input{tables} two \\input{tables}\\end{document}"
    (tmp_path / "wide.tex").write_text(r"\documentclass{article}\usepackage{amssymb,booktabs}" + body)
    (tmp_path / "two.tex").write_text(r"\documentclass[twocolumn]{article}\usepackage{booktabs}" + body)
    for name in ("tables", "wide", "two"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300)
        assert done.returncode == 0, done.stdout[-3000:]
        assert (tmp_path / f"{name}.pdf").stat().st_size > 10_000
        log = (tmp_path / f"{name}.log").read_text(errors="replace")
        for warning in ("Overfull \\hbox", "Float too large", "incomplete \\if", "Missing character"):
            assert warning not in log, f"{name}: {log[log.index(warning) - 300 :][:600]}"


def test_every_format_takes_the_smallest_block():
    for form in FORMATS:
        assert "40.0" in rendered(
            [Block("A title", ("row",), pd.DataFrame([line("a", 40.0)])[["row", "runs", "rank1"]], ())], form
        )
