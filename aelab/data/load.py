"""A data set from its config node, with the fallback that the node names."""

from collections.abc import Callable, Mapping

from aelab.call import build
from aelab.config import DataError, DataUnavailable
from aelab.data.limits import free_memory, size
from aelab.data.record import Data


def load(node: Mapping, choice: Callable[[str], Mapping]) -> tuple[Data, str | None]:
    """(data, None), or (the fallback's data, why: one paragraph for the user) if the data cannot be had.

    `node` is a resolved config: `_target_`, knobs, and perhaps `fallback`, the name of another data set,
    whose node `choice(name)` gives. Knobs that both have, such as limit and seed, keep the values asked
    for. Errors: DataUnavailable without a fallback; any other DataError always: broken data are to be
    repaired, not replaced; also where there is too little memory.
    """
    knobs = {key: value for key, value in node.items() if key != "fallback"}
    try:
        return fitting(knobs), None
    except DataUnavailable as error:
        if node.get("fallback") is None:
            raise
        instead = {key: value for key, value in choice(node["fallback"]).items() if key != "fallback"}
        data = fitting(instead | {key: knobs[key] for key in knobs if key in instead and key != "_target_"})
        asked = knobs["_target_"].rpartition(".")[2]
        return data, (
            f"{asked} could not be had, so this run uses {data.name} instead: its figures must not be "
            f"compared with those of {asked}. {error}. To stop rather than fall back, type "
            "dataset.fallback=null."
        )


def fitting(knobs: Mapping) -> Data:
    """The data of a node; what only turns out too large on the way is a DataError as well."""
    try:
        return build(knobs)
    except MemoryError as error:
        what = knobs["_target_"].rpartition(".")[2]
        raise DataError(
            f"dataset {what}: takes more memory than there is, {size(free_memory())} are free; take smaller files"
        ) from error
