"""The public functions in one process: the model stays the user's model."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import autopar
from autopar.attach import attachment_of
from autopar.errors import LaunchError, ModelError, OptionError, UnknownNameError, UsageError


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher's environment, and nothing on stderr."""
    monkeypatch.setenv("AUTOPAR_QUIET", "1")
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)


class Net(nn.Module):
    """A model with methods, attributes and a buffer of its own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width, self.calls = width, 0
        self.fc1, self.norm, self.fc2 = nn.Linear(6, width), nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """The user's own text."""
        return self.fc2(F.relu(self.norm(self.fc1(x * scale))))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Calls the model from inside one of its methods."""
        return F.cross_entropy(self(x), y)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 6, generator=generator), torch.randint(3, (5,), generator=generator)


def _train(model: nn.Module, steps: int = 3) -> None:
    optim = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = _batch()
    for _ in range(steps):
        optim.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optim.step()


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# what stays ------------------------------------------------------------------------------------


def test_parallelize_returns_the_same_object() -> None:
    """The model is transformed in place."""
    model = Net()
    assert autopar.parallelize(model) is model


def test_class_is_the_users() -> None:
    """``isinstance``, the class's name, module and docstring are the user's."""
    model = autopar.parallelize(Net())
    assert isinstance(model, Net)
    assert (type(model).__name__, type(model).__qualname__) == ("Net", "Net")
    assert type(model).__module__ == Net.__module__
    assert type(model).__doc__ == Net.__doc__
    assert repr(model) == repr(Net())


def test_forward_keeps_signature_and_docstring() -> None:
    """``inspect.signature(model.forward)`` is that of the user's forward."""
    model = autopar.parallelize(Net())
    assert inspect.signature(model.forward) == inspect.signature(Net().forward)
    assert model.forward.__doc__ == "The user's own text."


def test_methods_that_call_the_model_run_the_transformed_one() -> None:
    """``self(x)`` in a method of the user's goes through the compiled program."""
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    autopar.parallelize(model)
    x, y = _batch()
    assert torch.equal(model.loss(x, y), plain.loss(x, y))
    assert _attachment(model).compilation is not None


def test_attributes_are_read_and_written_as_before() -> None:
    """The user's attributes live where they lived."""
    model = autopar.parallelize(Net())
    model.calls += 3
    assert (model.width, model.calls) == (8, 3)
    with pytest.raises(AttributeError):
        _ = model.missing


def test_state_dict_keys_load_strictly_both_ways() -> None:
    """Keys have no prefix: plain and parallel models exchange state dicts."""
    model, plain = autopar.parallelize(Net()), Net()
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(plain.state_dict(), strict=True)


def test_parameters_are_the_same_objects() -> None:
    """Identity of every parameter is kept, also after a step."""
    model = Net()
    before = list(model.parameters())
    autopar.parallelize(model)
    _train(model, 1)
    assert all(p is q for p, q in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("before", [True, False])
def test_optimizer_may_be_made_before_or_after(before: bool) -> None:
    """An optimizer made on either side of the call trains the model."""
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    x, y = _batch()
    if before:
        optim = torch.optim.SGD(model.parameters(), lr=0.1)
        autopar.parallelize(model)
    else:
        autopar.parallelize(model)
        optim = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(x), y).backward()
    optim.step()
    F.cross_entropy(plain(x), y).backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    assert _equal(_state(model), _state(plain))


def test_one_process_trains_as_the_plain_model() -> None:
    """Without a launcher the world size is 1, and every bit of the state is the plain model's."""
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    autopar.parallelize(model)
    _train(model)
    _train(plain)
    assert _equal(_state(model), _state(plain))


def test_hooks_on_the_root_fire_once_a_call() -> None:
    """Forward hooks of the model itself run once, also in the call that compiles."""
    fired: list[str] = []
    model = Net()
    model.register_forward_pre_hook(lambda module, args: fired.append("pre"))
    model.register_forward_hook(lambda module, args, output: fired.append("post"))
    autopar.parallelize(model)
    for _ in range(2):
        model(_batch()[0])
    assert fired == ["pre", "post"] * 2


def test_gradient_clipping_works() -> None:
    """``clip_grad_norm_`` sees and scales the gradients."""
    model = autopar.parallelize(Net())
    (model(_batch()[0]) * 100).square().sum().backward()
    assert torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) > 1.0
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert total <= 1.0 + 1e-5


def test_no_grad_runs_the_users_forward() -> None:
    """Inference compiles nothing."""
    model = autopar.parallelize(Net()).eval()
    with torch.no_grad():
        assert model(_batch()[0]).shape == (5, 3)
    assert _attachment(model).compilation is None


