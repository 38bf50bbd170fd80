"""What is traced runs on example pixels and sounds of float32, whatever the weights are."""

from typing import Any

import pytest


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_floats_are_cast_and_ids_are_not(dtype: str) -> None:
    import torch
    from llmdeploy.toolchain.exporter.modules import Plain

    class Model(torch.nn.Linear):
        @property
        def dtype(self) -> torch.dtype:
            return self.weight.dtype

        def forward(self, input_features: Any, ids: Any, return_dict: bool) -> dict[str, Any]:  # type: ignore[override]
            return {"made": super().forward(input_features), "ids": ids, "all": return_dict}

    kind = getattr(torch, dtype)
    ids = torch.ones((2, 1), dtype=torch.int64)
    made = Plain(Model(4, 3).to(kind), {})(input_features=torch.zeros((2, 4)), ids=ids)
    assert (made["made"].dtype, made["ids"].dtype) == (kind, torch.int64)
