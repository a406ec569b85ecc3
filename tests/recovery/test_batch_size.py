"""A device without memory left: the batch is named, and one that was tried and fits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import parallel
from fairgrape_jax.config import Stage
from fairgrape_jax.data import load
from fairgrape_jax.errors import TrainingError
from fairgrape_jax.parallel import out_of_memory
from fairgrape_jax.parallel.out_of_memory import OutOfMemoryError
from fairgrape_jax.recovery import batch_size
from fairgrape_jax.runner.run import run
from tests.helpers.experiments import TINY, with_fields

SHORT = with_fields(
    TINY, seeds=(0,), methods=("importance",), sparsity=0.5, final=Stage(), devices=2
)
# The pictures that a device gets in one call of a step, by the step's name.
NAMES = {"training": "train_step", "scoring": "accumulate", "evaluation": "evaluate_step"}


def no_memory():
    return jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12884901888 bytes.\nBufferAss"
    )


@pytest.fixture
def device(monkeypatch):
    """limit(what, images): more of them a device cannot hold; gives what calls were made."""
    called, limits, by_pmap = [], {}, parallel.LIFTS["pmap"]

    def lift(step, *how):
        compiled = by_pmap(step, *how)

        def limited(*args):
            batch = next((a for a in args if isinstance(a, dict) and "images" in a), None)
            if batch is not None:
                size = int(np.prod(batch["images"].shape[1:-3]))
                what = next(k for k, name in NAMES.items() if step.__name__ == name)
                called.append((what, size))
                if size > limits.get(what, size):
                    raise no_memory()
            return compiled(*args)

        return limited

    monkeypatch.setitem(parallel.LIFTS, "pmap", lift)
    return lambda what, images: limits.update({what: images}) or called


CASES = [
    # what, images a device can hold, its batch, the line
    ("training", 5, {}, "batch 32 (16 on each of 2 devices)", "8 was tried and fits: --batch 8,"),
    (
        "scoring",
        9,
        {},
        "scoring.micro_batch 16 on each of 2 devices",
        "8 was tried and fits: --scoring.micro-batch 8,",
    ),
    (
        "evaluation",
        70,
        {},
        "execution.evaluation_batch 256 on each of 2 devices",
        "64 was tried and fits: --execution.evaluation-batch 64, and the run goes on",
    ),
    pytest.param(
        "scoring",
        16,
        {"micro_batches": "vmap"},
        "scoring.micro_batch 16",
        "--execution.micro-batches single was tried and fits, to the same scores",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        *("training", 0, {}, "batch 32", "nothing smaller fits either"), marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("what", "images", "execution", "told", "advice"), CASES)
def test_the_batch_is_named_and_one_that_was_tried(
    what, images, execution, told, advice, device, tmp_path
):
    called = device(what, images)
    with pytest.raises(TrainingError) as error:
        run(with_fields(SHORT, **execution), tmp_path / "run")
    line = str(error.value)
    assert line.startswith(f"{what}: out of device memory with {told}")
    assert advice in line
    assert "allocate 12884901888 bytes" in line
    assert "\n" not in line
    tried = [size for name, size in called if name == what]
    if images and not execution:
        assert tried[-1] <= images  # a step was made, not a number halved
        assert min(size for size in tried if size > images) < 2 * images + 2


def test_the_advice_is_good(device, tmp_path):
    """A run that stopped in its evaluation goes on with what it was told."""
    device("evaluation", 70)
    with pytest.raises(TrainingError):
        run(SHORT, tmp_path / "run")
    run(with_fields(SHORT, evaluation_batch=64), tmp_path / "run")
    record = json.loads((tmp_path / "run/seed_0/importance/round_01/metrics.json").read_text())
    assert record["density"] == pytest.approx(0.5, abs=0.01)


def test_what_is_tried_holds_what_a_run_holds():
    """Two networks and the optimizer are on the devices while a batch is tried."""
    dataset, devices = load(SHORT.data), parallel.local_devices(2)
    assert batch_size.fits("training", SHORT, dataset, devices)
    seen = []
    trial = batch_size.TRIALS["training"]

    def looking(session, network, dense):
        seen.extend([network.state, dense.state])
        return trial(session, network, dense)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(batch_size.TRIALS, "training", looking)
        assert batch_size.fits("training", SHORT, dataset, devices)
    state, dense = seen
    leaves = jax.tree.leaves(dense)
    assert all(len(leaf.sharding.device_set) == 2 for leaf in leaves)
    assert not any(leaf.is_deleted() for leaf in leaves)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))  # the step took it over


@pytest.mark.parametrize("error", [ValueError("x"), jax.errors.JaxRuntimeError("INTERNAL: x")])
def test_other_errors_are_not_of_memory(error):
    with pytest.raises(type(error), match=r"x$"), out_of_memory.name_phase("training"):
        raise error
    assert not out_of_memory.is_out_of_memory(error)


def test_a_network_that_is_too_large_by_itself_is_told_so():
    dataset, devices = load(SHORT.data), parallel.local_devices(2)
    said = pytest.raises(TrainingError, match=r"^the network: .* alone is too large for cpu")
    with said, batch_size.advise_on_error(SHORT, dataset, devices):
        raise OutOfMemoryError("the network", "no room")


def test_what_xla_says_when_there_is_no_memory_is_known_as_that():
    """Sixteen terabytes."""
    said = pytest.raises(OutOfMemoryError, match=r"^training: out of device memory.* allocat")
    with said, out_of_memory.name_phase("training"):
        jax.block_until_ready(jax.jit(lambda: jnp.zeros(2**42, jnp.float32))())


def test_over_many_hosts_nothing_is_tried(monkeypatch):
    dataset, devices = load(SHORT.data), parallel.local_devices(2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(batch_size, "fits", None)
    line = batch_size.advise(SHORT, dataset, devices, OutOfMemoryError("training", "full"))
    assert line.endswith("try --batch 16: not tried over many hosts")
