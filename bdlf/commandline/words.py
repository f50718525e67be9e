"""The words of a command line: sorts them into flags and overrides, and explains in one line what is wrong with one."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import sys
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import AnyNode, BooleanNode, DictConfig, OmegaConf, StringNode
from omegaconf.errors import OmegaConfBaseException

from bdlf.commandline.jobs import DONE, FAILED, WRONG_INPUT
from bdlf.config import schema_tree
from bdlf.system.errors import InputError
from bdlf.system.files import with_home
from bdlf.system.screen import unwritten
from bdlf.system.wording import printable, shortened

_LONGEST = 1500  # characters of an error message at most
COMMANDS = {
    "train": "config",
    **{name: name for name in ("evaluate", "report", "check", "synthesize", "benchmark", "probe", "visualize")},
}
"""The name of each command's configuration. `report` reads no configuration."""
PATHS = (
    *("dataset.root", "dataset.silhouettes", "data.cache_dir", "backbone.weights", "output"),
    *("from_run", "run", "runs", "features", "splits", "root", "silhouettes", "json"),  # of other commands
)
"""Keys whose value is the path of a file or folder, or a pattern of such paths."""
LISTS = ("what", "runs", "pids")
"""Keys whose commas separate the members of one list. They never make several jobs."""
_FLAGS = ("-m", "--multirun", "-r", "--run", "-h", "--help", "--hydra-help", "--version", "--resolve")
_FLAGS_WITH_VALUE = (
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("-sc", "--shell-completion", "--experimental-rerun"),
)
_FLAGS_WITH_PERHAPS_A_VALUE = ("-i", "--info")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass
class Words:
    """The words of a command line, sorted. `flags` holds the flags of Hydra and their values, in the order typed."""

    flags: list[str]
    overrides: list[str]

    def value_of(self, *names: str) -> str | None:
        """The value of the flag with one of these names; the last one where it is repeated, None where it is absent."""
        found = None
        for word, following in zip_longest(self.flags, self.flags[1:]):
            flag, equals, value = word.partition("=")
            if flag in names:
                found = value if equals else following
        return found


def sorted_words(words: list[str]) -> Words:
    """Sort words into flags with their values and overrides.

    Prints an error and exits with code 2 where a flag is unknown or its value is missing.
    """
    found = Words([], [])
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, _ = word.partition("=")
        if not word.startswith("-"):
            found.overrides.append(word)
            continue
        if flag not in (*_FLAGS, *_FLAGS_WITH_VALUE, *_FLAGS_WITH_PERHAPS_A_VALUE):
            key = flag.lstrip("-")
            _refuse(f"unknown flag '{word}'; keys are given without dashes, like {key or 'seed'}=...; try --help")
        found.flags.append(word)
        if flag in _FLAGS_WITH_VALUE and not equals:
            if not rest:
                _refuse(f"{word} needs a value; try --help")
            found.flags.append(rest.pop(0))
        elif flag in _FLAGS_WITH_PERHAPS_A_VALUE and rest and rest[0] in _INFO:
            found.flags.append(rest.pop(0))
    return found


def in_order(words: list[str], name: str, schema: type) -> list[str]:
    """The words in the form that Hydra needs: first the flags with their values, then the overrides.

    `name` and `schema` are those of the command's configuration. Two kinds of overrides are rewritten. A text that
    Hydra's grammar cannot read is quoted, so that `output=a=b` means the folder `a=b`. `~` at the start of a path
    becomes the home folder.

    Prints an error and exits with code 2 for a word with a carriage return, an unknown flag, a home folder that does
    not exist, or the configuration of another command.
    """
    for word in words:
        if "\r" in word:
            _refuse(
                f"'{word}' holds a carriage return ({printable(chr(13))}), as each line of a script from Windows ends "
                "in one; remove them: sed -i 's/\\r$//' SCRIPT"
            )
    found = sorted_words(words)
    configuration = found.value_of("-cn", "--config-name")
    for command, its_configuration in COMMANDS.items():
        others = configuration == its_configuration != name and found.value_of("-cd", "--config-dir") is None
        if others and found.value_of("-cp", "--config-path") is None:
            _refuse(f"-cn {configuration} is the configuration of another command: python -m bdlf.{command}")
    try:
        return [*found.flags, *(_as_meant(word, schema) for word in found.overrides)]
    except InputError as error:
        _refuse(str(error))