def test_modes_pass_through() -> None:
    """``eval()`` and ``train()`` reach the submodules, and the compiled program follows them."""
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    autopar.parallelize(model)
    x = _batch()[0]
    for mode in (True, False, True):
        assert torch.equal(model.train(mode)(x), plain.train(mode)(x))


# copies and files ------------------------------------------------------------------------------


def test_deepcopy_is_parallel_and_independent() -> None:
    """A deep copy is parallel itself, and training it leaves the original alone."""
    model = autopar.parallelize(Net())
    _train(model, 1)
    twin = copy.deepcopy(model)
    assert isinstance(twin, Net)
    assert attachment_of(twin) is not attachment_of(model)
    before = _state(model)
    _train(twin)
    assert _equal(_state(model), before)
    assert not _equal(_state(twin), before)
    assert _attachment(twin).compilation is not None


def test_shallow_copy_leaves_the_original_parallel() -> None:
    """``copy.copy`` runs the user's forward; the original goes on as before."""
    model = autopar.parallelize(Net())
    shallow = copy.copy(model)
    x = _batch()[0]
    assert torch.equal(shallow.eval()(x), model.eval()(x))
    assert _attachment(model).compilation is not None


class CopiesItself(Net):
    """Has a ``__deepcopy__`` of its own, as many models have."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesItself:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return twin


def test_deepcopy_of_the_users_own_is_parallel_too() -> None:
    """The copy gets an attachment of its own."""
    twin = copy.deepcopy(autopar.parallelize(CopiesItself()))
    _train(twin, 1)
    assert _attachment(twin).compilation is not None


def test_new_instance_of_the_class_is_a_plain_model() -> None:
    """``type(model)(...)`` makes a model that runs, copies, moves and can be made parallel."""
    fresh = type(autopar.parallelize(Net()))(width=4)
    assert attachment_of(fresh) is None
    assert fresh.double()(_batch()[0].double()).shape == (5, 3)
    assert type(copy.deepcopy(fresh)) is Net
    autopar.parallelize(fresh)
    assert type(autopar.unparallelize(fresh)) is Net


def test_pickle_round_trip_trains() -> None:
    """Pickling keeps the strategy and the state; the copy trains."""
    model = autopar.parallelize(Net(), "ddp", bucket_cap_mb=7)
    _train(model, 1)
    twin = pickle.loads(pickle.dumps(model))
    assert _attachment(twin).strategy == autopar.DDP(bucket_cap_mb=7)
    assert _equal(_state(twin), _state(model))
    _train(twin, 1)


def test_torch_save_and_load_round_trip() -> None:
    """The whole model through ``torch.save``."""
    model = autopar.parallelize(Net())
    _train(model, 1)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    assert isinstance(twin, Net)
    assert _equal(_state(twin), _state(model))
    _train(twin, 1)


class Reduces(Net):
    """Says itself how it is pickled, without a state."""

    def __reduce__(self) -> Any:
        return (Reduces, (self.width,))


def test_pickle_of_the_users_own_is_kept() -> None:
    """A ``__reduce__`` of the user's decides what is rebuilt."""
    twin = pickle.loads(pickle.dumps(autopar.parallelize(Reduces(width=4))))
    assert twin.width == 4
    _train(twin, 1)


# the way back ----------------------------------------------------------------------------------


def test_unparallelize_restores_the_class_and_leaves_nothing() -> None:
    """Class, attributes and hooks are as before; the trained values stay."""
    model = Net()
    attributes = set(vars(model))
    autopar.parallelize(model)
    _train(model, 1)
    trained = _state(model)
    assert autopar.unparallelize(model) is model
    assert type(model) is Net
    assert set(vars(model)) == attributes
    assert _equal(_state(model), trained)
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())
    _train(model, 1)


def test_unparallelize_of_a_plain_model_does_nothing() -> None:
    """A model that is not parallel comes back as it is."""
    model = Net()
    assert type(autopar.unparallelize(model)) is Net


def test_parallelize_again_after_unparallelize() -> None:
    """The way back and forth is open."""
    model = autopar.parallelize(autopar.unparallelize(autopar.parallelize(Net())), "data_parallel", replicas=1)
    assert _attachment(model).strategy.name == "data_parallel"


# changes afterwards ----------------------------------------------------------------------------


def test_model_may_change_dtype_afterwards() -> None:
    """``model.double()`` is compiled anew and trains as the plain one."""
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    autopar.parallelize(model)
    x, y = _batch()
    for one in (model, plain):
        F.cross_entropy(one(x), y).backward()
        one.zero_grad()
        one.double()
        F.cross_entropy(one(x.double()), y).backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), plain.parameters(), strict=True))


