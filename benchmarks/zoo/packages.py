"""The model zoos, imported when they are needed, beside any build of torch.

torchvision's own operators are compiled for one build of torch and do not load into others, on which
importing the package fails for want of their names. Its models don't need them: the names are enough.
"""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any

import torch

_LIBRARIES: list[Any] = []  # a library that is collected takes its operators along


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)


def _import() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the image codecs, which don't load either
        import torchvision.models

        return torchvision.models


@functools.cache
def torchvision_models() -> Any:
    """Import torchvision.models."""
    try:
        return _import()
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_operators()
        return _import()


@functools.cache
def timm_package() -> Any:
    """Import timm, which imports torchvision."""
    torchvision_models()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it misses that models don't need
        import timm

        return timm


@functools.cache
def transformers_package() -> Any:
    """Import transformers, which imports torchvision where it is installed."""
    torchvision_models()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        return transformers
