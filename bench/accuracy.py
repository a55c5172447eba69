"""Measures the cost of quantisation and integers: golden against float32, per model and format; ``python -m
bench.accuracy``.

Two comparisons, on the evaluation stories, BOS per story, teacher-forced: golden against float32 on the *same quantised
weights* (KL divergence: what the integer datapath costs) and golden against float32 on the checkpoint's own weights
(perplexity: what the format costs). q4 and mixed are calibrated on other stories, as the command line's --calibrate
does it. Without ``REFERENCE_DATA`` the committed stories of bench/stories.txt are read, and nothing is calibrated.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import records, reference_data
from llama2_host import checkpoint, corpus
from llama2_host.evaluation import Score, dequantised, golden_logits, log_softmax, row
from llama2_host.progress import Progress
from llama2_host.quantisation import Recipe, plan

from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec import image as image_module
from llama2_spec.golden import Golden
from llama2_spec.image import Format, Image, Kind
from llama2_spec.model import KvFormat
from llama2_spec.reference import Reference
from llama2_spec.traffic import TARGETS

ROOT = Path(__file__).parent.parent
CALIBRATION = reference_data.path("corpus", "calib_stories.txt")
MODELS = [(reference_data.path("models", "stories260K.bin"), reference_data.path("models", "tok512.bin")),
          (ROOT / "models" / "stories.bin", ROOT / "models" / "stories.tokenizer.bin")]
#: The options --format and its companions, by name of the row.
RECIPES = {"q8": Recipe("q8"), "q4, rounded to nearest, embedding too": Recipe("q4", embedding="q4"),
           "q4, rounded to nearest": Recipe("q4"), "q4, calibrated": Recipe("q4", calibrate=CALIBRATION),
           "mixed, calibrated, 5.5 bits": Recipe("mixed", calibrate=CALIBRATION, budget="5.5bits"),
           "mixed, calibrated, 6 bits": Recipe("mixed", calibrate=CALIBRATION),
           "q8, K/V k16v8": Recipe("q8"), "q8, K/V k8v8": Recipe("q8")}
#: The option --kv of rows that do not take its default.
KV = {"q8, K/V k16v8": KvFormat.K16V8, "q8, K/V k8v8": KvFormat.K8V8}


def text_path() -> Path:
    """Path of the evaluation stories, or of our own if they are missing."""
    path = reference_data.path("corpus", "eval_stories.txt")
    return path if path.exists() else ROOT / "bench" / "stories.txt"


def stories(limit: int | None) -> list[str]:
    """The evaluation stories, ``limit`` of them at most."""
    return corpus.stories(text_path())[:limit]


def measure(path: Path, tokenizer_path: Path, name: str, limit: int | None,
            progress: Progress = Progress.silent) -> dict:
    """One model in the format of a row: perplexities, divergences, greedy agreement and size; `llama2-host compare`
    predicts speed too."""
    recipe, source, kv = RECIPES[name], checkpoint.load(path), KV.get(name, KvFormat.K16V16)
    source.config = replace(source.config, kv=kv)
    tokenizer = load_tokenizer(tokenizer_path, source.config.vocab_size)
    start_s = time.monotonic()
    formats = plan(recipe, source, tokenizer, progress=progress)
    image = Image.parse(image_module.build(source.config, source.tensors, groups=source.groups, plan=formats))
    conversion_s = time.monotonic() - start_s
    exact, same, golden = Reference(source.config,
                                    source.tensors), Reference(source.config, dequantised(image)), Golden(image)
    own, ours, integers = Score(), Score(), Score()
    start_s = time.monotonic()
    for ids in corpus.encoded(stories(limit), tokenizer, source.config.seq_len):
        rows, theirs = log_softmax(golden_logits(golden, ids)), log_softmax(exact.logits(ids))
        own.add(ids, theirs)
        ours.add(ids, rows, theirs)
        integers.add(ids, rows, log_softmax(same.logits(ids)))
    characters = sum(len(text.encode()) for text in stories(limit))
    result = {"model": path.name, "format": name, "text": text_path().name,
              "recipe": {"format": recipe.format, "embedding": recipe.embedding,
                         "budget": recipe.budget, "calibrate": recipe.calibrate and recipe.calibrate.name,
                         "kv": kv.name.lower()},
              **{key: value for key, value in row(image, ours, own, TARGETS["arty"]).items()
                 if key != "tokens_per_second"},
              "bits_per_byte_float32": own.nats / np.log(2) / characters,
              "bits_per_byte": ours.nats / np.log(2) / characters,
              "kl_same_weights": integers.kl, "kl_same_weights_worst": integers.worst,
              "conversion_seconds": round(conversion_s, 1), "evaluation_seconds": round(time.monotonic() - start_s, 1),
              "q8_matrices": [f"{e.kind.name.lower()}.{e.layer}" for e in image.entries
                              if e.kind != Kind.GAIN and e.format == Format.Q8] if recipe.format == "mixed" else None,
              "flags": sorted(golden.flags.raised)}
    expected = reference_data.path("models", "expected.json")
    if expected.exists() and path.name == "stories260K.bin":
        result["expected_greedy"] = [greedy_agreement(golden, r) for r in json.loads(expected.read_text())["records"]]
    return result


def greedy_agreement(golden: Golden, record) -> dict:
    """The number of tokens for which golden's own greedy text equals float32's."""
    ids = list(record["prompt_ids"])
    for position in range(len(record["ids"]) - 1):
        logits = golden.step(ids[position], position)
        if position + 1 == len(ids):
            ids.append(logits.argmax)
    same = next((i for i, (a, b) in enumerate(zip(ids, record["ids"])) if a != b), len(ids))
    return {"prompt": record["prompt"], "equal_tokens": same, "of": len(record["ids"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=None, help="the first N only")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "accuracy.json")
    parser.add_argument("--only", choices=RECIPES, nargs="+", metavar="FORMAT",
                        help="these rows anew, the file's others as they are")
    args = parser.parse_args()
    rows, before = [], json.loads(args.json.read_text()) if args.only and args.json.exists() else {"rows": []}
    for path, tokenizer in MODELS:
        for name, recipe in RECIPES.items():
            if args.only and name not in args.only:
                rows += [row for row in before["rows"] if (row["model"], row["format"]) == (path.name, name)]
                continue
            if missing := [needed for needed in (path, tokenizer, recipe.calibrate) if needed and not needed.exists()]:
                print(f"{path.name} {name}: left out, {missing[0]} is not there")
                continue
            rows.append(measure(path, tokenizer, name, args.stories, Progress.stderr()))
            r = rows[-1]
            print(f"{path.name} {name}: perplexity {r['perplexity_float32']:.4f} -> {r['perplexity']:.4f} "
                  f"({r['delta_percent']:+.3f} %), KL {r['kl']:.1e}, on the same weights {r['kl_same_weights']:.1e}, "
                  f"top-1 {r['top1']:.4f}, {r['bits_per_weight']:.2f} bits", flush=True)
            for g in r.get("expected_greedy", ()):
                print(f"    greedy {g['prompt'][:32]!r}: {g['equal_tokens']} of {g['of']} tokens equal float32's")
    command = "python -m bench.accuracy" + (f" --stories {args.stories}" if args.stories else "")
    # A record that keeps rows from before is as old as these rows.
    mark = {records.MADE: before.get(records.MADE, {})} if before["rows"] else {}
    records.write(args.json, "accuracy", {"command": command, "rows": rows, **mark})


if __name__ == "__main__":
    main()
