"""Text as it comes: characters of several tokens, ends within them, bytes that are none."""

from pathlib import Path

import pytest
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.deploy.spelling import Spelling
from llmdeploy.deploy.text import Words
from tokenizers import Tokenizer, decoders, models

from .causal import write_causal


def words(folder: Path, vocabulary: list[str]) -> Words:
    """Tokens that are words, or bytes as Llama's tokenizer has them."""
    known = {each: index for index, each in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(known, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return Words(folder)


def spelled(of: Words, ids: list[int]) -> list[str]:
    spelling = Spelling(of)
    return [*(spelling.add(token) for token in ids), spelling.rest()]


def byte_words(folder: Path) -> Words:
    return words(folder, [f"<0x{byte:02X}>" for byte in range(256)] + ["ab", "é"])


@pytest.mark.parametrize("text", ["ab", "日本", "a😀b", "👩\u200d👧", "e\u0301"])
def test_a_character_comes_when_its_last_byte_does(tmp_path: Path, text: str) -> None:
    pieces = spelled(byte_words(tmp_path), list(text.encode()))
    assert [piece for piece in pieces if piece] == list(text)


def test_bytes_that_are_no_character_end_nothing(tmp_path: Path) -> None:
    ids = [65, 256, 0x80, 256, 0xE3, 0xE3, 257, 0xFF, 256]
    found = spelled(byte_words(tmp_path), ids)
    assert "".join(found) == "Aab\ufffdab\ufffd\ufffdé\ufffdab"


def test_what_is_held_at_the_end_is_given(tmp_path: Path) -> None:
    of = byte_words(tmp_path)
    assert spelled(of, [*"é".encode(), 0xE3, 0x81])[-1] == "\ufffd\ufffd"
    assert spelled(of, [256, 0x80])[-1] == "\ufffd"
    assert spelled(of, [256])[-1] == ""


def test_a_stream_is_the_whole_text_wherever_it_stops(tmp_path: Path) -> None:
    """With ends that begin and end within tokens, and characters of several."""
    folder = write_causal(tmp_path / "talker")
    words(folder, ["a", "bé", "<0xC3>", "<0xA9>", "éa", "<0xE6>", "<0x97>", "<0xA5>", " ", "日b"])
    with load(folder) as session:
        for seed in range(2):
            asked = Sampling(12, temperature=1.0, seed=seed)
            full = session.generate(["a"], asked)[0].text
            ends = {full[at : at + size] for at in range(len(full)) for size in (1, 3)}
            for end in sorted(ends):
                cut = Sampling(12, temperature=1.0, seed=seed, stop=(end,))
                steps, pieces = session.stream("a", cut), list[str]()
                while True:
                    try:
                        pieces.append(next(steps))
                    except StopIteration as last:
                        written = last.value
                        break
                assert "".join(pieces) == written.text == full[: full.index(end)]
                assert written == session.generate(["a"], cut)[0]
