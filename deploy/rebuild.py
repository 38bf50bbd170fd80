"""An engine built again from a bundle's portable graph, where the packed one does not run."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from .. import BundleError
from .backend import Backend, Profile
from .bundle import Engine, Manifest
from .unpack import flush

GRAPH = "model.onnx"


def rebuild(folder: Path, manifest: Manifest, engine: Engine, backend: Backend, to: Path) -> None:
    """Build `engine` by its recipe from the portable graph in `folder`, into the new folder `to`.

    Raises:
        BundleError: the bundle has no recipe or no portable graph, or the graph cannot be lowered.
        MissingError, ConfigError, BuildError: as the backend says.
    """
    recipe = engine.recipe
    if recipe is None or manifest.portable is None:
        raise BundleError(f"no recipe to build {engine.backend} again", where=folder)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=to.parent) as temporary:
        lowered = Path(temporary) / GRAPH
        try:
            model = ir.load(folder / manifest.portable / GRAPH)
            for step in backend.lowering(recipe.precision):
                model = step(model).model
            ir.save(model, lowered, external_data=f"{GRAPH}.data")
        except Exception as error:
            what = f"the portable graph cannot be lowered: {' '.join(str(error).split())[:200]}"
            raise BundleError(what, where=folder) from error
        options: Mapping[str, object] = recipe.options
        built = Path(temporary) / "engine"
        backend.build(lowered, built, Profile(recipe.profile), options)
        flush(built)
        shutil.rmtree(to, ignore_errors=True)
        built.rename(to)
