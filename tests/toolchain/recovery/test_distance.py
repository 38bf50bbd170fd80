"""What recovery takes for far: outputs of one number too, and no padding, however rows lie."""

import numpy as np
import pytest
import torch
from llmdeploy.toolchain.recovery.distance import Distance

DRAW = np.random.default_rng(0)


@pytest.mark.parametrize("logits", [(), ("y",)])
def test_one_number_is_held_by_its_error(logits: tuple[str, ...]) -> None:
    """A reranker's logit: neither its cosine nor its softmax tells anything, nor has a gradient."""
    theirs = DRAW.normal(size=(4, 1)).astype("f4")
    ours = torch.from_numpy(2 * theirs).requires_grad_()
    loss = Distance(("y",), logits, (), None)({"y": ours}, {"y": theirs}, {})
    assert loss.item() == pytest.approx(1.0, rel=1e-5)  # an error as large as the number
    loss.backward()
    assert ours.grad is not None
    assert ours.grad.abs().min() > 0


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("past", [0, 2])
def test_padding_does_not_count(flat: bool, past: int) -> None:
    """Rows of all tokens of all texts too, which is what a Gemm of GPT-2 reads."""
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    feed = {"mask": np.concatenate([np.ones((2, past), mask.dtype), mask], 1)}
    theirs = DRAW.normal(size=(2, 3, 16)).astype("f4")
    ours = theirs.copy()
    ours[1, 2] += 9
    if flat:
        theirs, ours = (each.reshape(6, 16) for each in (theirs, ours))
    distance = Distance(("y",), (), ("h",), "mask")

    def loss(array: np.ndarray) -> float:
        tensor = torch.from_numpy(array)
        return distance({"y": tensor, "h": tensor}, {"y": theirs, "h": theirs}, feed).item()

    assert loss(ours) == pytest.approx(0.0, abs=1e-6)
    ours[0] += 9
    assert loss(ours) > 0.1
