"""Next-token prediction: a language model of characters or words, trained through time in streams of text."""

import keras
import numpy as np
import pandas as pd

from aelab import charts, export, figures, memory
from aelab.call import build
from aelab.config import ConfigError, Count, Level, Whole
from aelab.data.record import Split
from aelab.evaluate import Result
from aelab.fit import partials
from aelab.inference import tokens, weights, writing
from aelab.inference.lstm import LanguageModel, softmax
from aelab.streams import MASKED, Streams, windows
from aelab.tasks.task import Task

CELLS = 1 << 24
"""Numbers in the logits of held-out windows that are worked out at once: 64 MB."""
SHOWN = {"char": 40, "word": 10}
"""Tokens that are shown before the one that is expected."""


class Language(Task):
    """Predict the next token of a text.

    Training is by backpropagation through time, truncated after `window` tokens; the state goes on to the next window.
    Held-out text is read in windows: `context` tokens, then `scored` ones that are measured.
    """

    kinds = ("text",)

    def __init__(
        self,
        *,
        window: Count,
        context: Whole,
        scored: Count,
        examples: Count,
        written: Whole,
        temperatures: list[Level],
        gates: Whole,
        distances: list[Count],
    ):
        self.window, self.context, self.scored, self.examples = window, context, scored, examples
        self.written, self.temperatures, self.gates, self.distances = written, temperatures, gates, distances

    def prepare(self, data, cfg):
        """The tokens as they are; how many streams there is text for, and the held-out windows."""
        n = len(data.train)
        if n <= self.window + 1:
            raise ConfigError(f"task.window={self.window}: the training text has {n} tokens; give a smaller window")
        self.unit, self.vocabulary = cfg.dataset.unit, data.label_names
        self.streams = min(cfg.fit.batch_size, (n - self.window) // self.window)
        whole = np.concatenate([data.train.x, data.validation.x, data.test.x])
        starts = {"validation": n, "test": n + len(data.validation)}
        ends = {"validation": starts["test"], "test": len(whole)}
        self.windows = {
            part: windows(whole[: ends[part]], start, self.context, self.scored) for part, start in starts.items()
        }
        self.at_once = max(1, CELLS // (self.windows["test"].shape[2] * len(data.label_names)))
        return data

    def shape(self, data):
        """The vocabulary's size, and the number of streams."""
        return len(data.label_names), self.streams

    def held_out(self, validation):
        """The windows of the validation text."""
        return Split(self.windows["validation"], None)

    def batches(self, model, x, pairs, cfg):
        """Streams of the training text."""
        return Streams(model, x, pairs, self.streams, self.window, cfg.seed)

    def pairs(self, corrupt, /):
        """Rows (b, 2, t) to inputs and targets, ids (b, t)."""
        return lambda x, rng: (x[:, 0], x[:, 1])

    def predict(self, model, inputs, /):
        """Logits float32 (k, t, v) of the token after each of inputs (k, t)."""
        if not isinstance(model, keras.Model):
            return model.predict(inputs)
        return np.asarray(model.predict(inputs, batch_size=self.at_once, verbose=0), np.float32)

    def test(self, model, data, corrupt, cfg):
        """Each held-out token once, with its chance; perplexity and bits a character beside the means."""
        functions, metrics = partials(cfg.metric, "goal"), {}
        for short, part in (("val", "validation"), ("test", "test")):
            if not len(self.windows[part]):
                continue
            found, examples = self.read(model, functions, part)
            scored = examples[examples["scored"]]
            metrics |= {f"{short}/{name}": value for name, value in found.items()}
            nll = scored["nll"].mean()
            characters = getattr(data, part).y[-len(scored) :].sum()
            metrics[f"{short}/perplexity"] = float(np.exp(nll))
            metrics[f"{short}/bits_per_character"] = float(scored["nll"].sum() / characters / np.log(2))
        rows = self.windows["test"]
        self.weights = export.from_model(model) if export.can(model) else None
        if self.distances and isinstance(model, keras.Model):
            fresh = build(cfg.model, self.shape(data))
            for name, network in (("gradient", model), ("gradient_untrained", fresh)):
                found = memory.reach(network, rows[:, 0], rows[:, 1, -1], self.distances)
                metrics |= {f"test/{name}@{d}": float(g) for d, g in zip(self.distances, found, strict=True)}
        shown = rows[np.linspace(0, len(rows) - 1, min(self.examples, len(rows))).astype(int)]
        return Result(rows[:2, 0], shown, self.predict(model, shown[:, 0]), examples, metrics)

    def read(self, model, functions, part: str) -> tuple[dict[str, float], pd.DataFrame]:
        """(the mean of each metric over the scored tokens, a row for each token of each window)."""
        rows, sums, parts = self.windows[part], dict.fromkeys(functions, 0.0), []
        step = max(1, self.at_once // 2)
        for first in range(0, len(rows), step):
            x, y = rows[first : first + step, 0], rows[first : first + step, 1]
            logits = self.predict(model, x)
            for name, function in functions.items():
                values = keras.ops.convert_to_numpy(function(y, logits))
                sums[name] += float(values.astype(np.float64) @ (y != MASKED).sum(axis=1))
            truth = np.concatenate([x[:, 1:], y[:, -1:]], axis=1)[..., None]
            logits -= logits.max(axis=-1, keepdims=True)
            total = np.log(np.exp(logits).sum(axis=-1))
            own = np.take_along_axis(logits, truth, axis=-1)
            columns = {
                "read": np.broadcast_to(np.arange(1, x.shape[1] + 1), x.shape),
                "scored": y != MASKED,
                "token": truth[..., 0],
                "nll": total - own[..., 0],
                "rank": (logits > own).sum(axis=-1),
                "surest": np.exp(-total),
            }
            parts.append(pd.DataFrame({name: values.ravel() for name, values in columns.items()}))
        count = int((rows[:, 1] != MASKED).sum())
        examples = pd.concat(parts, ignore_index=True).astype({"nll": float})
        return {name: value / count for name, value in sums.items()}, examples

    def keep(self, folder):
        """The weights and the vocabulary of an LSTM for `aelab generate`, which reads them without TensorFlow."""
        if self.weights:
            weights.write(folder / weights.FILE, self.weights, self.vocabulary)

    def figures(self, result, data, /):
        """What memory is worth, what kinds of tokens are hard, and whether the model is as sure as it is right."""
        scored = result.examples[result.examples["scored"]]
        edges = np.unique(np.geomspace(1, result.examples["read"].max() + 1, 25).astype(int))
        by = pd.cut(result.examples["read"], edges, right=False, labels=edges[:-1])
        read = result.examples.groupby(by, observed=True)["nll"].mean().rename_axis("tokens read")
        read.index = read.index.astype(int)
        sure = pd.cut(scored["surest"], np.linspace(0, 1, 11), labels=np.linspace(0.05, 0.95, 10).round(2))
        right = (scored["rank"] == 0).groupby(sure, observed=True).mean()
        right = pd.DataFrame({"right": right, "as sure": right.index.astype(float)}).rename_axis(
            "chance of the likeliest"
        )
        right.index = right.index.astype(float)
        drawn = {
            "memory": charts.lines(
                read.to_frame("model"), title="What memory is worth", ylabel="nats a token", xscale="log"
            ),
            "kinds": figures.bars(self.by_kind(scored), "nll", title="Nats by kind of token"),
            "calibration": charts.lines(
                right, title="As sure as it is right", ylabel="share of likeliest tokens right"
            ),
        }
        if len(table := self.faded(result)):
            drawn["gradient"] = memory.reach_figure(table)
        for layer, traced in self.traced():
            drawn[f"gates_{layer + 1}"] = memory.gates_figure(traced, self.texts(), layer)
        return drawn

    def faded(self, result) -> pd.DataFrame:
        """The gradient by distance, trained and untrained; empty where it was not measured."""
        names = {"gradient": "trained", "gradient_untrained": "untrained"}
        kept = [d for d in self.distances if f"test/gradient@{d}" in result.metrics]
        values = {told: [result.metrics[f"test/{name}@{d}"] for d in kept] for name, told in names.items()}
        return pd.DataFrame(values, index=pd.Index(kept, name="tokens back"))

    def texts(self) -> list[str]:
        """The tokens of the test over which the gates are drawn."""
        first = self.windows["test"][0]
        return [self.vocabulary[i] for i in first[0][first[1] != MASKED][: self.gates]]

    def traced(self):
        """(layer, its gates over these tokens) of an LSTM whose gates are to be drawn."""
        if self.gates and self.weights:
            model, ids = LanguageModel(*self.weights), tokens.encode(self.texts(), self.vocabulary)
            for layer in range(len(model.cells)):
                yield layer, memory.trace(model, ids, layer)

    def by_kind(self, scored: pd.DataFrame) -> pd.DataFrame:
        """Means by kind of token."""
        kinds = np.array([kind(token, self.unit) for token in self.vocabulary])[scored["token"]]
        groups = scored.assign(right=scored["rank"] == 0).groupby(kinds)
        table = groups[["nll", "right"]].mean().assign(tokens=groups.size())
        return table[["tokens", "nll", "right"]].rename_axis("kind of token").sort_values("tokens", ascending=False)

    def tables(self, result, data, /):
        """Errors by kind of token, what was expected next in some places, and text that the model writes."""
        scored = result.examples[result.examples["scored"]]
        found = {"test tokens by kind": self.by_kind(scored), "what comes next": self.expected(result)}
        if len(table := self.faded(result)):
            found["gradient by distance, relative to the last token"] = table
        for layer, traced in self.traced():
            found[f"gates of layer {layer + 1}"] = memory.gates_table(traced, self.texts())
        if self.weights and self.written:
            found["texts that it writes after the last lines before the test"] = self.writes()
        return found

    def writes(self) -> pd.DataFrame:
        """What the model writes in place of the test, by temperature."""
        model, rows = LanguageModel(*self.weights), {}
        x, y = self.windows["test"][0]
        for temperature in self.temperatures:
            more = writing.write(model, x[: max(int((y == MASKED).sum()), 1)], temperature=temperature, top_k=0, seed=0)
            written = [self.vocabulary[i] for _, i in zip(range(self.written), more, strict=False)]
            rows[temperature] = {"text": "".join(tokens.spaced(written, self.unit))}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("temperature")

    def expected(self, result) -> pd.DataFrame:
        """The last place of some windows: what stands before, what follows, and the model's likeliest tokens."""
        rows = []
        for (x, y), logits in zip(result.targets, result.outputs, strict=True):
            chances = softmax(logits[-1])
            best = np.argsort(-chances, kind="stable")[:5]
            before = "".join(tokens.spaced([self.vocabulary[i] for i in x[-SHOWN[self.unit] :]], self.unit))
            told = ", ".join(f"{self.vocabulary[i]!r} {chances[i]:.0%}" for i in best)
            rows.append(
                {
                    "after": repr(before),
                    "true": repr(self.vocabulary[y[-1]]),
                    "chance": chances[y[-1]],
                    "likeliest": told,
                }
            )
        return pd.DataFrame(rows).set_index("after")


def kind(token: str, unit: str) -> str:
    """What a token is, for people."""
    if token == tokens.NAMES[unit]:
        return "unknown"
    if token == "\n":
        return "line end"
    if token.isspace():
        return "space"
    if unit == "word" and token[0].isalnum():
        return "capital word" if token[0].isupper() else "word"
    if token.isalpha():
        return "capital" if token.isupper() else "letter"
    return "digit" if token.isdigit() else "mark"
