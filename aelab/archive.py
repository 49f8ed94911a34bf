"""Fitted objects in files, without pickle: what is read back may be made of a few known classes alone."""

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import psutil

from aelab import run_files
from aelab.config import AelabError

DTYPES = ("bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "str_")
MADE = {
    "DictNode": {"builtins.dict"},
    "ListNode": {"builtins.list"},
    "TupleNode": {"builtins.tuple"},
    "TypeNode": {"builtins.str", "builtins.int", "builtins.float", "builtins.bool"},  # of the keys of a dict
    "NdArrayNode": {"numpy.ndarray", *(f"numpy.{name}" for name in (*DTYPES, "float16", "float32", "float64"))},
    "SparseMatrixNode": {"scipy.sparse._csr.csr_array"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "TreeNode": {"sklearn.tree._tree.Tree"},
    "ObjectNode": {
        "aelab.data.record.Columns",
        "aelab.models.ngrams.KneserNey",
        *(f"aelab.models.outliers.{n}" for n in ("Detector", "Distance", "Forest", "Gauss", "Projection", "Sampled")),
        *(f"aelab.models.rankers.{n}" for n in ("Blend", "Ease", "ItemKNN", "MatrixFactorisation", "Popularity")),
        "aelab.preparation.Preparation",
        *(f"aelab.scores.{name}" for name in ("Bound", "Distance", "Score", "Space")),
        "aelab.similarities.Learned",
        "sklearn.covariance._shrunk_covariance.LedoitWolf",
        "sklearn.decomposition._pca.PCA",
        "sklearn.ensemble._iforest.IsolationForest",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neighbors._lof.LocalOutlierFactor",
        "sklearn.neighbors._unsupervised.NearestNeighbors",
        "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        *(f"sklearn.preprocessing._data.{n}Scaler" for n in ("MinMax", "Robust", "Standard")),
        "sklearn.preprocessing._data.QuantileTransformer",
        "sklearn.preprocessing._label.LabelBinarizer",
        "sklearn.svm._classes.OneClassSVM",
        "sklearn.tree._classes.ExtraTreeRegressor",
    },
}
"""How skops makes a part -> the classes that it may make so. All are what `write` writes of aelab's own models; each is
only filled with data when it is made. Functions, methods, and whatever else skops would call are not among them."""
BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, RecursionError),
    *(NotImplementedError, MemoryError, OverflowError, BadZipFile, zlib.error),
)
"""What a broken file raises, in skops and in the classes that are filled from it."""


def write(thing: object, file: Path) -> None:
    """Write anything that NumPy, scikit-learn and this package make."""
    import skops.io  # imports all of scikit-learn, which takes 2 s

    skops.io.dump(thing, file)


def read(file: Path) -> object:
    """Read it back; AelabError for a file that is broken, or that has a part that none of aelab's models has."""
    with run_files.reading(file, *BROKEN):
        with ZipFile(file) as opened:
            _fit_memory(file, opened)
            parts = json.loads(opened.read("schema.json"))
        names = [f"{part.get('__module__')}.{part.get('__class__')}" for part in _strange(parts)]
        if names:
            raise _not_read(file, ", ".join(sorted(set(names))))
        import skops.io

        return skops.io.load(file, trusted=sorted(set().union(*MADE.values())))


def model(file: Path):
    """A fitted model, which has what a model has; AelabError for another thing."""
    found = read(file)
    if not hasattr(found, "fit") or not (hasattr(found, "predict") or hasattr(found, "score")):
        raise AelabError(f"{file}: expected a fitted model, got a {type(found).__name__}; {run_files.REMEDY}")
    return found


def _dicts(node: object) -> Iterator[dict]:
    """Every dict in a tree of lists and dicts, however deep."""
    open_ = [node]
    while open_:
        node = open_.pop()
        if isinstance(node, list):
            open_ += node
        elif isinstance(node, dict):
            open_ += node.values()
            yield node


def _strange(schema: object) -> Iterator[dict]:
    """The parts of a file's schema that are not to be made."""
    for node in _dicts(schema):
        loader = node.get("__loader__")
        name = f"{node.get('__module__')}.{node.get('__class__')}"
        plain = loader is None or (loader == "JsonNode" and isinstance(node.get("content"), str))
        if not plain and name not in MADE.get(loader if isinstance(loader, str) else "", ()):
            yield node


def _not_read(file: Path, names: str) -> AelabError:
    return AelabError(f"{file}: has {names} in it, which no model of aelab has; not read")


def _fit_memory(file: Path, opened: ZipFile) -> None:
    """Refuse a file whose members, unpacked, are larger than the memory that there is; also those in a member."""
    for sizes in _sizes(opened):
        if sizes > psutil.virtual_memory().available:
            raise AelabError(f"{file}: takes {sizes / 2**30:,.0f} GB of memory, more than there is; not read")


def _sizes(opened: ZipFile) -> Iterator[int]:
    members = opened.infolist()
    yield sum(member.file_size for member in members)
    for member in members:
        if member.filename.endswith(".npz"):
            with ZipFile(io.BytesIO(opened.read(member))) as inner:
                yield sum(part.file_size for part in inner.infolist())


LAYERS = ("keras.layers", "keras.initializers", "keras.regularizers", "keras.constraints", "keras.activations")
OPERATIONS = (
    "keras.ops",
    "keras.src.ops",
    "keras.dtype_policies",
    "keras.quantizers",
    "keras.random",
    "keras.src.random",
)
MODELS = {"DTypePolicy", "Functional", "Model", "Sequential"}
"""Of the modules of Keras that have more than models in them."""
ACTIVE = {
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),  # run code of the file's
    *("StringLookup", "IntegerLookup", "TextVectorization"),  # read other files
    *("deserialize", "get", "__lambda__", "__typespec__"),
}
VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}


def check_keras(file: Path) -> None:
    """Refuse a .keras file that asks for more than layers of Keras, and those that imported packages have registered.

    Keras itself goes by a list of what is forbidden, and finds all else that it has.
    """
    with ZipFile(file) as opened:
        _fit_memory(file, opened)
        config = json.loads(opened.read("config.json"))
    for node in _dicts({key: value for key, value in config.items() if key != "compile_config"}):  # not loaded with it
        if "class_name" in node and not _is_model(node):
            name = node.get("config") if node["class_name"] == "function" else node["class_name"]
            raise _not_read(file, f"{node.get('module')}.{name}")


def _is_model(node: dict) -> bool:
    """Whether what a part of a model's config names is a layer or another harmless part of a model."""
    module, name, registered = (node.get(key) for key in ("module", "class_name", "registered_name"))
    name = node.get("config") if name == "function" else name
    if not isinstance(name, str) or name in ACTIVE or not isinstance(module, str | None):
        return False
    custom = ">" in f"{registered}{name}"  # Keras finds it only where its package has registered it
    if module is None:
        return name in VALUES or "module" not in node or custom
    if module == "builtins":
        return node["class_name"] == "function"
    if module in ("keras", "keras.models") or module.startswith("keras.src.models"):
        return name in MODELS
    if module.split(".")[0].startswith("keras"):
        return any(f"{module}.".startswith(f"{known}.") for known in (*LAYERS, *OPERATIONS))
    return custom
