import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.minutes
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_ray_trains_workers_go_on_from_their_checkpoint_with_the_batches_that_were_due(
    ray_engine, tmp_path: Path, monkeypatch
) -> None:
    pytest.importorskip("ray.train.torch")
    from ray import cloudpickle

    monkeypatch.syspath_prepend(ROOT)
    example, tiny = (importlib.import_module(f"examples.{name}") for name in ("ray_train", "tiny"))
    for module in (example, tiny):  # the cluster's workers have no path to them
        cloudpickle.register_pickle_by_value(module)
    try:
        shards = tiny.token_shards(tmp_path / "tokens")
        trained = example.train(shards, tmp_path / "runs", 10, fail_at=7)
    finally:
        for module in (example, tiny):
            cloudpickle.unregister_pickle_by_value(module)
    undisturbed = example.make_loader(shards, rank=0, world_size=1)
    assert trained["digests"] == [example.digest([next(undisturbed).input_ids]) for _ in range(10)]
    assert json.loads(trained["loader"]) == json.loads(json.dumps(undisturbed.state_dict()))
