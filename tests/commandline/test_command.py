"""The command line: what every command accepts, and which keys its messages name."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

import bdlf
from bdlf import report
from bdlf.__main__ import main as list_commands
from bdlf.commandline.words import COMMANDS, explain, in_order, leaf_keys, paths_from_home, quoted, sorted_words
from bdlf.config import BenchmarkConfig, CheckConfig, Config, EvaluateConfig, SynthesizeConfig
from bdlf.runs import collate
from bdlf.system.errors import InputError

SCHEMAS = [OmegaConf.structured(s) for s in (Config, EvaluateConfig, CheckConfig, SynthesizeConfig, BenchmarkConfig)]
SOURCES = sorted(Path(bdlf.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("word", ["debug=true", "debug=True", "debug=TRUE", "debug=1", "debug=on", "debug=yes"])
@pytest.mark.parametrize("plus", ["", "++"])
def test_debug_shows_the_traceback_however_true_is_written(command, plus, word):
    with pytest.raises(InputError, match="no-such-layout"):  # of the task
        command("synthesize", "layout=no-such-layout", "root=nowhere", plus + word)
    with pytest.raises(
        ValueError, match="group override must be a string"
    ):  # of Hydra, before there is a configuration
        command("train", "dfe/stage=3", plus + word)


@pytest.mark.parametrize(
    "word", ["debug=false", "debug=0", "debug=off", "seed=1", "label=debug=true", "debug=false,true"]
)
def test_without_debug_an_error_is_one_line(command, word):
    code, out, err = command("train", "dfe/stage=3", word)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and not out


def test_a_debug_that_hydra_refuses_is_one_line_too(command):
    code, _, err = command("train", "+debug=true")
    assert code == 2 and err.startswith("error: Could not append to config") and err.count("\n") == 1


TAKEN = {  # what is typed, and the value that it gives: Hydra's grammar has no place for any of them
    "output=a=b": "a=b",
    "output=/runs (2)/x": "/runs (2)/x",
    "label=é": "é",
    "backbone.weights=/x/epoch=3.pth": "/x/epoch=3.pth",
    "++dataset.root=/data/My RegDB (copy)": "/data/My RegDB (copy)",
    "label=a#b;c&d!e": "a#b;c&d!e",
    "dataset.root=~/RegDB": "/home/me/RegDB",
    "output=~": "/home/me",
}


@pytest.mark.parametrize("word", TAKEN)
def test_text_that_hydras_grammar_refuses_is_taken_as_it_was_typed(word, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (meant,) = in_order([word], "config", Config)
    key = word.partition("=")[0]
    parsed = OverridesParser.create().parse_override(meant)
    assert (meant.partition("=")[0], parsed.value()) == (key, TAKEN[word])


def test_such_text_reaches_the_configuration(command):
    code, out, err = command("train", "output=a=b (é)", "backbone.weights=/x/epoch=3.pth", "--cfg", "job")
    assert code == 0, err
    config = OmegaConf.create(out)
    assert (config.output, config.backbone.weights) == ("a=b (é)", "/x/epoch=3.pth")


def test_such_text_is_taken_for_a_key_without_a_default(command, tmp_path):
    folder = tmp_path / "a=b (é)"
    code, out, err = command("synthesize", "layout=regdb", f"root={folder}", "identities=4", "images=1")
    assert code == 0 and folder.is_dir(), err
    assert out.splitlines()[-1].endswith(f" 'dataset.root={folder}'")  # a command to paste into a shell


@pytest.mark.parametrize(
    "word", ["label=x", "label=a,b", "label='a=b'", "output=${oc.env:HOME}/x", "label=a b", "seed=1"]
)
def test_what_hydras_grammar_reads_is_left_alone(word):
    assert in_order([word], "config", Config) == [word]


REFUSED = {  # the word, and the same word as one text for a shell; None: its key holds no text
    "output=a,b=c": """'output="a,b=c"'""",
    "label=x(1": """'label="x(1"'""",
    "label='x": """'label="x"'""",
    "output={a": """'output="{a"'""",
    "hydra.sweep.dir=a=b": """'hydra.sweep.dir="a=b"'""",
    "seed=1=2": None,
    "dataset=re=gdb": None,
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_word_that_cannot_be_read_is_named_and_quoted_for_the_shell(word):
    with pytest.raises(OverrideParseException) as refused:
        OverridesParser.create().parse_overrides(in_order([word], "config", Config))
    line = explain(refused.value, Config)
    assert "\n" not in line and f"'{word}'" in line and "hydra.cc" not in line
    assert ("typed" in line) == (REFUSED[word] is not None)
    if REFUSED[word] is not None:
        assert line.endswith(f"typed {REFUSED[word]}")
        (typed,) = shlex.split(REFUSED[word])
        assert OverridesParser.create().parse_override(typed).value() == word.partition("=")[2].strip("'")


def test_an_unreadable_word_ends_the_command(command):
    code, out, err = command("train", "seed=1", "label=x(1")
    assert code == 2 and not out and err.startswith("error: the value of 'label=x(1'") and err.count("\n") == 1


@pytest.mark.parametrize("text", ['a"b', "a\\", 'a\\"b\\\\', "é (1)", "a, b=c", "[x", "'", ""])
def test_any_text_survives_being_quoted(text):
    assert OverridesParser.create().parse_override(f"label={quoted(text)}").value() == text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("label=1,2", "label=1,2 has several values: with -m, each makes a job of its own"),
        ("label=1,2", """as a list they are typed 'label=[1,2]', as one text 'label="1,2"'"""),
        ("label='a','b'", "label=a,b has several values"),
        ("seed=3,4", "seed=3,4 has several values"),
        ("sweeps=table2,table3", "sweeps=table2,table3: a sweep file says which jobs there are"),
        ("+output=a,b", """(a name with a comma is typed '+output="a,b"')"""),
    ],
)
def test_several_values_without_m_are_told_as_they_were_typed(command, word, message):
    code, _, err = command("train", word)
    assert code == 2 and err.count("\n") == 1 and message in err, err
    assert ("-m" in err) == ("several values" in message or "as a list" in message), "not where it would be refused"


def test_a_word_that_the_locale_cannot_read_is_told_with_its_remedy(command, tmp_path):
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["label=é", "dry_run=true", "tracker=none", f"output={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "bdlf.train", *words], env=os.environ | locale, cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 2 and b"; with LC_ALL=C.UTF-8 or PYTHONUTF8=1, Python reads the" in done.stderr
    assert "LC_ALL" not in command("train", "label=\udcc3", "tracker=none")[2], "where the locale is not the cause"


def test_the_report_says_which_commands_complete_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bdlf-report", "-sc", "install=bash"])
    with pytest.raises(SystemExit) as left:
        report.main()
    assert left.value.code == 2 and "bdlf-report has no completion; bdlf-train, -eval" in capsys.readouterr().err


def test_a_carriage_return_is_shown_with_its_remedy(command):
    code, out, err = command("train", "seed=1", "dataset=regdb\r")
    assert code == 2 and not out and err.count("\n") == 1 and "\r" not in err
    assert "'dataset=regdb\\r'" in err and "sed -i 's/\\r$//'" in err


def test_home_is_meant_wherever_a_path_comes_from(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = OmegaConf.create({"dataset": {"root": "~/data/RegDB", "name": "~"}, "output": "a~b", "label": "~/x"})
    paths_from_home(config)
    assert config == {"dataset": {"root": "/home/me/data/RegDB", "name": "~"}, "output": "a~b", "label": "~/x"}
    words = ["splits=[~/a,~/b]", "run=~nobody-of-this-name/x"]
    assert in_order(words[:1], "evaluate", EvaluateConfig) == ["splits=[/home/me/a,/home/me/b]"]
    with pytest.raises(SystemExit):
        in_order(words[1:], "evaluate", EvaluateConfig)


def test_a_folder_that_exists_is_meant_as_it_stands(tmp_path, monkeypatch):
    """Its name may look like a pattern, or hold one beside such a name."""
    monkeypatch.chdir(tmp_path)
    for name in ("a[1]/seed0", "a1/seed0", "b[x]/seed0", "b[x]/seed1", "c1", "c2", "d*", "dd"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("dataset: {name: sysu}\n")
    monkeypatch.setattr(collate, "_with_siblings", lambda folder: [folder])

    def named(*patterns: str) -> list[str]:
        return [str(folder.path) for folder in collate.run_folders(list(patterns))]

    assert named("a[1]/seed0") == ["a[1]/seed0"]
    assert named("b[x]/seed*") == ["b[x]/seed0", "b[x]/seed1"]
    assert named("a[1]/*", "a?/seed0") == ["a[1]/seed0", "a1/seed0"]
    assert named("c[12]") == ["c1", "c2"]
    assert named("d*") == ["d*"]
    with pytest.raises(InputError, match="no such folder"):
        named("e[1]")


def test_bdlf_data_may_begin_at_home(command, monkeypatch, tmp_path):
    monkeypatch.setenv("BDLF_DATA", "~/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = command("train", "dataset=regdb", "dry_run=true", "tracker=none")
    assert code == 2 and f"{tmp_path}/data/RegDB" in err


def test_a_flag_may_stand_between_overrides(command, tmp_path):
    code, out, err = command("train", "seed=1", "-cd", str(tmp_path), "label=x", "--cfg", "job", "variant=baseline")
    assert code == 0, err
    config = OmegaConf.create(out)
    assert (config.seed, config.label, config.variant) == (1, "x", "baseline")


def test_flags_are_told_from_words_with_their_values():
    found = sorted_words(["a=1", "-i", "defaults", "b=2", "--info", "c=3", "-cn", "x", "-m"])
    assert found.overrides == ["a=1", "b=2", "c=3"]
    assert found.flags == ["-i", "defaults", "--info", "-cn", "x", "-m"]
    assert found.value_of("-cn", "--config-name") == "x" and found.value_of("-cd") is None


@pytest.mark.parametrize(("words", "named"), [(["--json"], "--json"), (["-cn"], "-cn needs a value")])
def test_a_wrong_flag_is_named(command, words, named):
    code, _, err = command("train", *words)
    assert code == 2 and named in err and err.count("\n") == 1


def test_help_takes_every_other_word(command, tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nseed: 77\n")
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "own_row.yaml").write_text("# @package _global_\nvariant: own_row\n")
    code, out, err = command("train", "-m", "seed=4,5", "variant=choice(own_row,full)", "--help", "-cd", str(tmp_path))
    assert code == 0, err
    assert "seed: 4" in out and "variant: own_row" in out
    assert re.search(r"^  variant: .*\bown_row\b.*\bfull\b|^  variant: .*\bfull\b.*\bown_row\b", out, re.MULTILINE)
    code, out, err = command("train", "--help", "--config-dir", str(tmp_path), "-cn", "mine")
    assert code == 0 and "seed: 77" in out, err


def test_help_has_no_empty_heading_and_names_flags(command):
    _, out, _ = command("synthesize", "--help")
    assert "Groups" not in out
    for flag in ("-m ", "--cfg job", "--config-dir DIR", "-cn NAME", "--hydra-help"):
        assert f"\n  {flag}" in out


def test_the_configuration_of_another_command_is_no_start(command):
    code, _, err = command("train", "-cn", "benchmark")
    assert code == 2 and err.rstrip().endswith("python -m bdlf.benchmark")
    code, out, _ = command("benchmark", "-cn", "benchmark", "--cfg", "job")
    assert code == 0 and "suite: all" in out


def test_hydras_advice_on_its_own_keys_is_kept(command):
    code, _, err = command("train", "hydra.launcher.n_jobs=2")
    assert code == 2 and "+hydra.launcher.n_jobs=" in err and "known here: dataset" not in err


@pytest.mark.parametrize(
    ("environment", "word", "shown"),
    [
        ({"HYDRA_FULL_ERROR": "1"}, "seed=0", True),
        ({}, "hydra.verbose=true", True),
        ({}, "hydra.verbose=[bdlf]", True),
        ({}, "hydra.verbose=false", False),
        ({"HYDRA_FULL_ERROR": "0"}, "seed=0", False),
    ],
)
def test_hydras_own_ways_of_asking_for_a_traceback_work(command, environment, word, shown):
    words = ["layout=no-such-layout", "root=nowhere", word]
    if not shown:
        assert command("synthesize", *words, environment=environment)[0] == 2
        return
    with pytest.raises(InputError, match="no-such-layout"):
        command("synthesize", *words, environment=environment)


def test_hydras_logging_shows_each_line_once_and_leaves_no_file(tmp_path):
    """In a process of its own: Hydra sets up logging for the whole process."""
    words = [
        "layout=regdb",
        f"root={tmp_path}/data",
        "identities=4",
        "images=2",
        "height=32",
        "width=16",
        "hydra/job_logging=default",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bdlf.synthesize", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("train on it: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


SCRIPTS = re.search(r"\[project\.scripts\]\n((?:.+\n)+)", (Path(__file__).parents[2] / "pyproject.toml").read_text())[1]
"""Lines like `bdlf-train = "bdlf.train:main"`."""


def test_each_command_has_a_script():
    scripts = dict(re.findall(r'^(\S+) = "(\S+)"$', SCRIPTS, re.MULTILINE))
    assert scripts == {f"bdlf-{name}": f"bdlf.{name}:main" for name in COMMANDS}
    names = {"train", "evaluate", "report", "check", "synthesize", "benchmark", "probe", "visualize"}
    assert set(COMMANDS) == names


def test_bash_completes_groups_options_and_keys(tmp_path):
    """The script is what an installer makes of `[project.scripts]`."""
    script = tmp_path / "bdlf-train"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom bdlf.train import main\nsys.exit(main())\n")
    script.chmod(0o755)
    asking = """
        eval "$(bdlf-train -sc install=bash)"
        complete -p bdlf-train
        ask() {
            COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            hydra_bash_completion
            echo "${COMPREPLY[*]}"
        }
        ask "bdlf-train dataset="
        ask "bdlf-train seed=1 dfe/st"
    """
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", asking], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rule, datasets, groups = done.stdout.splitlines()
    assert "hydra_bash_completion bdlf-train" in rule
    assert datasets.split() == [f"dataset={name}" for name in ("llcm", "regdb", "synthetic", "sysu")]
    assert groups == "dfe/stage="


def test_the_package_lists_its_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bdlf"])
    list_commands()
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  python -m bdlf.{name} ")]
        assert len(line.split(maxsplit=3)[3]) > 20, "what the command does"
    monkeypatch.setattr(sys, "argv", ["bdlf", "train", "seed=1"])
    with pytest.raises(SystemExit) as stopped:
        list_commands()
    assert stopped.value.code == 2 and "python -m bdlf.train" in capsys.readouterr().err


def test_the_version_is_that_of_the_package():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'version = "{bdlf.__version__}"' in project


def test_other_programs_compose_after_an_import():
    code = """
        import sys
        import bdlf.config
        from hydra import compose, initialize_config_dir, initialize_config_module
        assert "torch" not in sys.modules
        with initialize_config_module("bdlf.conf", version_base="1.3"):
            print(compose("config", ["dataset=regdb", "sweeps=table2", "dfe.stage=2"]).dfe.stage)
        with initialize_config_dir(str(bdlf.config.config_folder("conf")), version_base="1.3"):
            print(compose("benchmark", ["suite=step"]).suite)
        with initialize_config_dir(str(bdlf.config.config_folder("conf") / "on_disk"), version_base="1.3"):
            print(compose("check", ["dataset=llcm"]).dataset.name)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "step", "llcm"], done.stderr


