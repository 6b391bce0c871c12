//! The semantics of the filter language, form by form.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn matches(text: &str) -> bool {
    let fields = json!({
        "content": "the quick fox", "page": 7, "price": 2.5, "draft": false, "live": true, "nothing": null, "zero": 0,
        "big": i64::MAX,
        "metadata": {
            "source": "a.md", "tags": ["x", "y"], "numbers": [1, 2.0, [3, 4]], "deep": {"list": [1, [2, 3]]},
            "it's": 1, "0": "key", "null": null, "flag": true, "empty": [],
        },
    });
    Filter::parse(text).expect(text).matches(fields.as_object().expect("an object"))
}

#[track_caller]
fn check(table: &[(&str, bool)]) {
    for (text, expected) in table {
        assert_eq!(matches(text), *expected, "{text}");
        let printed = Filter::parse(text).expect(text).to_string();
        assert_eq!(matches(&printed), *expected, "{text}, printed as {printed}");
    }
}

#[test]
fn comparisons_and_their_precedence() {
    check(&[
        ("page == 7", true),
        ("page != 7", false),
        ("page > 6 and page < 8 and page >= 7 and page <= 7", true),
        ("7.0 == page", true),
        ("6 < page <= 7", true),
        ("8 > page >= 8", false),
        ("content < 'u' and content > 'the'", true),
        ("page in [1, 7]", true),
        ("page not in [1, 7]", false),
        ("page in []", false),
        ("not draft == true", true),
        ("draft or page == 7", true),
        ("live and not draft", true),
        ("!(page == 7) || price > 2", true),
        ("page == 7 && price > 3", false),
        ("page == 7 or page == 8 and page == 9", true),
        ("PAGE == 7 OR page IN [7] AND NOT false", true),
        ("true", true),
    ]);
}

#[test]
fn a_missing_path_and_another_type_are_only_unequal() {
    check(&[
        ("metadata['missing'] == 1", false),
        ("metadata['missing'] != 1", true),
        ("metadata['missing'] < 1 or metadata['missing'] >= 1", false),
        ("metadata['missing'] in [1]", false),
        ("metadata['missing'] not in [1]", true),
        ("not (metadata['missing'] == 1)", true),
        ("metadata['missing'] like '%'", false),
        ("metadata['source'] == 3", false),
        ("metadata['source'] != 3", true),
        ("metadata['source'] > 3 or metadata['source'] <= 3", false),
        ("metadata['source'] not in [3, true]", true),
        ("page == '7'", false),
        ("page != '7'", true),
        ("metadata['flag'] == 1", false),
        ("metadata['flag'] != 1", true),
        ("metadata['null'] != 1", true),
        ("page['a'] == 7", false),
        ("page['a'] != 7", true),
        ("page", false),
    ]);
}

#[test]
fn arithmetic_of_integers_is_exact_and_what_has_no_result_is_only_unequal() {
    check(&[
        ("page * 2 + 1 == 15", true),
        ("page - 1 - 1 == 5", true),
        ("(page + 1) * 2 == 16", true),
        ("-page == -7", true),
        ("page % 4 == 3", true),
        ("page / 2 == 3.5", true),
        ("page / 2 == 3", false),
        ("price * 2 == 5", true),
        ("metadata['missing'] + 1 == 1", false),
        ("metadata['missing'] + 1 != 1", true),
        ("metadata['source'] * 2 != 1", true),
        ("page / zero > 0", false),
        ("page / zero != 0", true),
        ("page % zero == 0", false),
        ("big + 1 > 0", false),
        ("big * big != 0", true),
        ("page ** 2 == 49", true),
        ("2 ** 3 ** 2 == 64", true),
        ("-page ** 2 == -49", true),
        ("2 * page ** 2 == 98", true),
        ("page ** -1 == 1 / 7", true),
        ("price ** 2 == 6.25", true),
        ("big ** 2 == 1", false),
        ("big ** 2 != 1", true),
        ("zero ** -1 != 1", true),
    ]);
}

#[test]
fn quoted_segments_are_keys_and_numbers_are_array_indexes() {
    check(&[
        ("metadata['source'] == \"a.md\"", true),
        ("metadata['deep']['list'][1][0] == 2", true),
        ("metadata['it\\'s'] == 1", true),
        ("metadata['0'] == 'key'", true),
        ("metadata[0] == 'key'", false),
        ("metadata['tags'][0] == 'x'", true),
        ("metadata['tags']['0'] == 'x'", false),
        ("metadata['tags'][2] == 'x'", false),
    ]);
}

