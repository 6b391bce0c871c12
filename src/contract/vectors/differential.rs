//! Filters select the same rows in two stores: random expressions over rows of every kind.

use serde_json::{Value, json};

use super::{create, insert, pages, query, unit};
use crate::ErrorKind;
use crate::vectors::{CollectionConfig, Entity, FieldType, Filter, QueryRequest, VectorStore};

/// How many filters a store answered, and how many it rejected as unsupported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreement {
    /// Filters that selected the same rows.
    pub same: usize,
    /// Filters that the tested store rejected as unsupported.
    pub unsupported: usize,
}

/// Inserts rows of every kind into both empty stores, and checks that `number` random filters, the same for the same
/// seed, select the same rows in both. The reference answers all of them; the tested store may reject a filter as
/// [`Unsupported`](ErrorKind::Unsupported).
///
/// # Panics
/// If a filter selects other rows, or fails for another reason.
pub async fn filters_agree(
    reference: &dyn VectorStore,
    tested: &dyn VectorStore,
    seed: u64,
    number: usize,
) -> Agreement {
    let config = config();
    let (reference, tested) = (create(reference, &config).await, create(tested, &config).await);
    insert(&*reference, rows()).await;
    insert(&*tested, rows()).await;
    let mut agreement = Agreement::default();
    let mut random = RandomFilters::new(seed);
    for _ in 0..number {
        let text = random.condition(3);
        let filter = Filter::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let request = || QueryRequest::new(filter.clone()).with_output_fields(["content"]);
        let expected = contents(&query(&*reference, request()).await);
        match tested.query_by_expr(request()).await {
            Ok(hits) => {
                assert_eq!(contents(&hits), expected, "{text}");
                agreement.same += 1;
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => agreement.unsupported += 1,
            Err(error) => panic!("{text}: {error}"),
        }
    }
    agreement
}

fn contents(hits: &[crate::vectors::Hit]) -> Vec<String> {
    let mut contents: Vec<_> = hits.iter().map(|hit| hit.fields["content"].to_string()).collect();
    contents.sort_unstable();
    contents
}

fn config() -> CollectionConfig {
    pages()
        .with_field("page", FieldType::Int64)
        .with_field("price", FieldType::Float)
        .with_field("draft", FieldType::Bool)
        .with_field("language", FieldType::VarChar)
}

/// Values of every kind: under the key `v` of the metadata, and in the typed fields.
fn rows() -> Vec<Entity> {
    let deep = (0..20).fold(json!(7), |inner, _| json!({"a": inner}));
    let mut values: Vec<_> =
        integers().into_iter().chain(floats()).chain(strings().map(Value::from)).collect();
    values.extend([
        json!(true),
        json!(false),
        Value::Null,
        json!([]),
        json!([1, "x", 2.5]),
        json!([1, [2, 3]]),
        json!([7.0, true, null]),
        json!([7]),
        json!(["7", 7]),
        json!([9_007_199_254_740_993_i64]),
        json!({}),
        json!({"a": 7}),
        json!({"a": {"b": {"c": 7}}}),
        json!({"a": null, "it's \"q\"": 7, "a/b": 7, "a~1b": 8, "\u{e4} \n": 7}),
        json!({"a": [7, {"b": "abc"}]}),
        deep,
    ]);
    let (integers, floats, strings) = (integers(), floats(), strings());
    let row = |(i, value): (usize, Value)| {
        let metadata = match i % 3 {
            0 => json!({"v": value, "w": i % 5, "tags": ["x", i % 4]}),
            1 => json!({"v": value, "w": format!("{}", i % 5)}),
            _ => json!({"v": value}),
        };
        entity(i, metadata, &integers, &floats, &strings)
    };
    let mut rows: Vec<_> = values.into_iter().enumerate().map(row).collect();
    for i in 0..8 {
        rows.push(entity(1_000 + i, json!({"w": i}), &integers, &floats, &strings));
    }
    rows
}

fn entity(
    i: usize,
    metadata: Value,
    integers: &[Value; 9],
    floats: &[Value; 6],
    strings: &[&str; 19],
) -> Entity {
    Entity::new(format!("row {i}"), unit(0, 1.0))
        .with_metadata(metadata)
        .with_field("page", integers[i % integers.len()].clone())
        .with_field("price", floats[i % floats.len()].clone())
        .with_field("draft", i.is_multiple_of(2))
        .with_field("language", strings[i % strings.len()])
}

fn integers() -> [Value; 9] {
    [0, 1, 7, -7, 8, 9_007_199_254_740_992, 9_007_199_254_740_993, i64::MAX, i64::MIN].map(Value::from)
}

/// All of them have the same value in 32 bits.
fn floats() -> [Value; 6] {
    [0.0, 7.0, 7.5, -1.25, 0.125, 1e10].map(Value::from)
}

fn strings() -> [&'static str; 19] {
    [
        "",
        "7",
        "abc",
        "ABC",
        "abcdef",
        "xabc",
        "a_c",
        "a%c",
        "50%_off\\",
        "it's \"q\"",
        "a\\nb",
        "a\nb\t\r",
        "\u{e4}\u{20ac}\u{1d11e}",
        "e\u{301}",
        "a.c",
        "a(c*",
        "true",
        "[1]",
        "\" or 1 == 1 or content == \"",
    ]
}

/// Random expressions in the filter language.
struct RandomFilters(fastrand::Rng);

impl RandomFilters {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.0.usize(..items.len())].clone()
    }

    fn condition(&mut self, depth: usize) -> String {
        if depth == 0 || self.0.u8(..) < 100 {
            return self.simple();
        }
        match self.0.u8(..4) {
            0 => format!("not ({})", self.condition(depth - 1)),
            1 => {
                let parts: Vec<_> = (0..self.0.usize(2..5)).map(|_| self.condition(depth - 1)).collect();
                format!("({})", parts.join(" or "))
            }
            _ => format!("({} and {})", self.condition(depth - 1), self.condition(depth - 1)),
        }
    }

    fn simple(&mut self) -> String {
        match self.0.u8(..16) {
            0..=5 => self.comparison(),
            6 => format!("{} <= {} < {}", self.literal(), self.path(), self.literal()),
            7 | 8 => format!("{} {} {}", self.path(), self.pick(&["in", "not in"]), self.list(0)),
            9 => format!("{} like {}", self.path(), self.pattern()),
            10 | 11 => self.contains(),
            12 => format!("{} {}", self.arithmetic(), self.compared()),
            13 => format!("array_length({}) {}", self.path(), self.compared()),
            14 => self.pick(&["draft", "metadata['v']", "true", "false", "page", "1 < 2"]).to_owned(),
            _ => match self.0.u8(..3) {
                0 => format!("{} is null", self.path()),
                1 => format!("{} is not null", self.path()),
                _ => format!("exists {}", self.path()),
            },
        }
    }

    fn comparison(&mut self) -> String {
        let op = self.op();
        match self.0.u8(..8) {
            0 => format!("{} {op} {}", self.literal(), self.path()),
            1 => format!("{} {op} {}", self.path(), self.path()),
            2 => format!("{} {op} {}", self.path(), self.list(1)),
            _ => format!("{} {op} {}", self.path(), self.literal()),
        }
    }

    fn compared(&mut self) -> String {
        format!("{} {}", self.op(), self.literal())
    }

    fn op(&mut self) -> &'static str {
        self.pick(&["==", "==", "!=", "!=", "<", "<=", ">", ">="])
    }

    fn arithmetic(&mut self) -> String {
        let op = self.pick(&["+", "-", "*", "/", "%"]);
        // No zero: a constant division by it is rejected.
        let number = self.pick(&["1", "2", "3", "-2", "0.5", "2.0", "9007199254740993"]);
        if op != "/" && op != "%" && self.0.bool() {
            return format!("{number} {op} {}", self.path());
        }
        format!("{} {op} {number}", self.path())
    }

    fn contains(&mut self) -> String {
        let prefix = self.pick(&["json", "array"]);
        match self.0.u8(..3) {
            0 => {
                let element = if self.0.u8(..4) == 0 { self.list(0) } else { self.scalar() };
                format!("{prefix}_contains({}, {element})", self.path())
            }
            1 => format!("{prefix}_contains_all({}, {})", self.path(), self.list(0)),
            _ => format!("{prefix}_contains_any({}, {})", self.path(), self.list(1)),
        }
    }

    /// Mostly paths that are in some rows.
    fn path(&mut self) -> &'static str {
        self.pick(&[
            "page",
            "page",
            "price",
            "draft",
            "language",
            "content",
            "metadata['v']",
            "metadata['v']",
            "metadata['v']",
            "metadata['v']",
            "metadata['w']",
            "metadata['w']",
            "metadata['tags']",
            "metadata['v']['a']",
            "metadata['v']['a']['b']['c']",
            "metadata['v'][0]",
            "metadata['v'][1][0]",
            "metadata['v']['a'][1]['b']",
            "metadata[\"v\"][\"it's \\\"q\\\"\"]",
            "metadata['v']['a/b']",
            "metadata['v']['a~1b']",
            "metadata['v'][\"\u{e4} \\n\"]",
            "metadata['missing']",
            "metadata['missing']['b']",
            "page['a']",
            "metadata['tags'][0]",
            "metadata['v']['a']['a']['a']['a']['a']",
        ])
    }

    fn literal(&mut self) -> String {
        match self.0.u8(..9) {
            0..=2 => self.pick(&integers()).to_string(),
            3 | 4 => self.pick(&floats()).to_string(),
            5 | 6 => Value::from(self.pick(&strings())).to_string(),
            7 => self.0.bool().to_string(),
            _ => self.pick(&["7", "1", "'x'", "'abc'", "7.0", "2.5", "2", "2 + 5", "7 / 2"]).to_owned(),
        }
    }

    /// Scalars, with duplicates and of several types.
    fn list(&mut self, min: usize) -> String {
        let one_type = self.0.bool();
        let literals: Vec<_> = (0..self.0.usize(min..4))
            .map(|_| match one_type {
                true => self.pick(&integers()).to_string(),
                false => self.scalar(),
            })
            .collect();
        format!("[{}]", literals.join(", "))
    }

    fn scalar(&mut self) -> String {
        match self.0.u8(..4) {
            0 => self.pick(&integers()).to_string(),
            1 => self.pick(&floats()).to_string(),
            2 => Value::from(self.pick(&strings())).to_string(),
            _ => self.pick(&["true", "'x'", "'7'", "2.5", "7"]).to_owned(),
        }
    }

    fn pattern(&mut self) -> String {
        let pattern = self.pick(&[
            "abc",
            "abc%",
            "%abc",
            "%b%",
            "a_c",
            "a_c%",
            "a%c",
            "%",
            "%%",
            "",
            "_bc%",
            "a\\_c",
            "a\\%c%",
            "50\\%\\_off\\\\",
            "it's%",
            "a%f",
            "\u{e4}%",
            "%\u{20ac}%",
            "a.%",
            "%(c*",
            "a\n%",
            "_",
            "7%",
            "e%",
            "[%",
        ]);
        Value::from(pattern).to_string()
    }
}
