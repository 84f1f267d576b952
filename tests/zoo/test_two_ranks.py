"""Models of every kind on two ranks, against torch's DistributedDataParallel; ``make zoo`` runs all of them."""

from __future__ import annotations

import pytest

from benchmarks.libraries import missing
from tests.zoo.difference import LIMIT
from tests.zoo.registry import ZOO
from tests.zoo.survey import Found, survey
from tests.zoo.two_ranks import check

_CHOSEN = (
    "torch-lstm-stack", "torch-adaptive-softmax", "torch-spectral-norm", "torch-checkpoint", "gpt2", "llama",
    "llama-checkpointed", "mixtral", "mamba", "bert", "deberta-v2", "t5", "whisper", "wav2vec2", "vit", "clip",
    "llama-lora", "unet2d-condition", "monai-unet", "timm-mobilenetv3-small-050", "torchvision-mobilenet-v2",
    "vit-pytorch-vit", "x-decoder",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> dict[str, Found]:
    """The outcome of every model that a selected test asks for, all from one pair of ranks."""
    selected = [item.callspec.params["name"] for item in request.session.items if _asks(item)]  # type: ignore[attr-defined]
    names = [name for name in selected if not missing(ZOO[name].library)]
    return {outcome.name: outcome for outcome in survey(check, names, 2)}


def _asks(item: pytest.Item) -> bool:
    return getattr(item, "originalname", "") == "test_gradients_equal_ddp"


@pytest.mark.xdist_group("two ranks")
def test_one_worker_runs_all(request: pytest.FixtureRequest) -> None:
    """A pytest that the workers' plugin does not know drops the groups, and each worker starts ranks of its own."""
    assert not getattr(request.config.option, "loadgroup", False) or request.node.nodeid.endswith("@two ranks")


@pytest.mark.xdist_group("two ranks")
@pytest.mark.timeout(600)  # the first test waits for all
@pytest.mark.parametrize("name", _CHOSEN)
def test_gradients_equal_ddp(found: dict[str, Found], name: str) -> None:
    """On both ranks, from their own data: loss and every gradient are DDP's."""
    if missing(ZOO[name].library):
        pytest.skip(f"{ZOO[name].library} is not installed")
    outcome = found[name]
    assert not outcome.failure, outcome.failure
    assert [str(one) for one in outcome.results if one.ulps > LIMIT] == []
