"""What every test starts from: no settings and no caches of the person who runs them."""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

CACHE = tempfile.TemporaryDirectory(prefix="aelab-tests-", ignore_cleanup_errors=True)
os.environ["AELAB_CACHE_DIR"] = CACHE.name
os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras is imported anywhere
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
    os.environ.pop(name, None)

# The same examples every time, and no .hypothesis folder: a failure is a change in the code, never a draw.
settings.register_profile("aelab", derandomize=True, database=None, deadline=None)
settings.load_profile("aelab")


def pytest_collection_modifyitems(items):
    """Files of few tests first: those are the long ones, and at the end nothing would run beside them."""
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: counts[item.path])


@pytest.fixture
def real_data():
    """The folder of the real data sets. CI sets AELAB_REQUIRE_DATA=1, so that there nothing is skipped unseen."""
    folder = os.environ.get("AELAB_DATA_DIR")
    if folder:
        assert Path(folder).is_dir(), f"AELAB_DATA_DIR={folder}: no such folder"
        return Path(folder)
    why = "AELAB_DATA_DIR is not set: it names the folder that holds fashion-mnist/"
    if os.environ.get("AELAB_REQUIRE_DATA") == "1":
        pytest.fail(why)
    return pytest.skip(why)


@pytest.fixture(autouse=True)
def as_before():
    """Without what a run within the tests' own process sets for the whole of it: its precision, MLflow's address."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture
def keras():
    """Keras, imported by those tests only that ask for it; with seeds set, and float32 before and after."""
    import keras

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield keras
    keras.config.set_dtype_policy("float32")
