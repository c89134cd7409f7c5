"""The smallest ViTMAE that tests train: 4 × 4 patches of 16 × 16 pixels, one layer on either side."""

TINY_MODEL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}
