"""A tiny random Grounding DINO and SAM of the real transformers classes, saved as a user's directories are."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import Any

from tests.tiny import NAMES


def save_tiny_detector(directory: Path, *, seed: int = 0) -> Path:
    """A Grounding DINO that scores six boxes an image, all near .5."""
    import torch
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *sorted({w for name in NAMES for w in name.split()})]
    words += [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    tokenizer: Any = BertTokenizer(vocab={word: index for index, word in enumerate(dict.fromkeys(words))})
    text = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    backbone = SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        num_queries=6,
        max_text_len=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        GroundingDinoForObjectDetection(config).save_pretrained(directory)
    reader = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 144})
    GroundingDinoProcessor(reader, tokenizer).save_pretrained(directory)
    return directory


def save_tiny_segmenter(directory: Path, *, seed: int = 0) -> Path:
    """A SAM that sees images at 64 pixels."""
    import torch
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    small = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SamConfig(
        vision_config={
            **small,
            "output_channels": 16,
            "image_size": 64,
            "patch_size": 16,
            "window_size": 2,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={**small, "iou_head_hidden_dim": 16},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        SamModel(config).save_pretrained(directory)
    reader = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    SamProcessor(reader).save_pretrained(directory)
    return directory
