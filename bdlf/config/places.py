"""Where `conf/` and `sweeps/` are, and what Hydra is told of them."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from bdlf.config.commands import (
    BenchmarkConfig,
    CheckConfig,
    EvaluateConfig,
    ProbeConfig,
    SynthesizeConfig,
    VisualizeConfig,
)
from bdlf.config.schema import Config


@cache
def schema_tree(schema: type) -> DictConfig:
    """A schema as OmegaConf reads it, to look up keys and types in. Callers never change it.

    It is kept, because building it takes 50 ms.
    """
    tree: DictConfig = OmegaConf.structured(schema)
    return tree


def config_folder(name: str) -> Path:
    """The folder `conf` or `sweeps`: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for parent in (package, package.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(f"{name}/ is neither in nor beside {package}: reinstall bdlf")


def register() -> None:
    """Give Hydra a name for every schema, each file of `sweeps/` as an option of `sweeps`, and `bdlf.conf`.

    In a wheel `bdlf.conf` is a package like any other. In a checkout its folder lies beside this package.
    """
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    others = {"evaluate": EvaluateConfig, "check": CheckConfig, "synthesize": SynthesizeConfig}
    others |= {"benchmark": BenchmarkConfig, "probe": ProbeConfig, "visualize": VisualizeConfig}
    for name, schema in others.items():
        store.store(name=f"{name}_schema", node=schema)
    for file in sorted(config_folder("sweeps").glob("*.yaml")):
        store.store(group="sweeps", name=file.stem, node=OmegaConf.load(file), package="_global_", provider=str(file))
    conf = config_folder("conf")
    if conf.parent != Path(__file__).resolve().parents[1]:
        spec = importlib.util.spec_from_file_location(
            "bdlf.conf", conf / "__init__.py", submodule_search_locations=[str(conf)]
        )
        assert spec is not None
        sys.modules.setdefault("bdlf.conf", importlib.util.module_from_spec(spec))
