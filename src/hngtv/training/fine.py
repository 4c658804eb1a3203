"""Stage 2, or the only stage: a U-Net, gated or plain, that outlines the tumour inside a region of interest."""

from torch import Tensor

from hngtv.training.stage import SegmentationStage


class FineSegmentationModule(SegmentationStage):
    """Labels of the cohort: background, GTVp and, where the cohort has it, GTVn."""

    def classes_of(self, target: Tensor) -> Tensor:
        return target
