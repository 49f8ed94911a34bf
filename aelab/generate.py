"""Text from a finished run, token by token, in NumPy: TensorFlow is not imported."""

import difflib
import itertools
import sys
from pathlib import Path

from omegaconf import DictConfig

from aelab import run_files
from aelab.config import AelabError
from aelab.inference import tokens, weights, writing
from aelab.inference.lstm import LanguageModel


def start_of(prompt: str | None, unit: str, known: list[str]) -> list[str]:
    """The tokens of a prompt, or the end of a line; AelabError for tokens that the vocabulary lacks."""
    if not prompt:
        return ["\n"] if "\n" in known else [known[1]]
    found = tokens.pieces(prompt, unit)[0]
    lacking = [token for token in dict.fromkeys(found) if token not in known]
    if not found:
        raise AelabError(f"prompt={prompt!r}: has no {'character' if unit == 'char' else 'word'}; give some text")
    if lacking:
        near = difflib.get_close_matches(lacking[0], known, 3, 0.6)
        said = f"; instead of {lacking[0]!r}, did you mean {' or '.join(near)}?" if near else ""
        what = ", ".join(map(repr, lacking[:5]))
        raise AelabError(f"prompt: the model's vocabulary of {len(known):,} lacks {what}{said}")
    return found


def generate(
    folder: Path, cfg: DictConfig, prompt: str | None, count: int, temperature: float, top_k: int, seed: int
) -> None:
    """Write the prompt and `count` tokens after it to the terminal, each as soon as it is drawn."""
    if not (folder / weights.FILE).exists():
        raise AelabError(
            f"{folder / weights.FILE} is not there: aelab generate is for finished LSTMs (model=lstm or gates), "
            f"this run is of model={cfg.choices.model}"
        )
    found, known = weights.read(run_files.intact(folder / weights.FILE))
    if known is None:
        raise AelabError(f"{folder / weights.FILE}: has no vocabulary; {run_files.REMEDY}")
    unit = cfg.dataset.unit
    begin = start_of(prompt, unit, known)
    more = writing.write(
        LanguageModel(*found), tokens.encode(begin, known), temperature=temperature, top_k=top_k, seed=seed
    )
    written = (known[i] for i in itertools.islice(more, count))
    for text in tokens.spaced(itertools.chain(begin if prompt else (), written), unit, before="" if prompt else "\n"):
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")
