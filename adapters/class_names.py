"""Names of the classes that the logits of a model stand for."""

from __future__ import annotations


def imagenet_classes() -> list[list[str]]:
    """The names of each of ImageNet's 1,000 classes, in their usual order (as timm lists them)."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return [
        [name.strip() for name in info.index_to_description(index).split(",")]
        for index in range(info.num_classes())
    ]
