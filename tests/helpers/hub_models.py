"""Small random models as their makers publish them: CLIP, SigLIP, DINOv2 and ViT, with real tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SIDE = 32
TEXTS = ("a red bicycle", "a photo of a dog on a beach", "the night sky over a city", "two cats asleep")
_LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def save_clip(folder: Path) -> Any:
    """A CLIP with a byte-level BPE tokenizer. Returns the model."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS * 5, trainer)
    bpe.model.save(str(folder))
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**_LAYERS, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 24}
    config = CLIPConfig(
        text_config={**text, "projection_dim": 16, "pad_token_id": tokenizer.pad_token_id},
        vision_config={**_LAYERS, "image_size": SIDE, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return _save(folder, lambda: CLIPModel(config), processor)


def save_siglip(folder: Path) -> Any:
    """A SigLIP with a sentencepiece tokenizer. Returns the model."""
    import sentencepiece
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16)
    tokenizer.save_pretrained(folder)
    config = SiglipConfig(
        text_config={**_LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**_LAYERS, "image_size": SIDE, "patch_size": 8},
    )
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _save(folder, lambda: SiglipModel(config), processor)


def save_dinov2(folder: Path) -> Any:
    """A DINOv2, whose photos are resized and then cropped. Returns the model."""
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE, patch_size=8
    )
    processor = BitImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": SIDE, "width": SIDE})
    return _save(folder, lambda: Dinov2Model(config), processor)


def save_dinov2_with_registers(folder: Path) -> Any:
    """A DINOv2 with register tokens. Returns the model."""
    from transformers import BitImageProcessorPil, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE, patch_size=8
    )
    processor = BitImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": SIDE, "width": SIDE})
    return _save(folder, lambda: Dinov2WithRegistersModel(config), processor)


def save_altclip(folder: Path) -> Any:
    """An AltCLIP without a tokenizer. Returns the model."""
    from transformers import AltCLIPConfig, AltCLIPModel, CLIPImageProcessorPil

    config = AltCLIPConfig(
        text_config={**_LAYERS, "vocab_size": 400, "max_position_embeddings": 24, "project_dim": 16},
        vision_config={**_LAYERS, "image_size": SIDE, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return _save(folder, lambda: AltCLIPModel(config), processor)


def save_vit_classifier(folder: Path) -> Any:
    """A ViT that was fine-tuned, so that it has a classifier and no pooler. Returns the model."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    config = ViTConfig(**_LAYERS, image_size=SIDE, patch_size=8, num_labels=3)
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _save(folder, lambda: ViTForImageClassification(config), processor)


def _save(folder: Path, make: Callable[[], Any], processor: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the usual 0.02 leaves all photos' vectors almost the same
            if parameter.ndim > 1:
                parameter.mul_(6)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model
