"""Networks: attention gates, the U-Net around them, and sliding-window inference. PyTorch."""

from hngtv.networks.attention_gate import AttentionGate
from hngtv.networks.attention_unet import AttentionUNet

__all__ = ["AttentionGate", "AttentionUNet"]
