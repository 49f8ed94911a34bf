"""Files of a run folder that try to do something: each would leave a sentinel, or touch the guarded folder."""

import base64
import io
import itertools
import json
import marshal
import os
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import yaml

VALUES = (
    "../../x", "../../../guard/x", "/etc/passwd", "", "x" * 50_000, None, True, -1, 0, 10**400, 1e308, float("nan"),
    float("inf"), [], {}, [[]],
    {"a": 1}, "\x00", "ü\n", "???", "${oc.env:HOME}", "${nothing}", "null", 1.5, "aelab.cli.dispatch", "RUNNING",
    "FINISHED", "2020-01-01",
)  # fmt: skip

IDS = itertools.count(1)
"""Numbers for skops, which takes nodes of one number for one object."""


class Evil:
    """What a pickle of it runs when it is read."""

    def __init__(self, sentinel: Path):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


def nodes(sentinel: Path, run: str) -> list[dict]:
    """Config nodes that call something that no config should."""
    guard, touch = sentinel.parent, f"touch {sentinel}"
    return [
        {"_target_": "os.system", "command": touch},
        {"_target_": "subprocess.getoutput", "cmd": touch},
        {"_target_": "builtins.eval", "_args_": [f"__import__('os').system('{touch}')"]},
        {"_target_": "aelab.cli.dispatch", "argv": ["sync", f"output_dir={guard}/x", run]},
        {"_target_": "joblib.numpy_pickle.load", "filename": f"{guard}/evil.pkl"},
        {"_target_": "aelab.console.leave", "code": 0},
        {"_target_": "aelab.archive.write", "thing": "x", "file": str(sentinel)},
        {"_target_": "aelab.launchers.alone.child"},
        {"_target_": "aelab.engine.get_object", "path": "evil.boom"},
        {"_target_": "aelab.run.keras.utils.get_file", "fname": str(sentinel), "origin": f"file://{guard}/secret.log"},
        {"_target_": "evil.boom"},
        {
            "_target_": "keras.optimizers.deserialize",
            "config": {"module": "os", "class_name": "system", "config": touch},
        },
        {"_target_": "keras.optimizers.get", "identifier": {"module": "builtins", "class_name": "eval", "config": {}}},
        {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "command": touch}},
        {"_target_": "aelab.data.table.table.__globals__", "x": 1},
        {"_target_": "aelab.tasks.denoise.Denoise.predict"},
    ]


def config(rng: Random, file: Path, sentinel: Path) -> str:
    """A config.yaml that names a hostile target somewhere; says which and where."""
    if rng.random() < 0.15:
        file.write_text(file.read_text() + rng.choice((
            f"x: !!python/object/apply:os.system ['touch {sentinel}']\n",
            f"model: !!python/object/new:os.system ['touch {sentinel}']\n",
            f"? !!python/object/apply:os.system ['touch {sentinel}']\n: 1\n",
        )))  # fmt: skip
        return "python/object in config.yaml"
    cfg, node = yaml.safe_load(file.read_text()), rng.choice(nodes(sentinel, str(file.parent)))
    places = [(cfg, key) for key, value in cfg.items() if isinstance(value, dict) and "_target_" in value]
    places += [(value, key) for _, value in targets(cfg) for key in value if key != "_target_"]
    places += [(cfg["loss"], key) for key in cfg.get("loss") or ()] + [(cfg, "extra"), (cfg["fit"], "monitor")]
    where, key = rng.choice(places[: rng.choice((6, len(places)))])
    if rng.random() < 0.2 and isinstance(where.get(key), dict):
        where[key]["_args_"] = [node]
    else:
        where[key] = node
    if rng.random() < 0.5:
        cfg["allow"] = ["os", "joblib", "evil", "builtins", "subprocess", "hydra"]
    file.write_text(yaml.safe_dump(cfg))
    return f"{node['_target_']} as {key} in config.yaml"


