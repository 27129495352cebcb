"""`cluster.yaml` is valid for the pinned Ray. No cloud is contacted."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_cluster_fits_the_schema_of_ray(cluster):
    jsonschema.validate(cluster, SCHEMA)


def test_cluster_is_valid_once_ray_has_filled_in_its_defaults(cluster):
    prepared = prepare_config(deepcopy(cluster))
    validate_config(prepared)
    assert prepared["head_start_ray_commands"] == cluster["head_start_ray_commands"]


def test_schema_notices_a_misspelt_key(cluster):
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate(cluster | {"max_worker": 1}, SCHEMA)


def test_actors_stay_off_the_head_and_workers_are_spot_gpus(cluster):
    types = dict(cluster["available_node_types"])
    head = types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    for name, worker in types.items():
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot", name
        assert worker["min_workers"] == 0, name
        assert worker["node_config"]["IamInstanceProfile"], name


def test_nodes_get_the_files_that_their_setup_names(cluster):
    for target, source in cluster["file_mounts"].items():
        assert source.startswith("~") or (ROOT / source).is_file(), source
        assert target.startswith("~/"), target
    setup = " ".join(cluster["setup_commands"])
    assert "--constraint ~/sbert-ray/constraints.txt" in setup
    assert "--requirement ~/sbert-ray/pyproject.toml" in setup
