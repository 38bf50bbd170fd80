"""A model run by blocks, the weights of earlier ones replaced."""

from pathlib import Path

import numpy as np
import onnx
from llmdeploy.calibration import Chain, forward

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[rows,16] x) => (float[rows,16] y)
{
  a = MatMul(x, w0)
  b = Relu(a)
  c = MatMul(b, w1)
  d = Add(c, x)
  e = MatMul(d, w2)
  f = Tanh(e)
  y = MatMul(f, w3)
}
"""
WANTED = ["x", "b", "d", "f"]
# Float32 sums of sixteen products of about one, in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def write(folder: Path, weights: dict[str, np.ndarray]) -> Path:
    proto = onnx.parser.parse_model(TEXT)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    folder.mkdir()
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def drawn(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {f"w{i}": random.normal(size=(16, 16)).astype("f4") / 4 for i in range(4)}


def test_a_block_runs_as_it_is_on_what_the_replaced_ones_gave(tmp_path: Path):
    plain, other = drawn(0), drawn(1)
    one, two = write(tmp_path / "one", plain), write(tmp_path / "two", other)
    feeds = [{"x": np.random.default_rng(i).normal(size=(3, 16)).astype("f4")} for i in range(4)]
    aside = tmp_path / "aside"
    aside.mkdir()
    found: dict[str, list[np.ndarray]] = {}
    links = 0
    for link in Chain(one, WANTED, feeds, aside, size=16 * 16 * 4):
        links += 1
        for arrays in link.run():
            for name in link.outputs:
                found.setdefault(name, []).append(arrays[name])
        link.advance({name: other[name] for name in ("w0", "w1")})
    assert links >= 3
    assert list(found) == WANTED
    assert not list(aside.rglob("*.npy"))
    mine, theirs = (list(forward(path, WANTED, feeds)) for path in (one, two))
    for index in range(len(feeds)):
        np.testing.assert_array_equal(found["x"][index], feeds[index]["x"])
        np.testing.assert_allclose(found["b"][index], mine[index]["b"], **TOLERANCE)
        wanted = np.tanh(theirs[index]["d"] @ plain["w2"])
        np.testing.assert_allclose(found["f"][index], wanted, **TOLERANCE)


def test_weights_given_before_their_block_are_kept_for_it(tmp_path: Path):
    plain = drawn(0)
    one = write(tmp_path / "one", plain)
    aside = tmp_path / "aside"
    aside.mkdir()
    feeds = [{"x": np.ones((2, 16), "f4")}]
    for place, link in enumerate(Chain(one, WANTED, feeds, aside, size=16 * 16 * 4)):
        arrays = next(link.run())
        if "f" in arrays:  # w1 was zeroed before the block that reads it: d is x
            np.testing.assert_allclose(
                arrays["f"], np.tanh(feeds[0]["x"] @ plain["w2"]), **TOLERANCE
            )
        link.advance({"w1": np.zeros((16, 16), "f4")} if place == 0 else {})
