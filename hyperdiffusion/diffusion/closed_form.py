"""What distributions with an optimal denoiser in closed form share: tensors, and what follows from them."""

from typing import ClassVar

import torch
from torch import nn


class ClosedFormDistribution(nn.Module):
    """A distribution that is given by the tensors named in `TENSORS`."""

    TENSORS: ClassVar[tuple[str, ...]]

    def __init__(self, *tensors: torch.Tensor):
        """Make the distribution of its tensors, in the order of their names."""
        super().__init__()
        for name, tensor in zip(self.TENSORS, tensors, strict=True):
            self.register_buffer(name, tensor)
        self._derive()
        # A loaded state replaces the tensors.
        self.register_load_state_dict_post_hook(lambda module, _: module._derive())

    def _derive(self) -> None:
        """Set the buffers that follow from the tensors; states do not have them."""
        raise NotImplementedError
