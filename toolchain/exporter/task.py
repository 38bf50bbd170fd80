"""What a checkpoint is for: the task, and the transformers class that does it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import ConfigError, ExportError

#: Task -> (transformers' table of classes, auto class). The order decides for a class in two
#: tables (BART is offered for masked LM too).
TASKS: dict[str, tuple[str, str]] = {
    "text2text-generation": ("SEQ_TO_SEQ_CAUSAL_LM", "AutoModelForSeq2SeqLM"),
    "automatic-speech-recognition": ("SPEECH_SEQ_2_SEQ", "AutoModelForSpeechSeq2Seq"),
    "ctc": ("CTC", "AutoModelForCTC"),
    "fill-mask": ("MASKED_LM", "AutoModelForMaskedLM"),
    "text-generation": ("CAUSAL_LM", "AutoModelForCausalLM"),
    "text-classification": ("SEQUENCE_CLASSIFICATION", "AutoModelForSequenceClassification"),
    "token-classification": ("TOKEN_CLASSIFICATION", "AutoModelForTokenClassification"),
    "question-answering": ("QUESTION_ANSWERING", "AutoModelForQuestionAnswering"),
    "multiple-choice": ("MULTIPLE_CHOICE", "AutoModelForMultipleChoice"),
    "next-sentence-prediction": ("NEXT_SENTENCE_PREDICTION", "AutoModelForNextSentencePrediction"),
    "image-classification": ("IMAGE_CLASSIFICATION", "AutoModelForImageClassification"),
    "zero-shot-image-classification": (
        "ZERO_SHOT_IMAGE_CLASSIFICATION",
        "AutoModelForZeroShotImageClassification",
    ),
    "audio-classification": ("AUDIO_CLASSIFICATION", "AutoModelForAudioClassification"),
    "feature-extraction": ("", "AutoModel"),
}


@dataclass(frozen=True)
class Target:
    """A task, and the transformers class of this checkpoint that does it."""

    task: str
    model_class: Any
    notes: tuple[str, ...] = ()


def target(folder: Path, config: Any, task: str, trust_remote_code: bool) -> Target:
    """Settle task and class; `auto` reads them off `architectures` in config.json.

    Raises:
        ConfigError: an unknown task.
        ExportError: transformers has no class of this model for the task.
    """
    if task != "auto" and task not in TASKS:
        raise ConfigError(f"no task {task!r}", mend=f"auto or one of {', '.join(TASKS)}")
    if trust_remote_code and getattr(config, "auto_map", None):
        return _remote(folder, config, task)
    name = next(iter(getattr(config, "architectures", None) or ()), "")
    notes: tuple[str, ...] = ()
    if task == "auto":
        task = "feature-extraction" if _embeds(folder) else _task_of(name)
        if not name:
            notes = ("config.json names no architecture: exported for feature extraction",)
    return Target(task, _class_of(config, name, task), notes)


def _embeds(folder: Path) -> bool:
    return (folder / "modules.json").is_file()


def _table(task: str) -> dict[str, tuple[str, ...]]:
    from transformers.models.auto import modeling_auto

    table = TASKS[task][0]
    names = getattr(
        modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES" if table else "MODEL_MAPPING_NAMES"
    )
    return {kind: (name,) if isinstance(name, str) else tuple(name) for kind, name in names.items()}


def _task_of(architecture: str) -> str:
    tasks = (task for task in TASKS if any(architecture in name for name in _table(task).values()))
    return next(tasks, "feature-extraction")


def _class_of(config: Any, architecture: str, task: str) -> Any:
    import transformers

    offered = _table(task).get(config.model_type, ())
    encodes = task == _task_of(architecture) == "feature-extraction"
    if architecture in offered or (encodes and hasattr(transformers, architecture)):
        return getattr(transformers, architecture)
    try:
        found = getattr(transformers, TASKS[task][1])._model_mapping[type(config)]
        return found[0] if isinstance(found, tuple) else found
    except KeyError as error:
        raise ExportError(
            f"transformers has no {task} class of {config.model_type}",
            where=architecture or "config.json",
            mend=f"a task it has: {', '.join(_possible(config.model_type)) or 'none'}",
        ) from error


def _possible(model_type: str) -> list[str]:
    return [task for task in TASKS if model_type in _table(task)]


def _remote(folder: Path, config: Any, task: str) -> Target:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    known = {auto: name for name, (_, auto) in TASKS.items()}
    wanted = (
        [TASKS[task][1]] if task != "auto" else [one for one in config.auto_map if one in known]
    )
    for auto in wanted:
        if auto in config.auto_map:
            found = get_class_from_dynamic_module(config.auto_map[auto], str(folder))
            return Target(known[auto], found, (f"its own code was run: {config.auto_map[auto]}",))
    raise ExportError(
        "auto_map names no model class for the task", where=folder, mend="pass --task"
    )
