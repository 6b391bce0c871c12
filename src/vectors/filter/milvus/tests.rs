//! What is sent to which server, and what is not.

use serde_json::json;

use super::super::Filter;
use super::*;

fn config() -> CollectionConfig {
    CollectionConfig::new("c", 4)
        .with_field("page", FieldType::Int64)
        .with_field("price", FieldType::Float)
        .with_field("draft", FieldType::Bool)
        .with_field("more", FieldType::Json)
}

fn printed(text: &str, dialect: &MilvusDialect) -> Result<String> {
    Filter::parse(text).expect(text).to_milvus(&config(), dialect)
}

#[track_caller]
fn both(table: &[(&str, &str)]) {
    for (text, expected) in table {
        for dialect in [MilvusDialect::STANDALONE, MilvusDialect::LITE] {
            assert_eq!(printed(text, &dialect).expect(text), *expected, "{text} for {}", dialect.name);
        }
    }
}

#[track_caller]
fn rejected(dialect: &MilvusDialect, table: &[&str]) {
    for text in table {
        let error = printed(text, dialect).expect_err(text);
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Unsupported, crate::Outcome::NotSent),
            "{text}"
        );
        assert!(error.message().contains(dialect.name), "{error}");
    }
}

#[test]
fn literals_stand_on_the_right_and_negations_on_the_inside() {
    both(&[
        ("7 == metadata['v']", r#"(metadata["v"] == 7)"#),
        ("8 > page >= 7", "((page < 8) and (page >= 7))"),
        ("not (page == 7 or draft == true)", "((page != 7) and (draft != true))"),
        ("not (page < 7)", "(page >= 7)"),
        ("not (metadata['v'] in [7])", r#"(metadata["v"] not in [7])"#),
        ("not not draft", "(draft == true)"),
        ("metadata['v']", r#"(metadata["v"] == true)"#),
        ("page == 1 or page == 2 or page == 3", "((page == 1) or ((page == 2) or (page == 3)))"),
    ]);
}

#[test]
fn what_is_the_same_for_every_row_is_decided_here() {
    both(&[
        ("true", r#"doc_id != """#),
        ("1 == 2", r#"doc_id == """#),
        ("page == '7'", r#"doc_id == """#),
        ("page != '7' and price > 2", "(price > 2.0)"),
        ("page['a'] == 7 or page in []", r#"doc_id == """#),
        ("page is not null and exists draft", r#"doc_id != """#),
        ("json_contains(page, 7) or page == 8 - 1", "(page == 7)"),
        ("content like '%'", r#"doc_id != """#),
        ("metadata['v'] == 7 / 2", r#"(metadata["v"] == 3.5)"#),
        ("array_length(metadata['v']) == -1 or array_length(page) == 0", r#"doc_id == """#),
    ]);
}

#[test]
fn numbers_take_the_type_of_the_field() {
    both(&[
        ("page == 7.0", "(page == 7)"),
        ("page == 7.5", r#"doc_id == """#),
        ("page < 7.5", "(page <= 7)"),
        ("page <= 7.5", "(page <= 7)"),
        ("page > 7.5", "(page > 7)"),
        ("page >= 7.5", "(page >= 8)"),
        ("page < 7.0 and page > -7.0", "((page < 7) and (page > -7))"),
        ("price == 7", "(price == 7.0)"),
        ("page in [1.0, 2, 2.5, '3']", "(page in [1, 2])"),
        ("price in [1, 2.5]", "(price in [1.0, 2.5])"),
        (
            "metadata['v'] in [1, 'x', 2.5, true]",
            concat!(
                r#"(((metadata["v"] in ["x"]) or (metadata["v"] in [true])) or "#,
                r#"((metadata["v"] in [1]) or (metadata["v"] in [2.5])))"#
            ),
        ),
        ("json_contains(metadata['v'], 7)", r#"json_contains(metadata["v"], 7.0)"#),
        (
            "json_contains_any(metadata['v'], [9007199254740993, 'x'])",
            r#"json_contains_any(metadata["v"], [9007199254740993, "x"])"#,
        ),
        ("page + 9223372036854775807 == -2", r#"doc_id == """#),
        ("page + 1 == 8 and 2 * page != 14 and page * 4 == 6", r#"doc_id == """#),
        ("1 + page == 8", "(page == 7)"),
        ("page * 0 == 0 and page - 1 != 6", "(page != 7)"),
        ("array_length(metadata['v']) == 2.0", r#"(array_length(metadata["v"]) == 2)"#),
    ]);
}

#[test]
fn values_are_escaped_and_never_become_syntax() {
    let hostile = "\" or 1 == 1 or content == \"";
    let filter = Filter::with_params(
        "content == {x} and metadata[\"a\\\"] or [\\\"b\"] == {x}",
        [("x", json!(hostile))],
    );
    let text = filter.expect("valid").to_milvus(&config(), &MilvusDialect::LITE).expect("printed");
    let escaped = r#""\" or 1 == 1 or content == \"""#;
    assert_eq!(text, format!(r#"((content == {escaped}) and (metadata["a\"] or [\"b"] == {escaped}))"#));
    assert_eq!(Filter::parse(&text).expect("it is the language").paths().len(), 2);
    let newline = printed("content == 'a\\nb'", &MilvusDialect::STANDALONE).expect("decoded there");
    assert_eq!(newline, r#"(content == "a\nb")"#);
    rejected(
        &MilvusDialect::LITE,
        &["content == 'a\\nb'", "metadata['v'] in ['\\t']", "content like 'a\\r%'"],
    );
}

#[test]
fn patterns_are_sent_where_they_mean_the_same() {
    both(&[
        ("content like 'abc'", r#"(content == "abc")"#),
        ("content like '50\\\\%'", r#"(content == "50%")"#),
        ("not (content like 'a\\\\_b')", r#"(content != "a_b")"#),
        ("content like 'abc%%'", r#"(content like "abc%")"#),
        ("metadata['v'] like '%'", r#"(metadata["v"] >= "")"#),
    ]);
    let (lite, standalone) = (MilvusDialect::LITE, MilvusDialect::STANDALONE);
    assert_eq!(printed("content like '%a%c'", &lite).expect("anywhere"), r#"(content like "%a%c")"#);
    assert_eq!(printed("content like 'a\\\\_c%'", &standalone).expect("prefix"), r#"(content like "a_c%")"#);
    rejected(&lite, &["content like 'a\\\\_c%'", "content like '5\\\\%%'"]);
    for pattern in ["_", "a_", "a_c", "%a_c%", "_%", "__%", "%_%", "_%%", "%_"] {
        rejected(&lite, &[&format!("content like '{pattern}'")]);
    }
    rejected(
        &standalone,
        &["content like '%a'", "content like 'a_c'", "content like 'a_%'", "content like '5\\\\%%'"],
    );
}

#[test]
fn what_no_server_evaluates_as_here_is_an_error_before_anything_is_sent() {
    for dialect in [MilvusDialect::STANDALONE, MilvusDialect::LITE] {
        rejected(
            &dialect,
            &[
                "metadata['v'] is null",
                "metadata['0'] == 1",
                "metadata[''] == 1",
                "metadata == 1",
                "json_contains(more, 1)",
                "metadata['v'] == metadata['w']",
                "metadata['v'] == page",
                "page == price",
                "not (price < page)",
                "metadata['v'] == -9223372036854775808",
                "page == -9223372036854775808",
                "page == 1e300",
                "price < 1e300",
                "page / 2 == 3.5",
                "page + 1 < 8",
                "page + 0.5 == 7.5",
                "(4 % 1) + page != 9.223372036854776e18",
                "page * 2 == 9007199254740992.0",
                "metadata['v'] + 1 == 9007199254740994.0",
                "page + page == 14",
                "14 / page == 2",
                "-page == 7",
                "price + 1 == 8",
                "metadata['v'] % 2 == 1",
                "metadata['v'] + 9007199254740993 == 1",
                "array_length(metadata['v']) == 0",
                "array_length(metadata['v']) > 1",
                "json_contains_all(metadata['v'], [])",
                "json_contains(metadata['v'], [])",
                "metadata['v'] == [1, [2]]",
            ],
        );
        let unknown = printed("colour == 'red'", &dialect).expect_err("no such field");
        assert_eq!(unknown.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn what_only_the_full_server_evaluates_is_an_error_for_the_small_one() {
    for (text, expected) in [
        ("not (metadata['v'] < 7)", r#"(not ((metadata["v"] < 7)))"#),
        ("not (content like 'a%')", r#"(not ((content like "a%")))"#),
        ("exists metadata['v'] and page == 7", r#"((exists metadata["v"]) and (page == 7))"#),
        ("metadata['v'] / 2 == 3", r#"(metadata["v"] / 2.0 == 3.0)"#),
        ("metadata['v'] != [1, 'x']", r#"(not ((metadata["v"] == [1.0, "x"])))"#),
        ("json_contains_any(metadata['v'], [true])", r#"json_contains_any(metadata["v"], [true])"#),
    ] {
        assert_eq!(printed(text, &MilvusDialect::STANDALONE).expect(text), expected);
        rejected(&MilvusDialect::LITE, &[text]);
    }
    assert_eq!(printed("page % 2 == 1", &MilvusDialect::LITE).expect("exact there"), "(page % 2 == 1)");
    rejected(&MilvusDialect::STANDALONE, &["page % 2 == 1"]);
    rejected(&MilvusDialect::LITE, &["page % -1 == 0"]);
}

#[test]
fn newer_servers_get_patterns_of_percents_and_no_literal_underscores() {
    for dialect in [MilvusDialect::STANDALONE_2_4, MilvusDialect::STANDALONE_2_6] {
        assert_eq!(printed("content like '%a%b'", &dialect).expect("anywhere"), r#"(content like "%a%b")"#);
        rejected(&dialect, &["content like 'a_c'", "content like 'a\\\\_c%'", "content like '5\\\\%%'"]);
    }
}

#[test]
fn a_negated_condition_on_json_is_an_error_where_it_is_neither_true_nor_false_for_a_missing_path() {
    let dialect = MilvusDialect::STANDALONE_2_6;
    let negated = [
        "metadata['v'] != 7",
        "not (metadata['v'] == 7)",
        "metadata['v'] not in [7]",
        "metadata['v'] + 1 != 8",
        "metadata['v'] != [1]",
        "array_length(metadata['v']) != 2",
        "not (metadata['v'] < 7)",
        "not (metadata['v'] like 'a%')",
        "not (metadata['v'] like '%')",
        "not json_contains(metadata['v'], 1)",
        "page == 7 and not (page == 8 or metadata['v'] == 7)",
    ];
    rejected(&dialect, &negated);
    for text in negated {
        printed(text, &MilvusDialect::STANDALONE_2_4).expect(text);
    }
    for text in
        ["not (metadata['v'] != 7)", "not exists metadata['v']", "page != 7 and page not in [8]", "not draft"]
    {
        let same = printed(text, &MilvusDialect::STANDALONE).expect(text);
        assert_eq!(printed(text, &dialect).expect(text), same);
    }
}

#[test]
fn many_conditions_are_few_levels_and_too_many_levels_are_an_error() {
    let many = vec!["page == 1"; 3_000].join(" or ");
    printed(&many, &MilvusDialect::LITE).expect("a balanced tree");
    let deep =
        (0..60).fold("page == 1".to_owned(), |inner, _| format!("(page == 2 or price > 3 and {inner})"));
    rejected(&MilvusDialect::LITE, &[&deep]);
}
