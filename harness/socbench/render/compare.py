"""Prints comparisons: Markdown for a pull request, JUnit XML for CI, a section of the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from socbench.records import ComparedPair
from socbench.render import names, numbers, ranking, sentences, tables
from socbench.render.conclusion import compare_answer, notes, shared, why

DECISION_TITLES: Final = {
    "faster": "faster",
    "slower": "slower",
    "no_difference": "no difference",
    "cannot_tell": "can't tell",
    "not_comparable": "not comparable",
    "missing": "missing",
    "failed": "failed",
}
_SIGNS: Final = {"faster": "▼", "slower": "▲", "no_difference": "=", "cannot_tell": "?"}
_ORDER: Final = ("failed", "missing", "slower", "faster", "cannot_tell", "no_difference", "not_comparable")


def heads(base: str, candidate: str, unit: numbers.Unit) -> list[str]:
    """The heads of a table of pairs, units in them."""
    names_of = [names.plain(side, 24) for side in (base, candidate)]
    return ["", f"{names_of[0]} {unit.symbol}", f"{names_of[1]} {unit.symbol}", "change %", "95 %", "decision"]


def side_names(pairs: Sequence[ComparedPair]) -> tuple[str, str]:
    """What to call the two sides: the arms of ``--ab`` with what tells them apart, else the sessions' labels, else
    ``base`` and ``candidate`` where rows have none or several.
    """
    if any(pair.candidate is not None and pair.candidate.ab_arm for pair in pairs):
        return _arms(pairs)
    found = []
    for fallback, rows in (
        ("base", [pair.base for pair in pairs if pair.base is not None]),
        ("candidate", [pair.candidate for pair in pairs if pair.candidate is not None]),
    ):
        labels = {row.label for row in rows}
        label = labels.pop() if len(labels) == 1 else None
        found.append(names.plain(label, 60) if label else fallback)
    return (found[0], found[1]) if found[0] != found[1] else ("base", "candidate")


_TELLING: Final = ("model", "runtime", "precision", "recipe", "environment", "threads", "cores", "batch")


def _arms(pairs: Sequence[ComparedPair]) -> tuple[str, str]:
    """``A (litert)`` and ``B (onnxruntime)``; the delegate is named where the runtime does not tell the arms apart."""
    both = [(pair.base, pair.candidate) for pair in pairs if pair.base and pair.candidate]
    telling = [name for name in _TELLING if any(getattr(one, name) != getattr(two, name) for one, two in both)]
    if "runtime" not in telling and any(one.delegate != two.delegate for one, two in both):
        telling.append("delegate")
    sides = []
    for letter, rows in (("A", [one for one, _ in both]), ("B", [two for _, two in both])):
        values = [names.plain("any" if value is None else value, 24)
                  for name in telling if len({getattr(row, name) for row in rows}) == 1
                  for value in [getattr(rows[0], name)]]  # fmt: skip
        sides.append(f"{letter} ({', '.join(values)})" if values else letter)
    return sides[0], sides[1]


def unit_of(pairs: Sequence[ComparedPair]) -> numbers.Unit:
    """One unit for the whole table."""
    return numbers.time_unit(value for pair in pairs for value in (pair.base_p50_ns, pair.candidate_p50_ns))


def several_models(pairs: Sequence[ComparedPair]) -> bool:
    """Whether names of pairs need the model in them."""
    return len({pair.key.get("model") for pair in pairs}) > 1


def ordered(pairs: Sequence[ComparedPair]) -> list[ComparedPair]:
    """What needs a look first: missing and failed, slower by how much, faster, the rest."""
    return sorted(pairs, key=lambda pair: (_ORDER.index(pair.decision), -abs((pair.ratio or 1.0) - 1.0)))


def cells(pair: ComparedPair, unit: numbers.Unit, model: bool = True) -> list[str]:
    """Name, base, candidate, change in percent, its interval and the decision of one pair, as text."""

    def side(value: float | None) -> str:
        return "" if value is None else numbers.significant(value / unit.factor)

    change = "" if pair.ratio is None else numbers.percent_change(pair.ratio)[:-2]
    interval = ""
    if pair.ratio_low is not None and pair.ratio_high is not None:
        interval = f"{numbers.percent_change(pair.ratio_low)[:-2]} to {numbers.percent_change(pair.ratio_high)[:-2]}"
    sign = _SIGNS.get(pair.decision, "")
    decision = f"{sign} {DECISION_TITLES[pair.decision]}".strip()
    name = sentences.pair_name(pair, model=model)
    return [name, side(pair.base_p50_ns), side(pair.candidate_p50_ns), change, interval, decision]


def html_section(pairs: Sequence[ComparedPair], base: str = "base", candidate: str = "candidate") -> dict[str, Any]:
    """What the template of the page needs: title, sentences, the figure, heads, cells with reasons in the last."""
    from socbench.render.figure_compare import ratios

    unit = unit_of(pairs)
    order = ordered(pairs)
    many = several_models(pairs)
    lines = [cells(pair, unit, model=many) for pair in order]
    for column in (1, 2, 3):
        aligned = numbers.aligned([line[column] for line in lines])
        for line, text in zip(lines, aligned, strict=True):
            line[column] = text
    common = shared(pairs)
    for pair, line in zip(order, lines, strict=True):
        line[-1] += _because(pair, common)
    return {
        "title": f"{names.plain(candidate, 60)} against {names.plain(base, 60)}",
        "sentences": compare_answer(pairs, base=base, candidate=candidate),
        "notes": notes(pairs),
        "picture": ratios(pairs, base, candidate),
        "heads": heads(base, candidate, unit),
        "cells": [{"decision": pair.decision, "cells": line} for pair, line in zip(order, lines, strict=True)],
    }


def _because(pair: ComparedPair, common: frozenset[str]) -> str:
    text = why(pair, common)
    return f": {text}" if text else ""


def gate_sentence(pairs: Sequence[ComparedPair], fail_above: float, *, strict: bool = False) -> tuple[bool, str]:
    """Whether the gate holds, and the sentence after "gate passed:" or "gate failed:"."""
    failing = ranking.gate_failures(pairs, fail_above, strict=strict)
    unsure = sum(pair.decision in ("cannot_tell", "not_comparable") for pair in pairs)
    kinds = f"slower by more than {100 * fail_above:g} %, missing, failed or void"
    if strict:
        kinds = kinds.replace(" or void", ", void or not to be told")
    if failing:
        return False, f"{names.count(len(failing), 'row')} {kinds}"
    warning = f"; {names.count(unsure, 'row')} can't be told, which --strict would fail" if unsure else ""
    return True, f"no row {kinds}{warning}"


def compare_markdown(
    pairs: Sequence[ComparedPair],
    *,
    base: str = "base",
    candidate: str = "candidate",
    fail_above: float | None = None,
    strict: bool = False,
) -> str:
    """The comparison as it reads well in a pull request; ``fail_above`` is a fraction (0.05)."""
    lines = ["### " + tables.escape_markdown(f"{names.plain(candidate, 60)} against {names.plain(base, 60)}"), ""]
    if fail_above is not None:
        passed, sentence = gate_sentence(pairs, fail_above, strict=strict)
        lines += [f"**Gate {'passed' if passed else 'failed'}**: {sentence}.", ""]
    lines += [tables.escape_markdown(said) for said in compare_answer(pairs, base=base, candidate=candidate)]
    if pairs:
        unit, many = unit_of(pairs), several_models(pairs)
        lines += ["", _line(heads(base, candidate, unit)), "|---|--:|--:|--:|--:|---|"]
        common = shared(pairs)
        for pair in ordered(pairs):
            line = cells(pair, unit, model=many)
            line[-1] += _because(pair, common)
            lines.append(_line(line))
        lines += ["", "Change is candidate over base, over zero is slower; 95 % is the interval of the change."]
        lines += [tables.escape_markdown(said) for said in notes(pairs)]
    return "\n".join(lines) + "\n"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(tables.escape_markdown(text) for text in texts) + " |"


def compare_junit(pairs: Sequence[ComparedPair], *, fail_above: float = 0.0, strict: bool = False) -> str:
    """JUnit XML, one test case a pair; fails as the gate of ``--fail-above`` does, what can't be told is skipped."""
    failing = {id(pair) for pair in ranking.gate_failures(pairs, fail_above, strict=strict)}
    unsure = [pair for pair in pairs if id(pair) not in failing and pair.decision in ("cannot_tell", "not_comparable")]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites tests="{len(pairs)}" failures="{len(failing)}" skipped="{len(unsure)}">',
        f'<testsuite name="socbench compare" tests="{len(pairs)}" failures="{len(failing)}" skipped="{len(unsure)}">',
    ]
    for pair in pairs:
        text = _outcome(pair)
        lines.append(f'<testcase classname="socbench.compare" name={quoteattr(sentences.pair_name(pair))}>')
        if id(pair) in failing:
            lines.append(f"<failure message={quoteattr(text)}>{escape(text)}</failure>")
        elif pair.decision in ("cannot_tell", "not_comparable"):
            lines.append(f"<skipped message={quoteattr(text)}/>")
        else:
            lines.append(f"<system-out>{escape(text)}</system-out>")
        lines.append("</testcase>")
    lines += ["</testsuite>", "</testsuites>"]
    return "\n".join(lines) + "\n"


def _outcome(pair: ComparedPair) -> str:
    text = DECISION_TITLES[pair.decision]
    if pair.ratio is not None:
        text += f", {numbers.percent_change(pair.ratio)}"
        if pair.ratio_low is not None and pair.ratio_high is not None:
            text += f" ({numbers.percent_change(pair.ratio_low)} to {numbers.percent_change(pair.ratio_high)})"
    if pair.candidate is not None and pair.candidate.verdict == "invalid":
        text += ", the candidate's row is void"
    return text + _because(pair, frozenset())
