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