def test_freezing_and_unfreezing_a_layer_afterwards() -> None:
    """The next forward follows ``requires_grad_``."""
    model = autopar.parallelize(Net())
    x, y = _batch()
    for trains in (True, False, True):
        model.zero_grad()
        model.fc1.requires_grad_(trains)
        F.cross_entropy(model(x), y).backward()
        assert (model.fc1.weight.grad is not None) is trains


def test_replacing_a_submodule_afterwards() -> None:
    """The program is compiled anew for the new layer."""
    model = autopar.parallelize(Net())
    x, y = _batch()
    model(x)
    model.fc2 = nn.Linear(8, 7)
    F.cross_entropy(model(x), y).backward()
    assert model(x).shape == (5, 7)
    assert model.fc2.weight.grad is not None


# strategies and messages -----------------------------------------------------------------------


def test_auto_says_what_it_picked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr with the strategy and the reason."""
    monkeypatch.setenv("AUTOPAR_QUIET", "0")
    autopar.parallelize(Net())
    assert capsys.readouterr().err.startswith("autopar: strategy 'ddp': one process")


def test_strategy_object() -> None:
    """A strategy object carries its options."""
    model = autopar.parallelize(Net(), autopar.DDP(bucket_cap_mb=3))
    assert _attachment(model).strategy == autopar.DDP(bucket_cap_mb=3)


def test_options_beside_a_strategy_object_are_refused() -> None:
    """Options belong to the object."""
    with pytest.raises(OptionError, match=r"bucket_cap_mb were given beside a strategy object.*DDP\(\.\.\.\)"):
        autopar.parallelize(Net(), autopar.DDP(), bucket_cap_mb=1)


def test_unknown_strategy_is_refused_with_a_suggestion() -> None:
    """The nearest name is named."""
    with pytest.raises(UnknownNameError, match=r"no strategy named 'dpd'\. Did you mean 'ddp'\?"):
        autopar.parallelize(Net(), "dpd")


def test_unknown_option_is_refused_with_a_suggestion() -> None:
    """The nearest option is named."""
    with pytest.raises(OptionError, match=r"no option 'bucket_cap'\. Did you mean 'bucket_cap_mb'\?"):
        autopar.parallelize(Net(), "ddp", bucket_cap=1)


@pytest.mark.parametrize("wrong", [None, 3, autopar.DDP])
def test_what_is_no_strategy_is_refused(wrong: Any) -> None:
    """Neither None nor a number nor a class is a strategy."""
    with pytest.raises(UsageError, match="neither a name nor a strategy object"):
        autopar.parallelize(Net(), wrong)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), "25", True])
def test_option_out_of_range_is_refused(value: Any) -> None:
    """A bucket size is a number that is not negative."""
    with pytest.raises(OptionError, match=r"The option bucket_cap_mb is .*\. It must be a number, 0 or more\."):
        autopar.parallelize(Net(), "ddp", bucket_cap_mb=value)


# models that cannot be --------------------------------------------------------------------------


def test_parallel_model_is_refused() -> None:
    """The second call names the way out, and the model stays parallel."""
    model = autopar.parallelize(Net())
    with pytest.raises(UsageError, match=r"This Net is parallel already\. Call autopar\.unparallelize"):
        autopar.parallelize(model, "ddp")
    _train(model, 1)


def test_model_in_torchs_data_parallel_is_refused() -> None:
    """The mend is the model inside."""
    with pytest.raises(UsageError, match=r"wrapped in torch's DataParallel.*model\.module"):
        autopar.parallelize(nn.DataParallel(Net()))


def test_parallel_submodule_is_refused() -> None:
    """Its gradients would be reduced twice."""
    with pytest.raises(UsageError, match=r"submodule '0' of this Sequential is parallel already, as autopar's Net"):
        autopar.parallelize(nn.Sequential(autopar.parallelize(Net())))
    with pytest.raises(UsageError, match=r"submodule '0' .* as torch's DataParallel"):
        autopar.parallelize(nn.Sequential(nn.DataParallel(Net())))


def test_what_is_no_module_is_refused() -> None:
    """A function is no model."""
    with pytest.raises(UsageError, match=r"A function was given where a torch\.nn\.Module is needed"):
        autopar.parallelize(_batch)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_script_module_is_refused() -> None:
    """Its class cannot be extended."""
    with pytest.raises(ModelError, match="ScriptModule"):
        autopar.parallelize(torch.jit.script(nn.Linear(6, 2)))


def test_forward_replaced_on_the_instance_is_refused() -> None:
    """Such a forward would run in place of ours, in silence; torch.compile's wrapper is such a model."""
    model = Net()
    model.forward = lambda x: model.fc1(x)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="replaced on the instance"):
        autopar.parallelize(model)


def test_model_without_trainable_parameters_is_refused() -> None:
    """There is no gradient to reduce."""
    with pytest.raises(ModelError, match="no trainable parameter"):
        autopar.parallelize(nn.ReLU())
    with pytest.raises(ModelError, match="no trainable parameter"):
        autopar.parallelize(Net().requires_grad_(False))


