"""Operators, constants and keys as SQL: the item in focus, comparison, arithmetic, and three-valued logic."""

from __future__ import annotations

from dataclasses import replace

from exports.compiler.collection_sql import text_literal
from exports.compiler.fragments import SQL, Fragment, Literal
from exports.compiler.moments import MOMENT, is_moment
from exports.compiler.path_sql import Fast, fast
from exports.compiler.temporal_sql import one_is_a_time_of_day, temporal_comparison
from exports.compiler.typed_tree import (
    Arithmetic,
    Child,
    Comparison,
    Connection,
    Constant,
    ContainedKey,
    Context,
    Expression,
    Focus,
    Logic,
    Not,
    ReferenceKey,
    Resource,
    ResourceKey,
    RowIndex,
    Select,
    category,
)
from exports.compiler.value_sql import (
    Environment,
    Value,
    as_item,
    bound,
    computed,
    items,
    lower,
    lowers,
    number,
    text,
    truth,
)


@lowers(Focus)
def _focus(_: Focus, environment: Environment) -> Value:
    return Value(environment.focus, "item")


@lowers(Resource)
def _resource(_: Resource, environment: Environment) -> Value:
    return Value(environment.resource, "item")


@lowers(Context)
def _context(_: Context, environment: Environment) -> Value:
    return Value(environment.focus if environment.context is None else environment.context, "item")


@lowers(Connection)
def _connection(_: Connection, environment: Environment) -> Value:
    return Value(environment.connection, "text")


@lowers(RowIndex)
def _row_index(_: RowIndex, environment: Environment) -> Value:
    return Value(environment.row_index, "number")


@lowers(ResourceKey)
def _resource_key(_: ResourceKey, environment: Environment) -> Value:
    return Value(environment.resource_id, "text")


@lowers(Constant)
def _constant(node: Constant, _: Environment) -> Value:
    if isinstance(node.value, str):
        return Value(text_literal(node.value), "text")
    if isinstance(node.value, bool):
        return Value(SQL("true" if node.value else "false"), "boolean")
    return Value(SQL("{}::numeric").format(Literal(str(node.value))), "number")


@lowers(Not)
def _not(node: Not, environment: Environment) -> Value:
    operand = truth(node.of, environment, strict=node.of.type == "boolean")
    return computed(environment, [(operand, "boolean")], "boolean", lambda value: SQL("(NOT {})").format(value))


_LOGIC = {
    "and": SQL("({} AND {})"),
    "or": SQL("({} OR {})"),
    "xor": SQL("({} <> {})"),
    "implies": SQL("(NOT {} OR {})"),
}


@lowers(Logic)
def _logic(node: Logic, environment: Environment) -> Value:
    sides = [truth(side, environment, strict=side.type == "boolean") for side in (node.left, node.right)]
    write = _LOGIC[node.operator].format
    return computed(environment, [(side, "boolean") for side in sides], "boolean", write)


@lowers(Comparison)
def _comparison(node: Comparison, environment: Environment) -> Value:
    temporal = "temporal" in {category(node.left.type), category(node.right.type)}
    if node.operator not in {"=", "!="}:
        return _ordered_moments(node, environment) if temporal else _ordered(node, environment)
    if temporal and all(map(_may_be_moment, (node.left, node.right))):
        return _equal_moments(node, environment)
    return _fast_equality(node, environment) or _equality(node, environment)


def _may_be_moment(side: Expression) -> bool:
    """Whether it may equal a date or time as a moment: a value known to be another text or a number cannot."""
    if isinstance(side, Constant):
        return is_moment(str(side.value))
    return category(side.type) in {None, "temporal"}


def _equality(node: Comparison, environment: Environment) -> Value:
    operator = SQL("=" if node.operator == "=" else "<>")
    template = SQL("(NULLIF({}, '[]') {} NULLIF({}, '[]'))")
    sides = [(items(side, environment), "items") for side in (node.left, node.right)]
    return computed(environment, sides, "boolean", lambda a, b: template.format(a, operator, b))  # type: ignore[arg-type]


def _fast_equality(node: Comparison, environment: Environment) -> Value | None:
    """A look-up against a text: what is found there is compared as text, since no number or object is written so."""
    right = node.right
    if not isinstance(right, Constant) or not isinstance(right.value, str) or not right.value[:1].isalpha():
        return None
    look_up = fast(node.left, environment)
    if look_up is None or right.value in {"true", "false", "null"}:
        return None
    slow = _equality(node, environment)
    if slow.kind != "boolean":
        return None
    found = environment.staged(look_up.text)
    operator = SQL("=" if node.operator == "=" else "<>")
    equal = SQL(
        "CASE WHEN {t} NOT LIKE '[%' THEN {t} COLLATE \"C\" {operator} {value} WHEN {elsewhere} THEN {slow} END"
    ).format(
        t=found, operator=operator, value=text_literal(right.value), elsewhere=look_up.may_be_elsewhere(found), slow=slow.sql
    )  # fmt: skip
    return Value(equal, "boolean")


