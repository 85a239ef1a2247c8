"""Networks of many families, the smallest that a library has or an unedited factory gives, with random weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from microtome.networks import NetworkSpec, load_network

SWIN = {"patch_size": [4, 4], "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": [4, 4]}
VIT = {"image_size": 64, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 20}


@dataclass(frozen=True)
class Architecture:
    """A network of a family.

    Args:
        family: what the family is called.
        load, arguments: as in an audit file.
        layers: some of it with maps: in its trunk, in an MLP, in windows.
        size: of its input, in pixels.
        heads: layers inside attention.
    """

    family: str
    load: str
    layers: tuple[str, ...]
    size: int = 64
    arguments: dict[str, object] = field(default_factory=dict)
    heads: tuple[str, ...] = ()

    def network(self) -> nn.Module:
        """It, with random weights, in which no unit is dead from the start: gates of residual branches are opened."""
        network = load_network(NetworkSpec(self.load, self.arguments))
        torch.manual_seed(1)
        for parameter in network.parameters():
            if parameter.numel() > 1 and bool((parameter.abs() < 1e-3).all()):
                nn.init.normal_(parameter, std=0.1)
        return network


def timm(family: str, name: str, *layers: str, size: int = 64, heads: tuple[str, ...] = (), **arguments: object):
    return Architecture(family, f"timm:{name}", layers, size, arguments, heads)


def torchvision(family: str, name: str, *layers: str, heads: tuple[str, ...] = (), **arguments: object):
    return Architecture(family, f"torchvision.models{name}", layers, 64, arguments, heads)


ENCODER = "encoder.layers.encoder_layer_0"
GRIDDED = tuple(f"stages.0.blocks.0.attn_{kind}.attn.qkv" for kind in ("block", "grid"))
SMALL_SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3]}
FAMILIES = (
    torchvision("SqueezeNet", ":squeezenet1_1", "features.7"),
    torchvision("ShuffleNet", ":shufflenet_v2_x0_5", "stage2"),
    torchvision("GoogLeNet", ":googlenet", "inception4a", init_weights=False),
    torchvision("ViT", ".vision_transformer:VisionTransformer", f"{ENCODER}.mlp.1", "encoder.ln", **VIT),
    torchvision("Swin", ".swin_transformer:SwinTransformer", "features.1.1.mlp.1", "features.2", **SWIN),
    timm("ResNet", "resnet10t", "layer2"),
    timm("DenseNet", "densenet121", "features.denseblock2"),
    timm("MobileNet v3", "mobilenetv3_small_050", "blocks.2"),
    timm("EfficientNet", "efficientnet_lite0", "blocks.3"),
    timm("RegNet", "regnetx_002", "s2"),
    timm("NFNet", "nf_resnet26", "stages.1"),
    timm("RepVGG", "repvgg_a0", "stages.1"),
    timm("HRNet", "hrnet_w18_small", "stage2.0.branches.0", "incre_modules.1", size=128),
    timm("GhostNet", "ghostnet_050", "blocks.3"),
    timm("ConvNeXt", "convnext_atto", "stages.1", "stages.1.blocks.0.mlp.act", size=128),
    timm("PoolFormer", "poolformer_s12", "stages.1"),
    timm("EdgeNeXt", "edgenext_xx_small", "stages.1"),
    timm("MLP-Mixer", "mixer_s32_224", "blocks.1", "blocks.1.mlp_channels.act", img_size=128, size=128),
    timm("ViT, registers", "vit_wee_patch16_reg1_gap_256", "blocks.1", "blocks.1.mlp.act", img_size=64, depth=3),
    timm("DeiT, distilled", "deit_tiny_distilled_patch16_224", "blocks.1", "blocks.1.mlp.act", img_size=64, depth=3),
    timm("Swin, timm's", "swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn.qkv", "layers.1", **SMALL_SWIN),
    timm("Swin v2", "swinv2_tiny_window8_256", "layers.0", "layers.0.blocks.1.mlp.act", **SMALL_SWIN),
    timm("CaiT", "cait_xxs24_224", "blocks.1", "blocks.1.mlp.act", img_size=64, depth=3),
    timm("XCiT", "xcit_nano_12_p16_224", "blocks.1", "blocks.1.mlp.act", depth=3),
    timm("PVT v2", "pvt_v2_b0", "stages.1", "stages.1.blocks.0.mlp.act"),
    timm("CoaT", "coat_lite_tiny", "serial_blocks2.0", img_size=64),
    timm("MaxViT", "maxvit_rmlp_pico_rw_256", *GRIDDED, "stages.1", img_size=64),
    timm("CoAtNet", "coatnet_pico_rw_224", "stages.1", img_size=64),
    timm("MobileViT", "mobilevit_xxs", "stages.2.1.transformer.0.attn.qkv", "stages.2.1"),
)  # fmt: skip
