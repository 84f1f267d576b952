"""The digits example: its data and its model."""

from pathlib import Path

import digits
import pytest
import torch
import torch.nn.functional as F


def test_a_fifth_is_held_out() -> None:
    """All 1,797 images are used once: four fifths to train on and one fifth to test on."""
    train, held_out = digits.digits()
    assert (len(train), len(held_out)) == (1438, 359)
    images = torch.cat([train.tensors[0], held_out.tensors[0]])
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max(), images.dtype) == (0, 1, torch.float64)


def test_order_depends_on_the_epoch_alone() -> None:
    """An epoch is a permutation, the same at every call and another in the next epoch."""
    train, _ = digits.digits()
    first, again, second = (digits.shuffled(train, epoch).indices for epoch in (0, 0, 1))
    assert first == again != second
    assert sorted(second) == list(range(len(train)))


def test_batches_fill_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process sees 22 whole batches of 64 an epoch; what does not fill one is left out."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    train, _ = digits.digits()
    batches = list(digits.batches(train, range(2)))
    assert [len(images) for images, _ in batches] == [64] * 44


def test_gradient_is_the_mean_over_halves() -> None:
    """The model treats every image alone, so two half batches average to the whole batch exactly."""
    train, _ = digits.digits()
    images, labels = train[:64]
    model = digits.DigitClassifier().double()
    whole = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    halves = [
        torch.autograd.grad(F.cross_entropy(model(images[part]), labels[part]), list(model.parameters()))
        for part in (slice(0, None, 2), slice(1, None, 2))
    ]
    for expected, *parts in zip(whole, *halves, strict=True):
        torch.testing.assert_close(sum(parts) / 2, expected, rtol=1e-10, atol=1e-12)


def test_goes_on_from_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped within its second epoch repeats that one, and ends with the bits of an undisturbed run."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    train, _ = digits.digits()
    few = torch.utils.data.TensorDataset(*train[:256])

    def trained(folder: str, stop_at: int | None = None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = digits.DigitClassifier(width=4).double()
        count = 0

        def stop(*ignored: object) -> None:
            nonlocal count
            count += 1
            if count == stop_at:
                raise KeyboardInterrupt

        model.register_forward_pre_hook(stop)
        steps = digits.train(model, few, 3, tmp_path / folder)
        assert len(steps) == (12 if stop_at is None and folder == "whole" else 8)
        return [p.detach() for p in model.parameters()]

    with pytest.raises(KeyboardInterrupt):
        trained("stopped", stop_at=7)
    assert all(torch.equal(p, q) for p, q in zip(trained("stopped"), trained("whole"), strict=True))