def _ordered(node: Comparison, environment: Environment) -> Value:
    """The order of two numbers or two strings; only the data show which they are."""
    operator = SQL(node.operator)
    if {category(node.left.type), category(node.right.type)} <= {"number"}:
        sides = [(number(side, environment), "number") for side in (node.left, node.right)]
        return computed(environment, sides, "boolean", lambda a, b: SQL("({} {} {})").format(a, operator, b))  # type: ignore[arg-type]
    sides_json = [as_item(lower(side, environment), environment) for side in (node.left, node.right)]

    def compared(a: Fragment, b: Fragment) -> Fragment:
        return SQL(
            "CASE WHEN {a} = 'null' OR {b} = 'null' THEN 'null'::jsonb"
            " WHEN jsonb_typeof({a}) = 'number' AND jsonb_typeof({b}) = 'number' THEN CASE WHEN abs({a}::numeric) < 1e308"
            " AND abs({b}::numeric) < 1e308 THEN to_jsonb({a}::numeric {operator} {b}::numeric) ELSE {odd} END"
            " WHEN jsonb_typeof({a}) = 'string' AND jsonb_typeof({b}) = 'string'"
            " THEN to_jsonb(({a} #>> '{{}}') COLLATE \"C\" {operator} ({b} #>> '{{}}')) ELSE {odd} END"
        ).format(a=a, b=b, operator=operator, odd=environment.poison(_unordered(node)))

    return Value(bound(environment, [side.sql for side in sides_json], compared), "item", safe=False)


def _unordered(node: Comparison) -> str:
    if "number" in {category(node.left.type), category(node.right.type)}:
        return "needs a number, but holds something else"
    return "compares what is neither two numbers nor two strings"


def moment(node: Expression, environment: Environment) -> Value:
    """The one item as an existing date or time to compare with: a text, or an item that is a string or empty."""
    if isinstance(node, Constant) and isinstance(node.value, str):
        return Value(text_literal(node.value), "text")
    one = as_item(lower(node, environment), environment)
    checked = bound(
        environment,
        [one.sql],
        lambda v: SQL("CASE WHEN {v} = 'null' OR ({v} #>> '{{}}') ~ {pattern} THEN {v} ELSE {odd} END").format(
            v=v, pattern=Literal(MOMENT), odd=environment.poison("compares a date or time with something else")
        ),
    )
    return Value(checked, "item", safe=False)


def _ordered_moments(node: Comparison, environment: Environment) -> Value:
    sides = [(moment(side, environment), "text") for side in (node.left, node.right)]

    def compared(a: Fragment, b: Fragment) -> Fragment:
        return SQL("CASE WHEN {differ} THEN {odd} ELSE COALESCE(to_jsonb({found}), 'null') END").format(
            differ=one_is_a_time_of_day(a, b),
            odd=environment.poison("compares a time of day with a date"),
            found=temporal_comparison(node.operator, a, b),
        )

    found = computed(environment, sides, "item", compared)  # type: ignore[arg-type]
    return Value(found.sql, "item", safe=False)


def _equal_moments(node: Comparison, environment: Environment) -> Value:
    """Equality of one item and one item as moments; of several items as they are written."""
    arrays = [items(side, environment) for side in (node.left, node.right)]
    operator = SQL("=" if node.operator == "=" else "<>")

    def equal(a: Fragment, b: Fragment) -> Fragment:
        singles = temporal_comparison(node.operator, SQL("({} ->> 0)").format(a), SQL("({} ->> 0)").format(b))
        none = [
            SQL("({} ->> 0) !~ {}").format(side, Literal(MOMENT))
            for side, of in ((a, node.left), (b, node.right))
            if not isinstance(of, Constant)
        ]
        return SQL(
            "CASE WHEN {a} = '[]' OR {b} = '[]' THEN 'null'::jsonb"
            " WHEN jsonb_array_length({a}) > 1 OR jsonb_array_length({b}) > 1 THEN to_jsonb({a} {operator} {b})"
            " WHEN {none} THEN {odd} ELSE COALESCE(to_jsonb({singles}), 'null') END"
        ).format(
            a=a, b=b, operator=operator, none=SQL(" OR ").join(none) if none else SQL("false"), singles=singles,
            odd=environment.poison("compares a date or time with something else"),
        )  # fmt: skip

    found = computed(environment, [(array, "items") for array in arrays], "item", equal)
    return Value(found.sql, "item", safe=False)


