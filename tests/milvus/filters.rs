//! Filters select the same entities here and on both engines; where the engines differ is in the guide.

use std::time::Duration;

use arshai::backends::vectors::{EmbeddedStore, MilvusStore};
use arshai::contract::vectors::filters_agree;
use arshai::vectors::{CollectionConfig, Entity, FieldType, Filter, VectorStore};
use arshai::{BuildContext, Config};
use arshai_test_support::{MilvusServer, eventually};
use milvus::proto::common::ConsistencyLevel;
use milvus::proto::milvus::QueryRequest;
use milvus::proto::milvus::milvus_service_client::MilvusServiceClient;
use milvus::proto::schema::{field_data::Field, scalar_field::Data};
use serde_json::{Value, json};
use tonic::transport::Channel;

const GUIDE: &str = include_str!("../../docs/filters.md");
/// Seven entities, by their texts.
const ENTITIES: [&str; 7] = ["integer", "float", "text", "list", "empty", "object", "nothing"];

fn store(server: &MilvusServer) -> MilvusStore {
    let mut config = Config::default();
    (config.milvus.host, config.milvus.port) = ("127.0.0.1".into(), server.port());
    config.milvus.request_timeout = Duration::from_secs(60);
    MilvusStore::from_context(&BuildContext::new(config)).expect("a valid configuration")
}

#[tokio::test]
async fn random_filters_select_the_same_rows_here_and_on_the_small_engine() {
    let server = MilvusServer::small();
    let agreement = filters_agree(&EmbeddedStore::new(64 << 20), &store(&server), 20, 800).await;
    assert!(agreement.same > 300, "{agreement:?}");
}

#[tokio::test]
async fn random_filters_select_the_same_rows_here_and_on_the_full_server() {
    let server = MilvusServer::full();
    let agreement = filters_agree(&EmbeddedStore::new(64 << 20), &store(&server), 21, 400).await;
    assert!(agreement.same > 150, "{agreement:?}");
}

