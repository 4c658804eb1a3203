"""Stage 1: a small U-Net that localises the tumour on the whole field of view at coarse spacing."""

from torch import Tensor

from hngtv.training.stage import SegmentationStage


class CoarseLocalisationModule(SegmentationStage):
    """Two classes: tumour of any kind (GTVp or GTVn) against everything else."""

    def classes_of(self, target: Tensor) -> Tensor:
        return target > 0