def test_without_a_working_directory_one_line_says_so(command, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = command("train", "--cfg", "job")
    assert code == 2 and "working directory" in err and err.count("\n") == 1


def test_a_finished_run_without_its_weights_says_what_to_do(command, tiny_run, finished_run, tmp_path):
    folder = finished_run()
    shutil.rmtree(folder / "checkpoints")
    code, _, err = command("evaluate", f"run={folder}", "devices=cpu", f"data.cache_dir={tmp_path}/cache")
    assert code == 2 and "rerun=true" in err and "saved none yet" not in err
    code, _, err = tiny_run("evaluation.flip=false")
    assert code == 2 and "rerun=true" in err and err.count("error: ") == 1


def known_keys() -> set[str]:
    """Every key of every schema with a dot in it, groups of keys included."""
    leaves = {key for schema in SCHEMAS for key in leaf_keys(schema)}
    paths = [key.split(".") for key in leaves]
    return {".".join(path[:end]) for path in paths for end in range(2, len(path) + 1)}


def unknown_keys(source: str) -> list[str]:
    """Words of the string literals of `source` that look like a key of a group, `group.name`, and are none.

    A call (`loss.backward()`) and a part of a longer path (`bdlf.data.sysu`, `conf/loss.yaml`) do not look like one.
    """
    groups = {name for schema in SCHEMAS for name in schema if isinstance(schema._get_node(name), DictConfig)}
    key = re.compile(rf"(?<![\w./-])(?:{'|'.join(sorted(groups))})(?:\.[a-z]\w*)+(?![\w(/])")
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    words = {word for text in texts if isinstance(text, str) for word in key.findall(text)}
    return sorted(words - known_keys())


def test_every_key_that_a_message_names_exists():
    found = {str(path): unknown for path in SOURCES if (unknown := unknown_keys(path.read_text()))}
    assert not found
    text = "".join(path.read_text() for path in SOURCES)
    assert len([key for key in known_keys() if key in text]) > 30, "keys are named, so that the test looks at some"


def test_the_search_for_unknown_keys_finds_them():
    source = '''
raise InputError(f"backbone.gem_p={p} is not in 1..6, see loss.skd.weight, {dfe.nothing} and dataset.nmae.")
"""Not loss.backward(), bdlf.data.sysu.py, conf/loss.app.yaml or model.dfe.x. But evaluation.flip: evaluation.filp."""
'''
    assert unknown_keys(source) == ["backbone.gem_p", "dataset.nmae", "evaluation.filp"]
