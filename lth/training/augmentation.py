"""Augmentation of training inputs: random crops and flips."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Augmentation:
    """Random crops and flips that are drawn for a batch of n inputs.

    Every side of an input is padded by `crop` pixels, and a window of the old size is cut. Padding
    is 0 after preprocessing, which is the mean if inputs are standardised (He et al. 2016).
    `drawn` (3, n) int64: the row and the column at which the window begins, in [0, 2 `crop`], and
    whether the input is mirrored left to right, 0 or 1.
    """

    crop: int
    drawn: Tensor

    @classmethod
    def draw(cls, count: int, *, flip: bool, crop: int, random: torch.Generator) -> "Augmentation":
        """Draw from a generator of the CPU. `flip`: mirror with probability 1/2; `crop`: 0
        disables windows."""
        begins = torch.randint(0, 2 * crop + 1, (2, count), generator=random)
        mirrored = torch.rand((1, count), generator=random) < (0.5 if flip else 0.0)
        return cls(crop, torch.cat([begins, mirrored.long()]))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the augmented inputs (n, channels, height, width), on their device."""
        count, _, height, width = inputs.shape
        device = inputs.device
        down, right, mirrored = self.drawn.to(device, non_blocking=True).unsqueeze(2)
        columns = torch.arange(width, device=device).expand(count, width)
        columns = torch.where(mirrored == 1, columns.flip(1), columns) + right
        rows = torch.arange(height, device=device) + down
        image = torch.arange(count, device=device).view(-1, 1, 1)
        padded = pad(inputs, (self.crop,) * 4).permute(0, 2, 3, 1)
        cut = padded[image, rows.unsqueeze(2), columns.unsqueeze(1)]
        return cut.permute(0, 3, 1, 2).contiguous()
