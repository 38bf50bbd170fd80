"""What `acceptance.py` makes for itself: a tiny checkpoint, and a pair of keys."""

import json
from pathlib import Path
from typing import Any


def keys(work: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP256R1()), forms.Encoding.PEM
    private, public = work / "key.pem", work / "key.pub"
    private.write_bytes(key.private_bytes(pem, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    form = forms.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    return private, public


def tiny(work: Path) -> Path:
    """A random Llama that can be released in moments, and its configuration."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = work / "checkpoint"  # beside its workspace
    folder.mkdir(exist_ok=True)
    words = ["<unk>", "</s>", "what", "is", "the", "capital", "of", "france", "train", ".", "?"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    config = LlamaConfig(vocab_size=len(words), eos_token_id=1, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    path = folder / "llmdeploy.toml"
    path.write_text(f'[model]\ncheckpoint = "{folder}"\n[bundle]\nname = "tiny-llama"\n')
    return path
