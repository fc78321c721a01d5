"""The measurements of docs/scaling.md are those of the committed results, and the rest follows."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


def medians(name: str) -> dict[str, dict[str, float]]:
    """Case -> side -> median."""
    record: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_bytes())
    return {
        case: {side: value["median"] for side, value in sides.items()}
        for case, sides in record["values"].items()
    }


def test_what_is_measured() -> None:
    caption = medians("compare-cpu")["CAPTION of 20 tokens"]
    batch = {
        precision: medians("batching-cpu")[f"8 pictures, OD of 200 tokens, ours {precision}"]
        for precision in ("fp32", "q8")
    }
    cores = 2
    rates = {
        name: (1 / caption[f"ours {name}"] / cores, 8 / batch[name]["in one batch"] / cores)
        for name in ("fp32", "q8")
    }
    for row, number in (("CAPTION of 20 tokens, one by one", 0), ("OD of 200 tokens, in", 1)):
        fp32, q8 = (f"{rates[name][number]:.2f}" for name in ("fp32", "q8"))
        assert re.search(rf"\| {row}[^|]*\| {fp32} \| {q8} \|", PAGE), (fp32, q8)
    tasks = medians("batching-cpu")["5 tasks on one picture, ours q8"]
    assert f"take {tasks['encoded once'] / tasks['separate calls']:.0%}".replace("%", " %") in WORDS
    memory = medians("cold_start-cpu")["peak memory of that process"]
    assert f"{memory['ours q8']:.0f} MB with q8 and {memory['ours fp32']:.0f} MB" in WORDS


def test_what_is_calculated() -> None:
    caption = 1 / medians("compare-cpu")["CAPTION of 20 tokens"]["ours q8"] / 2
    batch = medians("batching-cpu")["8 pictures, OD of 200 tokens, ours q8"]
    od = 8 / batch["in one batch"] / 2
    for pictures, name in ((1e6, "1 million"), (1e8, "100 million"), (1e9, "1 billion")):
        hours = [float(f"{pictures / rate / 3600:.3g}") for rate in (caption, od)]
        cores = pictures / od / (30 * 24 * 3600)
        cells = [f"{one:,.0f} core hours" for one in hours]
        assert f"| {name} | {cells[0]} | {cells[1]} | {cores:,.0f} cores |" in PAGE, (hours, cores)


def test_the_shares_of_the_stages() -> None:
    stages = {name: sides["ours q8"] for name, sides in medians("stages-cpu").items()}
    first, step = stages["first token"], stages["step at past 16"]
    for tokens in (20, 200):
        decoder = first + (tokens - 1) * step
        whole = stages["preprocess"] + stages["vision"] + stages["embed and encoder"] + decoder
        shares = f"{stages['vision'] / whole:.0%} {decoder / whole:.0%}".replace("%", " %").split()
        assert f"{shares[0]} %" in WORDS and f"{shares[2]} %" in WORDS, shares
    assert f"in {stages['preprocess'] * 1000:.0f} ms" in WORDS
    large = medians("preprocess-cpu")["4000x3000 to 768x768"]["ours"]
    assert f"4000x3000 in {large * 1000:.0f} ms" in WORDS
