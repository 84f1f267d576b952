"""HuggingFace ``Trainer``: accumulation, clipping, bf16, checkpoints and resuming, against torch's DDP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integrations.wrappers import LINE, Outcome, differing, needs, outcome, train_with_each, wrapped_by

pytestmark = needs("accelerate", "transformers")

SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {},
    "resumed": {},
    "bf16": {"bf16": True},
    "checkpointed": {"activation_checkpointing": True},
}


class Tokens(torch.utils.data.Dataset):
    """Random tokens, the same on every rank."""

    def __init__(self) -> None:
        self.tokens = torch.randint(0, 64, (32, 16), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def trainer(folder: Path, **options: Any) -> Any:
    """A Trainer of a small GPT-2: four steps, two micro-steps each, clipped, evaluated and saved every second step."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

    set_seed(0)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 64, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        learning_rate=1e-2,
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        logging_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    return Trainer(model=model, args=arguments, train_dataset=Tokens(), eval_dataset=Tokens())


def train(replaced: bool, folder: str) -> dict[str, Outcome | str]:
    """Every scenario, one after the other, and what was said on standard error."""
    with wrapped_by(replaced) as said:
        from accelerate.state import AcceleratorState
        from transformers import GPT2LMHeadModel

        found: dict[str, Outcome | str] = {}
        for name, options in SCENARIOS.items():
            AcceleratorState._reset_state()  # one mixed precision a process otherwise
            home = Path(folder) / ("plain" if name == "resumed" else name)
            made = trainer(home, **options)
            made.train(resume_from_checkpoint=str(home / "checkpoint-2") if name == "resumed" else None)
            saved = GPT2LMHeadModel.from_pretrained(home / "checkpoint-4")
            losses = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
            extra = (losses, differing(outcome(saved, saved), outcome(made.model, made.model)))
            found[name] = outcome(made.model, made.model_wrapped, extra)
        found["said"] = said.getvalue()
        return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Any]]:
    """All scenarios on both ranks, with either wrapper."""
    return train_with_each(train, tmp_path_factory.mktemp("trainer"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_trainer_ends_with_the_bits_of_ddp(trained: dict[bool, list[Any]], scenario: str) -> None:
    """Parameters on both ranks, losses of the evaluations, and what ``save_pretrained`` wrote."""
    for mine, theirs in zip(trained[True], trained[False], strict=True):
        assert differing(mine[scenario], theirs[scenario]) == []
        assert mine[scenario].extra == theirs[scenario].extra
        losses, unsaved = mine[scenario].extra
        assert len(losses) == 2
        assert unsaved == []
        assert mine[scenario].wrapper == "autopar.nn.distributed"
        assert theirs[scenario].wrapper == "torch.nn.parallel.distributed"


def test_resuming_ends_where_the_whole_run_did(trained: dict[bool, list[Any]]) -> None:
    """Model, optimizer, schedule and random numbers come back from ``checkpoint-2``."""
    for mine in trained[True]:
        assert differing(mine["resumed"], mine["plain"]) == []


def test_a_line_says_that_autopar_runs(trained: dict[bool, list[Any]]) -> None:
    """Once, on rank 0, with the place that constructs the wrapper."""
    first, second = (found["said"] for found in trained[True])
    assert len(re.findall(LINE.format(r"accelerator\.py:\d+"), first)) == 1
    assert "DistributedDataParallel" not in second