def test_lazy_model_is_refused_and_left_as_it_was() -> None:
    """The first lazy parameters are named; after one forward the model is taken."""
    model = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ModelError, match=r"lazy parameters without a shape: 0\.weight, 0\.bias"):
        autopar.parallelize(model)
    assert type(model) is nn.Sequential
    model(torch.randn(2, 3))
    autopar.parallelize(model)(torch.randn(2, 3)).sum().backward()


def test_meta_model_is_refused() -> None:
    """Parameters without values cannot be trained."""
    with torch.device("meta"):
        model = Net()
    with pytest.raises(ModelError, match=r"meta device.*to_empty"):
        autopar.parallelize(model)
    assert type(model) is Net


class _Registered(nn.Module):
    """Announces its subclasses, as plugin systems do."""

    known: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _Registered.known[cls.__name__] = cls

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Child(_Registered):
    """A registered subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 2)


def test_subclass_registries_of_the_user_hear_nothing() -> None:
    """``__init_subclass__`` is not called for the class that autopar puts in front."""
    autopar.parallelize(Child())
    assert _Registered.known["Child"] is Child


def test_symbolically_traced_model() -> None:
    """A torch.fx GraphModule is a model like any other."""
    model, plain = torch.fx.symbolic_trace(Net()), Net()
    plain.load_state_dict(model.state_dict())
    autopar.parallelize(model)
    _train(model)
    _train(plain)
    assert _equal(_state(model), _state(plain))
    _train(copy.deepcopy(model), 1)


# example inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "example",
    [torch.randn(5, 6), (torch.randn(5, 6),), (torch.randn(5, 6), 2.0), [torch.randn(5, 6)], {"x": torch.randn(5, 6)}],
    ids=["tensor", "tuple", "two", "list", "dict"],
)
def test_example_inputs_compile_at_once(example: Any) -> None:
    """A tensor, positional arguments or keyword arguments; the state is as before."""
    model = Net()
    before = _state(model)
    autopar.parallelize(model, example_inputs=example)
    assert _attachment(model).compilation is not None
    assert _equal(_state(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_example_that_the_model_refuses_leaves_it_untouched() -> None:
    """The model's own error comes through, and the model is not parallel."""
    model = Net()
    attributes = dict(vars(model))
    before = _state(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        autopar.parallelize(model, example_inputs=torch.randn(5, 7))
    assert type(model) is Net
    assert vars(model) == attributes
    assert _equal(_state(model), before)


def test_wrong_input_later_raises_the_models_error_and_harms_nothing() -> None:
    """After a call that fails the next one works."""
    model = autopar.parallelize(Net())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.randn(5, 7))
        _train(model, 1)


# the rest of the functions ----------------------------------------------------------------------


def test_no_sync_of_a_plain_model_is_refused() -> None:
    """There is nothing to put off."""
    with pytest.raises(UsageError, match="This Net is not parallel"), autopar.no_sync(Net()):
        pass


def test_no_sync_in_one_process_changes_nothing() -> None:
    """The gradients of a single process are what they are."""
    model = autopar.parallelize(Net())
    x, y = _batch()
    with autopar.no_sync(model):
        model.loss(x, y).backward()
    assert model.fc1.weight.grad is not None


def test_trace_opens_modules_and_leaves_the_model() -> None:
    """Explicit parameters in the graph; class and state of the model unchanged."""
    model = Net()
    before = _state(model)
    program = autopar.trace(model, _batch()[0])
    assert {"fc1.weight", "fc2.bias"} <= {str(node.target) for node in program.find("get_attr")}
    assert type(model) is Net
    assert _equal(_state(model), before)


def test_public_names_resolve() -> None:
    """Everything that ``__all__`` lists is there."""
    assert all(getattr(autopar, name) is not None for name in autopar.__all__)


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"RANK": "0"}, "incomplete: RANK set, WORLD_SIZE, MASTER_ADDR, MASTER_PORT missing"),
        ({"WORLD_SIZE": "2"}, "incomplete: WORLD_SIZE set, RANK"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 and WORLD_SIZE=2"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one', which is no number"),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "http"}, "MASTER_PORT='http', which is no number"),
    ],
)
@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_broken_launch_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], text: str, strategy: str
) -> None:
    """The variable that is wrong is named, and the model is left as it was."""
    if len(environment) > 1:
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **environment}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    model = Net()
    with pytest.raises(LaunchError, match=text):
        autopar.parallelize(model, strategy)
    assert type(model) is Net


def _attachment(model: nn.Module) -> Any:
    found = attachment_of(model)
    assert found is not None
    return found
