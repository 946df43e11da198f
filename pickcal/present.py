"""Results of commands as text for people: tables for figures, lines for the rest; fits 80 columns."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pickcal.engine.pace import rate_text, seconds_text

Result = dict[str, Any]

FIGURES = (
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "F1, one threshold for all"),
    ("average_precision", "average precision"),
)
FILES = ("files", "rejected_files")
LABEL_WIDTH = 44
MOST_NAMED = 10
WORDS_OF_REASONS = {"micrograph": "excluded micrograph", "edge": "near the border"}
MOST_FAILURES = 10
LABELS = {
    "reference_defocus": "reference defocus, Å",
    "slope_per_um": "slope per µm",
    "particle_score_per_um": "particle score per µm",
    "peak_memory_mb": "peak memory, MB",
}
"""What keys of results are called where blanks for underscores would not do, as their unit would be missing."""


def render(result: Result) -> str:
    """Text for the result of any command; without a line break at the end."""
    if "import" in result or "pick" in result:
        return _job(result)
    if "transfer_loss" in result:
        return _evaluation(result)
    if "control" in result and "verdict" in result:
        return _control(result)
    if "stage" in result:
        return _stage(result)
    return _lines(result)


def failure_lines(failures: Sequence[Mapping[str, str]], rest: str) -> Iterator[str]:
    """Say which micrographs failed and why, one line each; of the last ones only how many, and what tells them."""
    for failure in failures[:MOST_FAILURES]:
        yield f"failed: {failure['micrograph']}: {failure['error']}"
    if len(failures) > MOST_FAILURES:
        yield f"failed: {len(failures) - MOST_FAILURES} more; {rest}"


def _job(result: Result) -> str:
    parts = [f"project: {result['project']}"]
    for section in ("import", "pick", "score"):
        if section in result:
            parts.append(_stage(result[section]))
    for section in ("import_picks", "calibrate", "select"):
        if section in result:
            parts.append(f"{section}\n{_lines(result[section], '  ')}")
    if "export" in result:
        export = result["export"]
        parts.append(f"export: {export['picks']} picks of {export['micrographs']} micrographs, {export['files'][-1]}")
    if "evaluate" in result:
        parts.append(_evaluation(result["evaluate"]))
    if "report" in result:
        parts += [f"plot: {plot}" for plot in result["report"]["plots"]]
        parts.append(f"report: {result['report']['report']}")
    program = sys.argv[0] if Path(sys.argv[0]).name == "pickcal" else "pickcal"
    parts.append(f"open the dashboard: {program} inspect {result['project']}")
    return "\n".join(parts)


def _stage(result: Result) -> str:
    counts = [f"{result[key]} {key}" for key in ("done", "failed", "skipped", "pending") if result[key]]
    if not result["ran"]:
        return f"{result['stage']}: nothing to do ({', '.join(counts)})"
    return f"{result['stage']}: {', '.join(counts)}, in {result['seconds']:.1f} s"


def _evaluation(result: Result) -> str:
    """Raw beside calibrated and probability; what each micrograph reaches at its own threshold measures all."""
    sure = result.get("probability", {})
    rows = [("", "raw", "calibrated", "probability" if sure else "")]
    ours = result.get("best_threshold", result)
    for key, label in FIGURES:
        rows.append(
            (label, _word(result["raw"].get(key)), _word(ours.get(key, result.get(key))), _word(sure.get(key, "")))
        )
    rows.append(("F1, each micrograph at its own best", "", _word(result["per_micrograph_best_f1"]), ""))
    for end in ("lowest", "highest"):
        key = f"from_{end}_defocus"
        loss = result["transfer_loss"]
        losses = {kind: found[key] for kind, found in loss.items()}
        rows.append((f"F1 lost, threshold set at {end} defocus", *_kinds(losses)))
    rho = result["rho_defocus"]
    rows.append(("Spearman, score and defocus", *_kinds(rho)))
    head = f"picks {result['picks']}: {result['particles']} particles on {result['micrographs']} micrographs"
    if not result["calibrated"]:
        head += " (not calibrated: both columns are raw)"
    if result.get("particles_near_border"):
        head += (
            f"\n  not counted: {result['particles_near_border']} particles, and picks, "
            "within half a diameter of the border"
        )
    missing, counted = result.get("picks_without_score", 0), result.get("picks_counted", 0)
    if missing:
        head += (
            "\n  no pick has a score: figures are of all picks together"
            if missing == counted
            else f"\n  {missing} of {counted} picks have no score: they are accepted together, after all others"
        )
    table = [
        f"  {label:<{LABEL_WIDTH}}{raw:>7}{calibrated:>12}{chance:>13}".rstrip()
        for label, raw, calibrated, chance in rows
    ]
    table += [
        f"  --fdr {entry['nominal']:g}: {entry['rate']:.1%} of the accepted are false, recall {entry['recall']:.3f}"
        for entry in result.get("false_discovery", [])
    ]
    if "selection" in result:
        table.append(
            f"  selection {result['selection']}: {result['accepted']} accepted, precision {result['precision']:.4f}, "
            f"recall {result['recall']:.4f}, F1 {result['f1']:.4f}"
        )
    return "\n".join([head, *table])


def _control(result: Result) -> str:
    """Say what a selection accepts on noise, overall and by defocus."""
    lines = [
        f"control of picks {result['picks']}: phase-randomised copies of {result['micrographs']} of {result['of']} "
        f"micrographs, seed {result['seed']}",
        result["verdict"],
    ]
    lines += [
        f"  {part['defocus_low'] / 1e4:.2f} to {part['defocus_high'] / 1e4:.2f} µm, {part['micrographs']} micrographs: "
        f"{part['control_accepted']:.1f} on noise, {part['real_accepted']:.1f} in reality"
        for part in result["terciles"]
    ]
    if result["warning"]:
        lines.append(f"warning: {result['warning']}")
    skipped = result["skipped"]
    lines += [f"not tried: {item['micrograph']}: {item['error']}" for item in skipped[:MOST_NAMED]]
    if len(skipped) > MOST_NAMED:
        lines.append(f"not tried: {len(skipped) - MOST_NAMED} more")
    return "\n".join(textwrap.fill(line, 80, subsequent_indent="  ") for line in lines)


def _kinds(values: Result) -> tuple[str, str, str]:
    raw, calibrated, probability = (_word(values.get(kind, "")) for kind in ("raw", "calibrated", "probability"))
    return raw, calibrated, probability


def _judged(result: Result) -> Result:
    """Say of the counts of a selection how many picks it rejects and what for, and what it expects to be false."""
    from pickcal.selection import REASONS

    accepted = result.get(REASONS[0])
    if not isinstance(accepted, int) or not set(REASONS) <= set(result):
        return result
    rejected = {reason: int(result[reason]) for reason in REASONS[1:] if result[reason]}
    words = [f"{WORDS_OF_REASONS.get(reason, reason)} {count}" for reason, count in rejected.items()]
    out: Result = {}
    for key, value in result.items():
        if key == REASONS[0]:
            out["accepted"] = f"{accepted} of {accepted + sum(rejected.values())} picks"
            out["rejected for"] = ", ".join(words) or "nothing"
        elif key == "expected_noise":
            noise, junk, rate = (result[f"expected_{name}"] for name in ("noise", "junk", "false_rate"))
            out["expected to be false"] = f"{noise + junk:.0f} ({rate:.1%}): {noise:.0f} noise, {junk:.0f} junk"
        elif key not in (*REASONS, "expected_junk", "expected_false_rate"):
            out[key] = value
    return out


def _lines(result: Result, indent: str = "") -> str:
    lines = []
    result = _judged(result)
    for key, value in result.items():
        label = f"{indent}{LABELS.get(key, str(key).replace('_', ' '))}"
        if isinstance(value, dict):
            inner = _run(value, indent + "  ") if "micrographs_per_minute" in value else _lines(value, indent + "  ")
            lines.append(f"{label}:\n{inner}" if inner else f"{label}: none")
        elif isinstance(value, list) and value and all(isinstance(item, dict) and "why" in item for item in value):
            lines.append(f"{label}:")
            lines += [f"{indent}  {item['name']}: {item['why']}" for item in value]
        elif isinstance(value, list) and value and all(isinstance(item, dict) and "error" in item for item in value):
            lines.append(f"{label}:")
            lines += [f"{indent}  {item['micrograph']} ({item['stage']}): {item['error']}" for item in value]
        elif isinstance(value, (list, tuple)) and len(value) > MOST_NAMED and key in FILES:
            lines.append(f"{label}: {len(value)}, the last {value[-1]}")
        elif key.endswith("interval") and value and not isinstance(value[0], list):
            lines.append(f"{label}: {_word(list(value))}")
        elif isinstance(value, (list, tuple)):
            lines.append(f"{label}: {', '.join(_word(item) for item in value) or 'none'}")
        else:
            lines.append(f"{label}: {_word(value)}")
    return "\n".join(lines)


def _run(run: Result, indent: str) -> str:
    """Say of a stage whether it runs, how long yet, how fast it is, what is slow and what failed."""
    state = "finished"
    if run["micrographs_left"]:
        state = f"stopped with {run['micrographs_left']} micrographs left; the same command goes on"
    if run["running"]:
        left = run.get("seconds_left")
        known = "time left not known yet" if left is None else f"{seconds_text(left)} left"
        state = f"running for {seconds_text(run['running_for'])}, {known}; {run['by']}"
    speed = [_counted(run["batches"], "batch", "batches"), _counted(run["workers"], "worker", "workers")]
    if run["micrographs_per_minute"]:
        speed.append(f"{rate_text(run['micrographs_per_minute'] / 60)} altogether")
    if run["seconds_per_micrograph"] is not None:
        speed.append(f"{run['seconds_per_micrograph']:.2g} s for one on a worker")
    if run["peak_memory_mb"]:
        speed.append(f"at most {run['peak_memory_mb']} MB of memory")
    lines = [f"{run['stage']}: {state}", ", ".join(speed)]
    if run["slowest"]:
        lines.append(
            "slowest: " + ", ".join(f"{item['micrograph']} {item['seconds']:.2g} s" for item in run["slowest"])
        )
    lines += [f"failed: {count} for: {reason}" for reason, count in run["failures_by_reason"].items()]
    return "\n".join(indent + line for line in lines)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
    if isinstance(value, dict) and set(value) == {"micrograph", "seconds"}:
        return f"{value['micrograph']} in {value['seconds']:.3f} s"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_word(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " to ".join(_word(item) for item in value)
    return str(value)
