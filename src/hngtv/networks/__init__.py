"""Networks: attention gates, the U-Net and the classifier around them, and sliding-window inference. PyTorch."""

from hngtv.networks.attention_gate import AttentionGate
from hngtv.networks.attention_unet import AttentionUNet
from hngtv.networks.sononet import SonoNet

__all__ = ["AttentionGate", "AttentionUNet", "SonoNet"]
