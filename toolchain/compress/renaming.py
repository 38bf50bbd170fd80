"""A tokenizer and configurations with other token ids: what `vocabulary` leaves beside a graph."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from .tokens import NAMED, STALE, TOKENIZER, Json, merges, pieces, read

_CONFIGURATIONS = ("config.json", "generation_config.json")
#: Settings that forbid ids, or phrases of them.
_FORBIDDEN = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


def rename(source: Path, target: Path, ids: Sequence[int]) -> None:
    """Write tokenizer.json and the configurations of `source` to `target`; `ids[i]` becomes i."""
    places = {old: new for new, old in enumerate(ids)}
    made = renamed(read(source), places)
    (target / TOKENIZER).write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    for name in _CONFIGURATIONS:
        if (source / name).is_file():
            found = json.loads((source / name).read_text(encoding="utf-8"))
            changed = _configuration(found, places, len(ids))
            (target / name).write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")
    settings = source / "tokenizer_config.json"
    if settings.is_file():
        found = json.loads(settings.read_text(encoding="utf-8"))
        decoder: Json = found.get("added_tokens_decoder") or {}
        if decoder:
            found["added_tokens_decoder"] = {
                str(places[int(old)]): each for old, each in decoder.items() if int(old) in places
            }
        (target / settings.name).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name in STALE:
        (target / name).unlink(missing_ok=True)


def renamed(tokenizer: Json, places: Mapping[int, int]) -> Json:
    """A tokenizer.json with the tokens whose old id has a new place, and no others.

    Added ones may have none either: those that the model has no row for.
    """
    known, model = pieces(tokenizer), dict(tokenizer["model"])
    if isinstance(model["vocab"], dict):
        vocabulary = cast(dict[str, int], model["vocab"])
        model["vocab"] = {t: places[i] for t, i in vocabulary.items() if i in places}
    else:
        model["vocab"] = [each for at, each in enumerate(model["vocab"]) if at in places]
        if model.get("unk_id") is not None:
            model["unk_id"] = places[model["unk_id"]]
    if model.get("merges") is not None:
        model["merges"] = [
            [one, two]
            for one, two, both in merges(tokenizer)
            if all(known.get(each) in places for each in (one, two, both))
        ]
    made = {**tokenizer, "model": model}
    made["added_tokens"] = [
        {**each, "id": places[each["id"]]}
        for each in tokenizer.get("added_tokens") or ()
        if each["id"] in places
    ]
    made["post_processor"] = _processor(tokenizer.get("post_processor"), places)
    if tokenizer.get("padding"):
        padding = tokenizer["padding"]
        pad = places.get(padding["pad_id"])
        made["padding"] = None if pad is None else {**padding, "pad_id": pad}
    return made


def _processor(value: Any, places: Mapping[int, int]) -> Any:
    if isinstance(value, list):
        return [_processor(each, places) for each in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    made: Json = {}
    for key, each in cast(Json, value).items():
        if key == "ids":
            made[key] = [places[old] for old in each]
        elif key in ("sep", "cls"):
            made[key] = [each[0], places[each[1]]]
        else:
            made[key] = _processor(each, places)
    return made


def _configuration(value: Any, places: Mapping[int, int], size: int) -> Any:
    """The same configuration with new ids; one whose token went is none."""
    if not isinstance(value, dict):
        return value
    made: Json = {}
    for key, each in cast(Json, value).items():
        if key.endswith(NAMED) or key in _FORBIDDEN:
            made[key] = _new(each, places)
        elif key == "vocab_size":
            made[key] = size
        else:
            made[key] = _configuration(each, places, size)
    return made


def _new(value: Any, places: Mapping[int, int]) -> Any:
    """New ids of an id, a list or phrases: one that went is left out, and a phrase that had it.

    What is not there any more need not be forbidden.
    """
    if isinstance(value, list):
        given = cast(list[Any], value)
        whole = (one for one in given if not isinstance(one, list) or places.keys() >= {*one})
        return [new for new in (_new(one, places) for one in whole) if new is not None]
    return places.get(value) if isinstance(value, int) else value
