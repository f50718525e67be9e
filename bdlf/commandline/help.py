"""The text that `--help` prints."""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bdlf.commandline.words import quoted, sorted_words
from bdlf.config import config_folder

_FLAGS_HELP = {
    "-m": "a job for each combination of the values that commas separate",
    "--cfg job": "print the configuration and start nothing; with --resolve, every ${...} in it is replaced",
    "--config-dir DIR": "find configurations and options of groups in DIR too",
    "-cn NAME": "start from NAME.yaml instead of the command's own configuration",
    "--info defaults": "from which files the configuration is put together, and start nothing",
    "-sc install=bash": "print what completes words in bash, or in zsh or fish by their names",
    "--hydra-help": "the other flags of Hydra, and its own keys (hydra.launcher, ...)",
}


def help_text(name: str, folder: str, about: str, words: list[str]) -> str:
    """The text of `--help`: purpose, groups with their options, every key with its value, flags, examples.

    The values are those that `words` give. Where a word gives several values, one for each job of a sweep, the first is
    shown. Hydra's own help would take more than 2 s, because it loads every option of every group.
    """
    purpose, _, examples = about.strip().partition("\n\n")
    given = sorted_words(words)
    source = config_folder("conf") / folder
    sources = [source]
    overrides = [_first_value(word) for word in given.overrides]
    start = given.value_of("-cn", "--config-name") or name
    if (extra := given.value_of("-cd", "--config-dir")) is not None:
        sources.append(Path(extra).absolute())
        if not (source / f"{start.removesuffix('.yaml')}.yaml").is_file():
            sources.reverse()  # Hydra looks for the file to start from only in the first folder
        overrides.append(f"hydra.searchpath=[{quoted(f'file://{sources[1]}')}]")
    with hydra.initialize_config_dir(str(sources[0]), version_base="1.3"):
        composed = hydra.compose(start, overrides)
    defaults = OmegaConf.load(source / f"{name}.yaml").defaults
    groups = [group for entry in defaults if OmegaConf.is_dict(entry) for group in entry]
    lines = [purpose, ""]
    if own := [group for group in groups if " " not in group]:
        lines += ["Groups (group=option)", *(f"  {group}: {', '.join(_options(sources, group))}" for group in own), ""]
    lines += ["Every key, and its value with these overrides (key=value)", OmegaConf.to_yaml(composed)]
    width = max(map(len, _FLAGS_HELP))
    lines += ["Flags", *(f"  {flag.ljust(width)}  {meaning}" for flag, meaning in _FLAGS_HELP.items()), "", examples]
    return "\n".join(lines)


def _first_value(word: str) -> str:
    """The override as the first job of a sweep gets it: `seed=0,1` becomes `seed=0`."""
    parser = OverridesParser.create()
    (parsed,) = parser.parse_overrides([word])
    if not parsed.is_sweep_override():
        return word
    return f"{word.partition('=')[0]}={next(parsed.sweep_string_iterator(), '')}"


def _options(sources: list[Path], group: str) -> list[str]:
    folders = [config_folder("sweeps")] if group == "sweeps" else []
    folders += [source / group for source in sources]
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
