"""Functions on one text, and conversions, as SQL."""

from __future__ import annotations

import re
from collections.abc import Callable

from exports.compiler.collection_sql import text_literal
from exports.compiler.fragments import SQL, Fragment
from exports.compiler.typed_tree import Constant, Conversion, Expression, TextFunction
from exports.compiler.value_sql import Environment, Kind, Value, computed, item, lower, lowers, number, text

# name -> the kind it gives, its SQL on the text and the arguments; NULL where the text or an argument is
_WRITTEN: dict[str, tuple[Kind, str]] = {
    "startsWith": ("boolean", "starts_with({}, {})"),
    "endsWith": ("boolean", "(right({0}, length({1})) = {1})"),
    "contains": ("boolean", "(strpos({}, {}) > 0)"),
    "matches": ("boolean", "({} ~ {})"),
    "indexOf": ("number", "(strpos({}, {}) - 1)::numeric"),
    "length": ("number", "length({})::numeric"),
    "upper": ("text", "upper({})"),
    "lower": ("text", "lower({})"),
    "trim": ("text", r"btrim({}, E' \t\n\r\f\v')"),
    # before, between and behind all characters where the text to replace is empty (FHIRPath 2.0.0 §5.6.9)
    "replace": (
        "text",
        "CASE {1} WHEN '' THEN regexp_replace({0}, '', replace({2}, '\\', '\\\\'), 'g') ELSE replace({0}, {1}, {2}) END",
    ),
    "replaceMatches": ("text", "regexp_replace({}, {}, {}, 'g')"),
    "split": ("items", "CASE {0} WHEN '' THEN '[\"\"]' ELSE COALESCE(to_jsonb(string_to_array({0}, {1})), '[]') END"),
}
_SUBSTRING = "CASE WHEN {1} >= 0 AND {1} < length({0}) AND trunc({1}) = {1} THEN substr({0}, {1}::integer + 1{2}) END"


@lowers(TextFunction)
def _text_function(node: TextFunction, environment: Environment) -> Value:
    of = (text(node.of, environment), "text")
    if node.name == "substring":
        return _substring(node, of[0], environment)
    kind, written = _WRITTEN[node.name]
    arguments = [_argument(node, argument, environment) for argument in node.arguments]
    operands: list[tuple[Value, Kind]] = [(of[0], "text"), *[(argument, "text") for argument in arguments]]
    write: Callable[..., Fragment] = SQL(written).format
    return computed(environment, operands, kind, write, first_decides=True)


def _argument(node: TextFunction, argument: Expression, environment: Environment) -> Value:
    if not isinstance(argument, Constant) or node.name not in {"matches", "replaceMatches"}:
        return text(argument, environment)
    value = str(argument.value)
    if argument is node.arguments[0]:
        # Postgres writes the edge of a word \\y, where others write \\b
        value = re.sub(r"\\(.)", lambda found: {"b": r"\y", "B": r"\Y"}.get(found[1], found[0]), value, flags=re.DOTALL)
    else:
        # the whole match is $0, for Postgres \\&
        value = re.sub(r"\$(\d)", lambda found: "\\" + found[1].replace("0", "&"), value.replace("\\", "\\\\"))
    return Value(text_literal(value), "text")


def _substring(node: TextFunction, of: Value, environment: Environment) -> Value:
    operands: list[tuple[Value, Kind]] = [
        (of, "text"),
        *[(number(one, environment), "number") for one in node.arguments],
    ]

    def write(content: Fragment, start: Fragment, *length: Fragment) -> Fragment:
        # an empty length is none (FHIRPath 2.0.0 §5.6.2)
        cut = [SQL(", least(greatest(COALESCE({}, 1e9), 0), 1e9)::integer").format(one) for one in length]
        return SQL(_SUBSTRING).format(content, start, SQL("").join(cut))

    return computed(environment, operands, "text", write, first_decides=True)


_TO = {
    "string": (
        "CASE jsonb_typeof({v}) WHEN 'string' THEN {v} WHEN 'null' THEN {v} WHEN 'number' THEN to_jsonb({v} #>> '{{}}')"
        " WHEN 'boolean' THEN to_jsonb({v} #>> '{{}}') ELSE CASE WHEN {v} IS NOT NULL THEN 'null'::jsonb END END"
    ),
    "boolean": (
        "CASE WHEN lower({v} #>> '{{}}') IN ('true', 't', 'yes', 'y', '1', '1.0') THEN 'true'::jsonb"
        " WHEN lower({v} #>> '{{}}') IN ('false', 'f', 'no', 'n', '0', '0.0') THEN 'false'"
        " WHEN {v} IS NOT NULL THEN 'null' END"
    ),
    "integer": (
        "CASE WHEN {v} = 'true' THEN '1'::jsonb WHEN {v} = 'false' THEN '0'"
        " WHEN jsonb_typeof({v}) IN ('string', 'number') AND ({v} #>> '{{}}') ~ '^[+-]?[0-9]{{1,10}}$' THEN"
        " CASE WHEN ({v} #>> '{{}}')::bigint BETWEEN -2147483648 AND 2147483647"
        " THEN to_jsonb(({v} #>> '{{}}')::bigint) ELSE 'null' END"
        " WHEN {v} IS NOT NULL THEN 'null' END"
    ),
    "decimal": (
        "CASE WHEN {v} = 'true' THEN '1.0'::jsonb WHEN {v} = 'false' THEN '0.0'"
        " WHEN jsonb_typeof({v}) IN ('string', 'number') AND ({v} #>> '{{}}') ~ '^[+-]?[0-9]{{1,250}}(\\.[0-9]{{1,250}})?$'"
        " THEN to_jsonb(({v} #>> '{{}}')::numeric) WHEN {v} IS NOT NULL THEN 'null' END"
    ),
}


@lowers(Conversion)
def _conversion(node: Conversion, environment: Environment) -> Value:
    found = lower(node.of, environment)
    if found.kind == "text" and node.type == "string":
        return found
    one = item(node.of, environment)
    sql = SQL(_TO[str(node.type)])
    converted = computed(environment, [(one, "item")], "item", lambda v: _each_once(environment, v, sql))
    return Value(converted.sql, "item", converted.safe)


def _each_once(environment: Environment, value: Fragment, template: Fragment) -> Fragment:
    row = environment.name("c")
    inner = template.format(v=SQL("{}.v").format(row))
    return SQL("(SELECT {} FROM (SELECT {} AS v OFFSET 0) AS {})").format(inner, value, row)