@lowers(Arithmetic)
def _arithmetic(node: Arithmetic, environment: Environment) -> Value:
    if node.type == "string":
        texts = [(text(side, environment), "text") for side in (node.left, node.right)]
        return computed(environment, texts, "text", lambda a, b: SQL("({} || {})").format(a, b))  # type: ignore[arg-type]
    template = {
        "+": SQL("({} + {})"),
        "-": SQL("({} - {})"),
        "*": SQL("({} * {})"),
        # the zero gives a quotient at least the eight digits of FHIRPath's decimals; of large numbers Postgres has fewer
        "/": SQL("trim_scale(({} + 0.00000000) / NULLIF({}, 0))"),
        "div": SQL("div({}, NULLIF({}, 0))"),
        "mod": SQL("mod({}, NULLIF({}, 0))"),
    }[node.operator]
    sides = [(number(side, environment), "number") for side in (node.left, node.right)]
    return computed(environment, sides, "number", template.format)  # type: ignore[arg-type]


# recognised without a pattern; nine at least, so that Postgres hashes them
_OFTEN_REFERRED_TO = (
    "Condition", "Device", "DocumentReference", "Encounter", "Location", "Medication", "Observation", "Organization", "Patient",
    "Practitioner", "PractitionerRole", "Procedure", "RelatedPerson",
)  # fmt: skip
_ID = r"([^/]+)(?:/_history/[^/?#]*)?$"


def usual_key(reference: Fragment, node: ReferenceKey) -> tuple[Fragment, Fragment]:
    """Whether a reference is relative and has no version, as most have; and the key in such a one."""
    if node.target is None:
        usual = SQL("split_part({r}, '/', 1) IN ({types}) AND {r} LIKE '%/_%' AND {r} NOT LIKE '%/%/%'")
        types = SQL(", ").join(map(Literal, _OFTEN_REFERRED_TO))
        return usual.format(r=reference, types=types), SQL("split_part({}, '/', 2)").format(reference)
    begin = Literal(f"{node.target}/_%")
    usual = SQL("{r} LIKE {begin} AND {r} NOT LIKE '%/%/%'").format(r=reference, begin=begin)
    return usual, SQL("right({}, {})").format(reference, Literal(-len(node.target) - 1))


def key_of_reference(
    reference: Fragment, node: ReferenceKey, environment: Environment, elsewhere: Fragment
) -> Fragment:
    """The key in the text of a reference; `elsewhere` where there is no such text.

    Relative or absolute, with or without a version, or to a contained resource that is there; not `urn:…` or a conditional
    reference `Type?…`. The usual forms are recognised without a pattern, which costs twenty times as much.
    """
    kind = "[A-Z][A-Za-z]*" if node.target is None else node.target
    usual, found = usual_key(reference, node)
    contained = SQL(
        "(SELECT {id} || {r} FROM jsonb_path_query({body}, '$.contained[*]') AS c(v)"
        " WHERE c.v ->> 'id' = substr({r}, 2){kind} LIMIT 1)"
    ).format(
        id=environment.resource_id,
        r=reference,
        body=environment.resource,
        kind=SQL("") if node.target is None else SQL(" AND c.v ->> 'resourceType' = {}").format(Literal(node.target)),
    )
    pattern = Literal(f"(?:^|/){kind}/{_ID}")
    return SQL(
        "CASE WHEN {usual} THEN {found} WHEN {r} LIKE '#%' THEN {contained}"
        " WHEN {r} LIKE '[%' OR {r} LIKE '{{%' THEN NULL"
        " WHEN {r} IS NOT NULL THEN substring({r} from {pattern}) ELSE {elsewhere} END"
    ).format(usual=usual, found=found, r=reference, contained=contained, pattern=pattern, elsewhere=elsewhere)


def fast_reference(node: ReferenceKey, environment: Environment) -> Fast | None:
    """Look up the reference of a key by plain operators."""
    inside = Child(of=node.of, name="reference", keys=("reference",), repeats=False, type="string")
    return fast(inside, environment)


@lowers(ReferenceKey)
def _reference_key(node: ReferenceKey, environment: Environment) -> Value:
    if not isinstance(node.of, Focus):
        return items(Select(of=node.of, projection=replace(node, of=Focus())), environment)
    row = environment.name("k")
    key = key_of_reference(SQL("{}.r").format(row), node, environment, SQL("NULL"))
    one = SQL("(SELECT {} FROM (SELECT {} ->> 'reference' AS r OFFSET 0) AS {})").format(key, environment.focus, row)
    return Value(one, "text")


@lowers(ContainedKey)
def _contained_key(node: ContainedKey, environment: Environment) -> Value:
    if isinstance(node.of, Focus):
        key = SQL("({} || '#' || ({} ->> 'id'))").format(environment.resource_id, environment.focus)
        return Value(key, "text")
    return items(Select(of=node.of, projection=ContainedKey(of=Focus())), environment)
