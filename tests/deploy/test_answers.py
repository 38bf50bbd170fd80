"""What logits over classes mean, held against the words of transformers' own pipeline."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from llmdeploy.deploy.answers import answer, problem_type
from llmdeploy.deploy.signature import Tensor

from .conftest import SIGNATURE

PROBLEMS = ["", "regression", "single_label_classification", "multi_label_classification"]


def pipelines(logits: np.ndarray, problem: str) -> list[float]:
    """The scores of TextClassificationPipeline, by its own choice of function."""
    import torch
    from transformers import TextClassificationPipeline

    names = {index: f"name{index}" for index in range(len(logits))}
    config = SimpleNamespace(
        problem_type=problem or None, num_labels=len(logits), id2label=names, function_to_apply=None
    )
    pipeline = cast(Any, object.__new__(TextClassificationPipeline))
    pipeline.model, pipeline.framework = SimpleNamespace(config=config), "np"
    told = pipeline.postprocess({"logits": torch.tensor(logits)[None]}, top_k=None, _legacy=False)
    scores = {each["label"]: each["score"] for each in told}
    return [scores[f"name{index}"] for index in range(len(logits))]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("logits", [[0.3], [-800.0], [2.0, -1.0, 0.5]])
def test_scores_are_those_of_transformers_pipeline(problem: str, logits: list[float]) -> None:
    values = np.array(logits, np.float32)
    labels = tuple(f"name{index}" for index in range(len(values)))
    tensor = Tensor(name="logits", dtype="float32", shape=("batch", len(values)), role="logits")
    signature = SIGNATURE.model_copy(update={"outputs": (tensor,), "labels": labels})
    told = answer(signature, {"logits": values}, cast(Any, None), problem=problem)
    with np.errstate(over="ignore"):
        wanted = pipelines(values, problem)
    found = list(told["scores"].values()) if len(values) > 1 else [told["score"]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)


def test_the_kind_of_problem_is_config_json_s(tmp_path: Path) -> None:
    assert problem_type(tmp_path) == ""
    for said in ("regression", None):
        (tmp_path / "config.json").write_text(json.dumps({"problem_type": said}))
        assert problem_type(tmp_path) == (said or "")