#[test]
fn arrays_are_compared_searched_and_measured() {
    check(&[
        ("metadata['tags'] == ['x', 'y']", true),
        ("metadata['tags'] == ['y', 'x']", false),
        ("metadata['tags'] != ['x']", true),
        ("metadata['numbers'] == [1.0, 2, [3, 4]]", true),
        ("json_contains(metadata['tags'], 'y')", true),
        ("JSON_CONTAINS(metadata['tags'], 'z')", false),
        ("json_contains(metadata['numbers'], 2)", true),
        ("json_contains(metadata['numbers'], [3, 4])", true),
        ("json_contains(metadata['numbers'], 3)", false),
        ("json_contains(metadata['source'], 'a')", false),
        ("not json_contains(metadata['missing'], 'a')", true),
        ("json_contains_all(metadata['tags'], ['y', 'x'])", true),
        ("json_contains_all(metadata['tags'], ['y', 'z'])", false),
        ("json_contains_any(metadata['tags'], ['y', 'z'])", true),
        ("json_contains_any(metadata['tags'], ['z'])", false),
        ("json_contains_any(metadata['tags'], [])", false),
        ("array_contains_any(metadata['tags'], ['x'])", true),
        ("array_length(metadata['tags']) == 2", true),
        ("array_length(metadata['empty']) == 0", true),
        ("array_length(metadata['source']) == 0", false),
    ]);
}

#[test]
fn presence_and_null() {
    check(&[
        ("exists metadata['source'] and not exists metadata['nope']", true),
        ("exists metadata['null']", true),
        ("nothing is null and page is not null", true),
        ("metadata['null'] is null and metadata['nope'] is null", true),
        ("metadata['source'] is not null", true),
    ]);
}

#[test]
fn like_matches_strings_and_escapes() {
    check(&[
        ("content like 'the%'", true),
        ("content like '%fox'", true),
        ("content like '%quick%'", true),
        ("content like 'quick%'", false),
        ("content like 't_e%'", true),
        ("content like 't\\\\_e%'", false),
        ("page like '7'", false),
    ]);
    let user = "50%_off\\";
    let pattern = format!("%{}%", Filter::escape_like(user));
    let filter = Filter::with_params("t like {p}", [("p", json!(pattern))]).expect("escaped");
    assert!(filter.matches(json!({"t": "now 50%_off\\!"}).as_object().expect("an object")));
    assert!(!filter.matches(json!({"t": "now 50 off\\!"}).as_object().expect("an object")));
}

