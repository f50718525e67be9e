"""Shapes and types of the numeric rooms' signatures are checked while the tests run."""

from jaxtyping import install_import_hook

install_import_hook(
    ["bdlf.losses", "bdlf.models", "bdlf.objective", "bdlf.evaluation", "bdlf.data"], "beartype.beartype"
)
