"""EfficientNet-Lite0 as a torch module whose state_dict keys are those of the published PyTorch weights.

Belongs here: the network's definition and nothing else. MONAI's EfficientNetBN has squeeze-and-excite and swish, which
Lite leaves out, so it cannot load these weights. Importing this module imports torch: import it inside functions.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

FEATURES = 1280
# (repeats, kernel, stride of the first, expansion, output channels): tensorflow/tpu, efficientnet/lite.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _SameConv(nn.Conv2d):
    """A convolution padded like TensorFlow's SAME: with stride 2 and an even input, more to the right and bottom.

    torch's own symmetric padding shifts the features by a pixel per stride-2 layer; the weights were not trained so.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups, bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stride = self.stride[0]
        if stride > 1:
            height, width = (max((-(-n // stride) - 1) * stride + self.kernel_size[0] - n, 0) for n in x.shape[-2:])
            x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)  # TensorFlow's epsilon, not torch's 1e-5


class _Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise, project 1x1, with a skip where the shapes allow one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self._expands = expansion != 1
        self._skips = stride == 1 and inputs == outputs
        if self._expands:
            self._expand_conv, self._bn0 = _SameConv(inputs, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _SameConv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _SameConv(inner, outputs, 1), _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._skips else y


class EfficientNetLite0(nn.Module):
    """float32 [n, 3, 224, 224] scaled by (x-127)/128 -> [n, 1280], the pooled last convolution.

    `_fc` (the 1000 ImageNet classes) is kept so that the published weights load strictly; features do not pass it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _SameConv(3, 32, 3, 2), _norm(32)
        blocks: list[nn.Module] = []
        channels = 32
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _SameConv(channels, FEATURES, 1), _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        features: torch.Tensor = x.mean(dim=(2, 3))
        return features