#[test]
fn an_invalid_filter_is_an_error_that_says_where() {
    for (text, expected) in [
        ("", "empty"),
        ("   ", "empty"),
        ("page ==", "at byte 7"),
        ("page = 7", "at byte 5"),
        ("page == 'open", "unterminated string at byte 8"),
        ("page == {open", "unterminated parameter at byte 8"),
        ("(page == 7", "at byte 10"),
        ("page == 7 7", "at byte 10"),
        ("page in 7", "at byte 8"),
        ("page in [[7]]", "at byte 8"),
        ("page == {x}", "parameter \"x\""),
        ("page # 7", "at byte 5"),
        ("metadata['a' == 1", "at byte 13"),
        ("page == 99999999999999999999999", "at byte 8"),
        ("page + 1", "expected a condition at byte 0"),
        ("page == 1 and 'text'", "expected a condition at byte 14"),
        ("(page == 1) + 1 == 2", "expected a value at byte 0"),
        ("page == null", "is null"),
        ("page / 0 == 1", "division by zero at byte 7"),
        ("page % (1 - 1) == 1", "division by zero at byte 7"),
        ("content like 'a\\\\'", "backslash"),
        ("1 < page > 2", "at byte 9"),
        ("in == 1", "at byte 0"),
        ("array_length(7) == 1", "at byte 13"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_parameter_never_becomes_syntax() {
    let hostile = "' or true or '";
    let filter = Filter::with_params("content == {name}", [("name", json!(hostile))]).expect("bound");
    assert!(!filter.matches(json!({"content": "x"}).as_object().expect("an object")));
    assert!(filter.matches(json!({"content": hostile}).as_object().expect("an object")));
    assert_eq!(Filter::parse(&filter.to_string()).expect("quoted"), filter);
}

#[test]
fn a_parameter_that_is_not_used_is_an_error() {
    let error = Filter::with_params("page == 1", [("name", json!(1))]).expect_err("not used");
    assert!(error.message().contains("\"name\""), "{error}");
}

#[test]
fn a_parameter_that_is_bound_twice_is_an_error() {
    let twice = [("name", json!(1)), ("name", json!(2))];
    let error = Filter::with_params("page == {name}", twice).expect_err("which one?");
    assert!(error.message().contains("\"name\" is bound twice"), "{error}");
}

#[test]
fn the_tree_can_be_read_by_a_translator() {
    let filter = Filter::parse("metadata['a'][0] >= 2 and not draft").expect("good");
    let Expr::And(parts) = filter.expr() else { panic!("{filter:?}") };
    let path = FieldPath::new("metadata", vec![PathSegment::Key("a".into()), PathSegment::Index(0)]);
    let expected = Expr::Compare {
        op: CompareOp::GreaterOrEqual,
        left: Operand::Field(path),
        right: Operand::Literal(json!(2)),
    };
    assert_eq!(parts[0], expected);
    let names: Vec<_> = filter.paths().into_iter().map(|path| path.field.as_str()).collect();
    assert_eq!(names, ["metadata", "draft"]);
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-100_i32..100).prop_map(Value::from),
        (-100_i32..100).prop_map(|n| Value::from(f64::from(n) / 8.0)),
        "[a-z'\"\\\\%\n\u{e4}]{0,6}".prop_map(Value::from),
    ]
}

fn path() -> impl Strategy<Value = FieldPath> {
    let segment =
        prop_oneof!["[a-c']{1,2}".prop_map(PathSegment::Key), (0_usize..3).prop_map(PathSegment::Index)];
    ("[a-c]", proptest::collection::vec(segment, 0..3))
        .prop_map(|(field, segments)| FieldPath { field, segments })
}

fn operand() -> impl Strategy<Value = Operand> {
    let list = proptest::collection::vec(scalar(), 0..3).prop_map(Value::Array);
    let leaf = prop_oneof![
        path().prop_map(Operand::Field),
        path().prop_map(Operand::ArrayLength),
        scalar().prop_map(Operand::Literal),
        list.prop_map(Operand::Literal),
    ];
    let ops = prop_oneof![Just(ArithmeticOp::Add), Just(ArithmeticOp::Multiply), Just(ArithmeticOp::Power)];
    leaf.prop_recursive(3, 8, 2, move |inner| {
        let arithmetic = (ops.clone(), inner.clone(), inner.clone())
            .prop_map(|(op, left, right)| Operand::Arithmetic { op, left: left.into(), right: right.into() });
        // A negated number is printed as a literal, so only paths are negated.
        prop_oneof![arithmetic, path().prop_map(|path| Operand::Negate(Operand::Field(path).into()))]
    })
}

fn expr() -> impl Strategy<Value = Expr> {
    let compare_ops = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::NotEqual),
        Just(CompareOp::Less),
        Just(CompareOp::GreaterOrEqual)
    ];
    let list = || proptest::collection::vec(scalar(), 0..3);
    let leaf = prop_oneof![
        (compare_ops, operand(), operand()).prop_map(|(op, left, right)| Expr::Compare { op, left, right }),
        (operand(), list(), any::<bool>()).prop_map(|(operand, list, negated)| Expr::In {
            operand,
            list,
            negated
        }),
        (path(), "[a-z%_']{0,5}").prop_map(|(path, pattern)| Expr::Like { path, pattern }),
        (path(), scalar()).prop_map(|(path, value)| Expr::Contains { path, value }),
        (path(), list()).prop_map(|(path, values)| Expr::ContainsAll { path, values }),
        (path(), list()).prop_map(|(path, values)| Expr::ContainsAny { path, values }),
        path().prop_map(Expr::Exists),
        (path(), any::<bool>()).prop_map(|(path, negated)| Expr::IsNull { path, negated }),
        path().prop_map(Expr::IsTrue),
        any::<bool>().prop_map(Expr::Constant),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Expr::Not(inner.into())),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            proptest::collection::vec(inner, 2..4).prop_map(Expr::Or),
        ]
    })
}

proptest! {
    #[test]
    fn a_printed_filter_parses_to_the_same_tree(root in expr()) {
        let filter = Filter { root };
        let parsed = Filter::parse(&filter.to_string());
        prop_assert_eq!(parsed.map_err(|error| TestCaseError::fail(format!("{filter}: {error}")))?, filter);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-c0-9'\"(){}\\[\\]=<>!&|%*+ /.,-]{0,60}") {
        let _ = Filter::parse(&text);
    }
}