def targets(node: object):
    """(name, node) of every node with a `_target_`."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, dict):
            if "_target_" in value:
                yield key, value
            yield from targets(value)


def members(file: Path) -> dict[str, bytes]:
    """What is in a zip."""
    with zipfile.ZipFile(file) as source:
        return {name: source.read(name) for name in source.namelist()}


def write_zip(file: Path, content: dict[str, bytes]) -> None:
    """A zip of such members."""
    with zipfile.ZipFile(file, "w") as target:
        for name, data in content.items():
            target.writestr(name, data)


def skops(rng: Random, file: Path, sentinel: Path) -> str:
    """A model.skops that calls what it names, as a whole or within."""
    guard = sentinel.parent
    module, name, given = rng.choice((
        ("aelab.cli", "dispatch", [["sync", f"output_dir={guard}/x", str(file.parent)]]),
        ("aelab.console", "leave", [0]),
        ("aelab.archive", "write", ["x", str(sentinel)]), ("os", "system", [f"touch {sentinel}"]),
        ("sklearn.datasets", "clear_data_home", [str(guard)]),
        ("builtins", "eval", [f"open('{sentinel}', 'w')"]), ("aelab.work", "os.system", ["true"]),
        ("sklearn.utils._testing", "assert_run_python_script_without_output", [f"open('{sentinel}', 'w')"]),
        ("aelab.launchers.alone", "child", []), ("scipy.sparse._sputils", "sys.exit", [0]),
        ("aelab.compose", "instantiate", [{"_target_": "os.system", "command": f"touch {sentinel}"}]),
    ))  # fmt: skip
    content = members(file)
    schema = json.loads(content["schema.json"])
    call = {
        "__module__": module,
        "__class__": name,
        "__loader__": "ConstructorFromReduceNode",
        "content": sequence("tuple", [value(v) for v in given]),
    }
    if rng.random() < 0.3:
        call["__loader__"] = rng.choice(
            (
                "ObjectNode",
                "FunctionNode",
                "TypeNode",
                "SetNode",
                "DictNode",
                "MethodNode",
                "PartialNode",
                "OperatorFuncNode",
            )
        )
    call["__id__"] = next(IDS)
    inner = schema.get("content", {})
    inner = inner.get("content") if isinstance(inner, dict) else None
    if isinstance(inner, dict) and inner and rng.random() < 0.5:
        inner[rng.choice(list(inner))] = call
    else:
        schema = {**{k: v for k, v in schema.items() if k in ("protocol", "_skops_version")}, **call}
    write_zip(file, {**content, "schema.json": json.dumps(schema).encode()})
    return f"{module}.{name} ({call['__loader__']}) in {file.name}"


def value(thing: object) -> dict:
    """A plain value as a skops node."""
    if isinstance(thing, list):
        return sequence("list", [value(v) for v in thing])
    content = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(thing)}
    return {**content, "is_json": True, "__id__": next(IDS)}


def sequence(kind: str, content: list[dict]) -> dict:
    """A list or tuple as a skops node."""
    return {
        "__class__": kind,
        "__module__": "builtins",
        "__loader__": f"{kind.title()}Node",
        "content": content,
        "__id__": next(IDS),
    }


def keras(rng: Random, file: Path, sentinel: Path) -> str:
    """A model.keras with a layer that is none, a member outside, or weights that are a pickle."""
    content = members(file)
    made = json.loads(content["config.json"])
    code = base64.b64encode(marshal.dumps(eval(f"lambda x: open({str(sentinel)!r}, 'w') and x").__code__)).decode()
    layer = rng.choice((
        {"module": "keras.layers", "class_name": "Lambda",
        "config": {"name": "l", "function": {"class_name": "__lambda__",
        "config": {"code": code, "defaults": None, "closure": None}}}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": str(sentinel.parent)}},
        {"module": "os", "class_name": "system", "config": {"command": f"touch {sentinel}"}},
        {"module": "builtins", "class_name": "function", "config": "system", "registered_name": "function"},
        {"module": "keras.utils", "class_name": "get_file",
        "config": {"fname": str(sentinel), "origin": f"file://{sentinel.parent}/secret.log"}},
        {"module": "aelab.cli", "class_name": "dispatch",
        "config": {"argv": ["sync", f"output_dir={sentinel.parent}/x", str(file.parent)]}},
        {"module": "aelab.console", "class_name": "leave", "config": {"code": 0}, "registered_name": None},
        {"module": "aelab.archive", "class_name": "write", "config": {"thing": 1, "file": str(sentinel)},
        "registered_name": "write"},
    ))  # fmt: skip
    layers = made["config"].get("layers") if isinstance(made.get("config"), dict) else None
    how = rng.choice(("layer", "layer", "whole", "slip"))
    if how == "slip":
        content["../../../guard/x"] = b"x"
    elif how == "whole" or not layers:
        made = layer
    else:
        at = rng.randrange(len(layers))
        layers[at] = {**layers[at], **layer}
    write_zip(file, {**content, "config.json": json.dumps(made).encode()})
    return f"{how} {layer['module']}.{layer['class_name']} in {file.name}"


def arrays(rng: Random, file: Path, sentinel: Path) -> str:
    """An .npz, .npy or anything else with a pickle in it."""
    import pickle

    evil = Evil(sentinel)
    if file.suffix == ".npz":
        names = list(np.load(file).files)
        np.savez(file, **{name: np.array([evil], object) for name in names})
    elif file.suffix == ".npy":
        np.save(file, np.array([evil], object), allow_pickle=True)
    else:
        file.write_bytes(pickle.dumps(evil))
    return f"a pickle in {file.name}"


def edit_value(rng: Random, file: Path) -> str:
    """A JSON or YAML file of which a value is another; says which."""
    load, dump = (json.loads, json.dumps) if file.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    made = load(file.read_text())
    if rng.random() < 0.08:
        file.write_text(
            "[" * 5000 if rng.random() < 0.5 else rng.choice(("[]", "3", "null", '"x"', "{}", "", "\ufeff{}", "{'a'}"))
        )
        return f"{file.name} as a whole"
    at, key = rng.choice(list(leaves(made)) or [({}, "x")])
    if rng.random() < 0.2 and isinstance(at, dict):
        at.pop(key, None)
        file.write_text(dump(made))
        return f"{file.name} without {key}"
    at[key] = rng.choice(VALUES)
    file.write_text(dump(made))
    return f"{key}: {str(at[key])[:40]} in {file.name}"


def leaves(node: object):
    """(container, key) of all that is in a JSON value, containers too."""
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield node, key
        yield from leaves(inner)


def names(rng: Random, file: Path) -> str:
    """A run.json whose names are paths."""
    account = json.loads(file.read_text())
    key = rng.choice(("experiment", "run_id", "mlflow.runName", "aelab.folder", "dataset"))
    path = rng.choice(
        ("../../x", "../../../../guard/x", "/tmp/aelab-x", "a/../../../../guard/x", "..", "%2e%2e/x", "x?y")
    )
    where = account["tags"] if "." in key else account
    if key == "dataset":
        where = account.get("dataset", account)
    where["source" if where is account.get("dataset") else key] = path
    account["run_id"] = account["run_id"] if key == "run_id" or rng.random() < 0.3 else "0" * 32
    file.write_text(json.dumps(account))
    return f"{key}: {path} in run.json"


def links(rng: Random, folder: Path, guard: Path) -> str:
    """A link in a run folder."""
    name = rng.choice(
        ("etc.log", "a.txt", "d.png", "evaluations", "run.log", "history.csv", "report.html", ".run.json", "x.yaml")
    )
    target = rng.choice((guard / "secret.log", guard, Path("../../../../guard/secret.log"), Path(name)))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    return f"{name} is a link to {target}"


def bytes_of(sentinel: Path) -> None:
    """Put beside the sentinel what the hostile files name."""
    file = io.BytesIO()
    import pickle

    pickle.dump(Evil(sentinel), file)
    (sentinel.parent / "evil.pkl").write_bytes(file.getvalue())