#[tokio::test]
async fn every_pattern_matches_the_same_strings_here_and_on_the_small_engine() {
    let server = MilvusServer::small();
    let config = CollectionConfig::new("patterns", 2).with_field("string", FieldType::VarChar);
    let (embedded, there) = (EmbeddedStore::new(64 << 20), store(&server));
    let here = embedded.get_or_create_collection(&config).await.expect("created");
    let there = there.get_or_create_collection(&config).await.expect("created");
    let texts = words(&['a', '\u{e9}', '\n'], 3);
    let entity = |text: &String| {
        Entity::new("", vec![1.0, 0.0])
            .with_metadata(json!({"string": text}))
            .with_field("string", text.as_str())
    };
    here.insert_entities(texts.iter().map(entity).collect()).await.expect("inserted");
    there.insert_entities(texts.iter().map(entity).collect()).await.expect("inserted");
    let (mut answered, mut wrong) = (0, Vec::new());
    for pattern in words(&['a', '\u{e9}', '_', '%'], 4) {
        for path in ["string", "metadata['string']"] {
            let filter =
                Filter::with_params(&format!("{path} like {{pattern}}"), [("pattern", json!(pattern))]);
            let request = arshai::vectors::QueryRequest::new(filter.expect("valid"));
            let expected = strings(here.query_by_expr(request.clone()).await.expect("answered"));
            match there.query_by_expr(request).await {
                Ok(hits) if strings(hits.clone()) == expected => answered += 1,
                Ok(hits) => wrong.push((path, pattern.clone(), strings(hits), expected)),
                Err(error) => assert_eq!(error.kind(), arshai::ErrorKind::Unsupported, "{pattern}: {error}"),
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong, {answered} right: {wrong:#?}", wrong.len());
    assert!(answered > 200, "{answered}");
}

/// All strings of at most this length.
fn words(alphabet: &[char], length: usize) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut longest = words.clone();
    for _ in 0..length {
        longest =
            longest.iter().flat_map(|word| alphabet.iter().map(move |c| format!("{word}{c}"))).collect();
        words.extend_from_slice(&longest);
    }
    words
}

fn strings(hits: Vec<arshai::vectors::Hit>) -> Vec<String> {
    let mut strings: Vec<_> = hits.iter().map(|hit| hit.fields["string"].to_string()).collect();
    strings.sort_unstable();
    strings
}

/// The cells of the tables of the guide, without quotes.
fn table(header: &str) -> Vec<Vec<String>> {
    let lines = GUIDE.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned());
        cells.collect::<Vec<_>>()
    };
    lines.take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn entities() -> Vec<Entity> {
    let json = |text: &str| serde_json::from_str::<Value>(text).expect(text);
    let entity = |cells: Vec<String>| {
        Entity::new(cells[0].as_str(), vec![1.0, 0.0])
            .with_metadata(json(&cells[1]))
            .with_field("page", json(&cells[2]))
            .with_field("language", json(&cells[3]))
    };
    table("| entity |").into_iter().map(entity).collect()
}

/// A collection with the seven entities.
async fn fill(server: &MilvusServer) -> MilvusServiceClient<Channel> {
    let config = CollectionConfig::new("seven", 2)
        .with_field("page", FieldType::Int64)
        .with_field("language", FieldType::VarChar);
    let collection = store(server).get_or_create_collection(&config).await.expect("created");
    collection.insert_entities(entities()).await.expect("inserted");
    let endpoint = Channel::from_shared(server.uri()).expect("a valid address");
    MilvusServiceClient::new(endpoint.connect().await.expect("the server runs"))
}

/// What the server selects for the text as it is, in the notation of the guide.
async fn select(client: &mut MilvusServiceClient<Channel>, text: &str) -> String {
    let request = QueryRequest {
        collection_name: "seven".into(),
        expr: text.into(),
        output_fields: vec!["content".into()],
        consistency_level: ConsistencyLevel::Strong.into(),
        ..QueryRequest::default()
    };
    let Ok(answer) = client.query(request).await else { return "error".into() };
    let answer = answer.into_inner();
    #[allow(deprecated, reason = "servers of this age have no other code")]
    if answer.status.is_some_and(|status| status.error_code != 0 || status.code != 0) {
        return "error".into();
    }
    let column = answer.fields_data.into_iter().find(|column| column.field_name == "content");
    let texts = match column.and_then(|column| column.field) {
        Some(Field::Scalars(scalars)) => match scalars.data {
            Some(Data::StringData(texts)) => texts.data,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    notation(|name| texts.iter().any(|text| text == name))
}

fn notation(is_selected: impl Fn(&str) -> bool) -> String {
    let selected: Vec<_> = ENTITIES.into_iter().filter(|name| is_selected(name)).collect();
    if selected.is_empty() { "-".into() } else { selected.join(", ") }
}

fn here(text: &str) -> String {
    let Ok(filter) = Filter::parse(text) else { return "error".into() };
    let entities = entities();
    notation(|name| {
        let named = entities.iter().find(|entity| entity.fields["content"] == json!(name));
        filter.matches(&named.expect("one of the seven").fields)
    })
}

#[test]
fn the_guide_says_what_is_selected_here_and_that_a_server_differs() {
    let rows = table("| filter | here |");
    assert!(rows.len() > 25, "{} rows", rows.len());
    for row in rows {
        assert_eq!(here(&row[0]), row[1], "{}", row[0]);
        assert!(row[1] != row[2] || row[1] != row[3], "{} differs nowhere", row[0]);
    }
}

#[tokio::test]
async fn the_guide_says_what_the_full_server_selects() {
    let server = MilvusServer::full();
    let mut client = fill(&server).await;
    for row in table("| filter | here |") {
        assert_eq!(select(&mut client, &row[0]).await, row[2], "{}", row[0]);
    }
}

#[tokio::test]
async fn the_guide_says_what_the_small_engine_selects_and_of_what_it_dies() {
    let mut server = MilvusServer::small();
    let mut client = fill(&server).await;
    for row in table("| filter | here |") {
        let selected = select(&mut client, &row[0]).await;
        if row[3] != "the server dies" {
            assert_eq!(selected, row[3], "{}", row[0]);
            continue;
        }
        assert_eq!(selected, "error", "{}", row[0]);
        eventually("the server has died", Duration::from_secs(30), || !server.runs()).await;
        server = MilvusServer::small();
        client = fill(&server).await;
    }
}