def _as_meant(word: str, schema: type) -> str:
    start, equals, value = word.partition("=")
    key = start.lstrip("+")
    if key in PATHS:
        value = re.sub(r"(?<![^,\[])~[^,\]]*", lambda path: with_home(path[0]), value)
    if key in LISTS and "," in value and not re.search(r"['\"{}$\\\[\]]", value):
        value = "[" + ",".join(quoted(member.strip()) for member in value.split(",")) + "]"
    word = f"{start}{equals}{value}"
    plain = value and not re.search(r"[,'\"{}$\\]|^\[|^\w+\(", value)
    if plain and _holds_text(key, schema) and not _can_be_read(word):
        return f"{start}={quoted(value)}"
    return word


def paths_from_home(composed: DictConfig) -> None:
    """Replace `~` at the start of every path by the home folder. Files and variables can bring such paths."""
    for key in PATHS:
        value = OmegaConf.select(composed, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(composed, key, with_home(value))


def require_working_directory() -> None:
    """Print an error and exit with code 2 if the working directory has been deleted."""
    try:
        os.getcwd()
    except OSError:
        _refuse("the working directory has been deleted; change to a folder that exists (cd) and start again there")


def with_screen(code: int) -> int:
    """`code`, or FAILED instead of DONE if some output was lost, for example on a full disk, after printing why."""
    why = unwritten()
    if why:
        print_error(f"standard output could not be written: {why}")
    return code or (FAILED if why else DONE)


def _holds_text(key: str, schema: type) -> bool:
    node: Any = schema_tree(schema)
    for part in key.split("."):
        if not (OmegaConf.is_dict(node) and part in set(node)):  # `in node` is false for a key without a default
            return False
        node = node._get_node(part)
    return isinstance(node, StringNode | AnyNode)


def _can_be_read(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def quoted(value: str) -> str:
    """`value` in double quotes, as Hydra's grammar reads any text.

    Escaped are quotes, backslashes before a quote, and backslashes at the end.
    """
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def _refuse(line: str) -> NoReturn:
    print_error(line)
    sys.exit(WRONG_INPUT)


def asks_for_debug(words: list[str]) -> bool:
    """Whether the command line sets `debug` or `hydra.verbose` to a true value, or `hydra.verbose` to names of loggers.

    The words are read here, because Hydra may fail to compose the very command line that shall be debugged.
    """
    asked = {"debug": False, "hydra.verbose": False}
    for word in words:
        if match := re.match(r"\+{0,2}(debug|hydra\.verbose)=", word):
            with contextlib.suppress(HydraException, OmegaConfBaseException):
                value = OverridesParser.create().parse_override(word).value()
                is_name = match[1] == "hydra.verbose" and isinstance(value, str | list)
                asked[match[1]] = is_name or BooleanNode(value)._value() is True
    return any(asked.values())


def of_words(error: Exception, words: list[str]) -> str:
    """The message for an error inside Hydra that nobody expected: it names the words to look at."""
    if "Config group override must be a string" in str(error):
        numbers = [word for word in words if re.fullmatch(r"[\w/]+=[\d.]+", word) and "." not in word.split("=")[0]]
        return f"the options of a group are names, not numbers; look at {', '.join(numbers)}"
    return f"Hydra cannot read the options ({named(error)}); they are {shortened(' '.join(words), 1000)}"


def named(error: Exception) -> str:
    """The type of an error and its message, in one line."""
    return f"{type(error).__name__}: {shortened(one_line(str(error)), 200)}"


def print_error(line: str) -> None:
    """Print `error: <line>` on standard error as exactly one line: control characters are escaped, long texts cut."""
    print(f"error: {shortened(printable(line), _LONGEST)}", file=sys.stderr)


_UNKNOWN_SIGN = "LexerNoViableAltException: "  # Hydra's message goes on with the override, then a line with a '^'


def explain(error: Exception, schema: type) -> str:
    """The message of an error of Hydra or OmegaConf in one line; for an unknown name it lists the known ones."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, str(error), schema)
    text = str(error) + (f"\n{error.__cause__}" if error.__cause__ is not None else "")
    if several := re.match(r"Ambiguous value for argument '(.*)'$", text.partition("\n")[0]):
        return _several_values(several[1])
    if (unknown := re.search(r"Could not override '([^']+)'", text)) and "not in" in text:
        key = unknown[1]
        if key.split(".")[0] == "hydra":
            return f"unknown key '{key}' of Hydra; a new key of Hydra or of a plugin is added with +{key}=..."
        return unknown_key(key, schema)
    if missing := re.search(r"Could not find '(.*)/([^/']*)'\s+Available options in '[^']+':\n((?:\t.+\n?)+)", text):
        return f"unknown option '{missing[2]}' of group '{missing[1]}'; known: {', '.join(missing[3].split())}"
    return one_line(text)


def _unreadable(word: str, why: str, schema: type) -> str:
    """The message for a word that Hydra's grammar refuses. For a key that holds text it shows how to quote the word."""
    start, equals, value = word.partition("=")
    if not equals:
        return f"'{word}' has no '='; an option is key=value"
    if not re.fullmatch(r"\+{0,2}[\w./@-]+", start):
        return f"'{word}' has no key of letters, digits, '.', '_' and '/' before its '='"
    reason = one_line(why).removeprefix(f"Error parsing override '{word}'; ")
    if at := re.search(rf"^{_UNKNOWN_SIGN}.*\n( *)\^", why, re.MULTILINE):
        reason = f"Hydra's grammar has no place for {word[len(at[1]) - len(_UNKNOWN_SIGN) :][:1]!r} there"
    line = f"the value of '{word}' cannot be read: {reason}"
    key = start.lstrip("+")
    if key.startswith("hydra.") or _holds_text(key, schema):
        text = value.strip("'\"") if value[:1] in ("'", '"') else value
        line += f"; as one text it is typed {shlex.quote(f'{start}={quoted(text)}')}"
    return line


def _several_values(word: str) -> str:
    """The message for a word with several values where `-m` is missing. `word` has the quotes of `typed_values`."""
    typed = re.sub(r"'([^']*)'", r"\1", word)
    key, _, values = typed.partition("=")
    return (
        f"{typed} has several values: with -m, each makes a job of its own; as a list they are typed "
        f"{shlex.quote(f'{key}=[{values}]')}, as one text {shlex.quote(f'{key}={quoted(values)}')}"
    )


def unknown_key(key: str, schema: type) -> str:
    """The message for an unknown key: it names the most similar known key and the keys of the same section."""
    node: Any = schema_tree(schema)
    known_path: list[str] = []
    for part in key.split("."):
        if not (OmegaConf.is_config(node) and part in node):
            break
        known_path.append(part)
        node = node._get_node(part)
    known = [".".join([*known_path, str(k)]) for k in node] if OmegaConf.is_dict(node) else []
    everything = leaf_keys(schema_tree(schema))
    close = difflib.get_close_matches(key, [*everything, *known], n=1, cutoff=0.6)
    hint = f"; did you mean '{close[0]}'" if close else ""
    return f"unknown key '{key}'{hint}" + (f"; known here: {', '.join(known)}" if known else "")


def leaf_keys(node: DictConfig, prefix: str = "") -> list[str]:
    """The dotted keys of all values of a configuration, in its order."""
    keys: list[str] = []
    for name in map(str, node):
        child = node._get_node(name)
        keys += leaf_keys(child, f"{prefix}{name}.") if isinstance(child, DictConfig) else [f"{prefix}{name}"]
    return keys


_NOISE = (
    *("full_key: ", "object_type=", "reference_type=", "To append", "Error merging"),
    *("Config search path", "provider=", "See https://hydra.cc", "^"),
)


def one_line(text: str) -> str:
    """The lines of a message joined by semicolons. The key of OmegaConf's `full_key:` line comes first.

    Lines that only describe OmegaConf's or Hydra's internals, and repeated lines, are dropped.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    kept = [line for line in lines if not line.startswith(_NOISE)]
    unique = list(dict.fromkeys(kept))
    return (f"{keys[0]}: " if keys else "") + "; ".join(unique)
