//! The main job, end to end: reads the text files of a folder, embeds and stores them, and answers questions about
//! them over several turns of one conversation, citing its sources. `--help` says how to call it.

mod documents;
mod embedding;
mod server;
mod steps;

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arshai::agent::{Agent, AgentInput, ChatAgent};
use arshai::config::{ConfigLoader, HostResources};
use arshai::memory::MemoryInput;
use arshai::tasks::{Function, FunctionError, FunctionOutcome, Functions};
use arshai::vectors::{
    BulkInsertOptions, Collection, CollectionConfig, Entity, SearchRequest, entity_stream,
};
use arshai::{Arshai, Deadline};
use indicatif::{ProgressBar, ProgressStyle};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use documents::Passage;
use embedding::Embedder;
use steps::Steps;

const HELP: &str = "\
Answers questions about the text files (.md, .txt, .rst) of a folder, over several turns of one conversation.

Usage: cargo run --release --example quickstart -- [FOLDER] [QUESTION…]

Without a folder it reads this repository's own documentation; without questions it asks some about arshai.

  OPENAI_API_KEY, OPENAI_BASE_URL   a real model; without, a small server on loopback answers with sentences it finds
  OPENAI_MODEL                      the model's name; gpt-4o-mini without
  ARSHAI_*                          everything else: docs/configuration.md

It prints the answers with their sources, every limit of the runtime, and how long each step took.";

const NEXT: &str = "\
Try next:
  cargo run --release --example quickstart -- ~/notes 'What did I plan for May?'    # your own documents
  OPENAI_API_KEY=… cargo run --release --example quickstart                         # a real model
  cargo run --release --example web_service                                         # a chat page, with every limit as a bar
  ARSHAI_MAX_ENTRIES=1 cargo run --release --example quickstart                     # another limit; docs/configuration.md";

const SYSTEM_PROMPT: &str = "Answer questions about the user's documents. Search them first with the search tool and \
log the interaction. Answer from what you found, briefly, and cite each source in square brackets.";

const QUESTIONS: [&str; 3] = [
    "What does arshai limit in an LLM service?",
    "Which variable limits the memory of conversations, and what is its default?",
    "What does a rollback flag change and what does it never change?",
];

/// Passages that a search returns.
const FOUND: usize = 12;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().skip(1).any(|argument| ["-h", "--help"].contains(&argument.as_str())) {
        println!("{HELP}");
        return Ok(());
    }
    let (folder, questions) = arguments();
    let mut steps = Steps::start();
    let runtime = Arshai::builder(configuration()?).build()?;
    steps.end("building the runtime");

    let passages = documents::read(&folder)?;
    if passages.is_empty() {
        return Err(format!("{} has no .md, .txt or .rst files with text", folder.display()).into());
    }
    steps.end("reading the documents");
    let config = CollectionConfig::new("documents", embedding::DIMENSIONS);
    let collection = runtime.vectors()?.get_or_create_collection(&config).await?;
    let written = index(&*collection, &passages).await?;
    steps.end("embedding and storing them");
    println!("{written} passages of {} are searchable\n", folder.display());

    let agent = assistant(&runtime, collection)?;
    let conversation = "quickstart";
    for (number, question) in (1..).zip(questions) {
        println!("> {question}");
        let output = agent.process(AgentInput::new(question).in_conversation(conversation)).await?;
        println!("{}", output.text);
        let is_result = |outcome: &&FunctionOutcome| matches!(outcome, FunctionOutcome::Completed(_));
        let tools = output.tool_results.iter().flatten().filter(is_result).count();
        println!(
            "  ({} model calls, {tools} tool results, {} tokens)\n",
            output.model_calls, output.usage.total_tokens
        );
        steps.end(format!("answering question {number}"));
    }

    runtime.tasks().wait_for_background_tasks(Some(Duration::from_secs(5))).await;
    let remembered = runtime.memory().retrieve(&MemoryInput::working_memory(conversation)).await?;
    let bytes = remembered.first().map_or(0, |memory| memory.as_str().len());
    println!("The conversation is remembered, tool calls and results included: {bytes} bytes.\n");
    println!("Every limit, and how close it came:\n{}", runtime.stats());
    steps.end("background tasks and statistics");
    let report = runtime.shutdown(Deadline::after(Duration::from_secs(5))).await;
    steps.end("shutting down");
    println!("Shut down {}.\n", if report.is_clean() { "cleanly" } else { "with work left over" });
    println!("{steps}\n{NEXT}");
    Ok(())
}

/// The folder and the questions of the command line, or this repository's documentation and some questions about it.
fn arguments() -> (PathBuf, Vec<String>) {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(), PathBuf::from);
    let questions: Vec<String> = arguments.collect();
    if questions.is_empty() { (folder, QUESTIONS.map(str::to_owned).into()) } else { (folder, questions) }
}

/// The environment's configuration; without a key, it uses a model server on loopback.
fn configuration() -> Result<arshai::Config, Box<dyn Error>> {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let has_key = variables.iter().any(|(name, value)| name == "OPENAI_API_KEY" && !value.is_empty());
    if has_key {
        println!("model: the endpoint of OPENAI_API_KEY");
    } else {
        let address = server::start()?;
        println!("model: a small server on http://{address} (OPENAI_API_KEY chooses a real one)");
        variables.retain(|(name, _)| name != "OPENAI_BASE_URL");
        variables.push(("OPENAI_API_KEY".into(), "loopback".into()));
        variables.push(("OPENAI_BASE_URL".into(), format!("http://{address}/v1").into()));
    }
    Ok(ConfigLoader::new().vars(variables).host_resources(HostResources::detect()).load()?)
}

/// Embeds and inserts the documents; returns the number of passages.
async fn index(collection: &dyn Collection, passages: &[Passage]) -> Result<u64, Box<dyn Error>> {
    let bar = ProgressBar::new(passages.len() as u64);
    bar.set_style(ProgressStyle::with_template("indexing {bar:40} {pos}/{len} passages, {elapsed}")?);
    let embedder = Embedder::new(passages.iter().map(|passage| passage.text.as_str()));
    let entities = passages.iter().map(|passage| {
        Entity::new(&passage.text, embedder.passage(&passage.text))
            .with_metadata(json!({"source": passage.source}))
    });
    let position = bar.clone();
    let progress = move |written| position.set_position(written);
    let options = BulkInsertOptions::default().with_progress(&progress);
    let report = collection.bulk_insert_optimized(entity_stream(entities), options).await.into_result()?;
    bar.finish();
    Ok(report.written_count())
}

/// An agent that searches the documents, logs in the background and remembers the conversation.
fn assistant(runtime: &Arshai, collection: Arc<dyn Collection>) -> Result<ChatAgent, Box<dyn Error>> {
    let model = std::env::var("OPENAI_MODEL").unwrap_or_else(|_| "gpt-4o-mini".to_owned());
    let functions = Functions::new().with(search(collection));
    Ok(runtime
        .chat_agent(runtime.openai(model)?, SYSTEM_PROMPT)
        .with_functions(functions)
        .with_background_tasks(Functions::new().with(log_interaction())))
}

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// Search terms, a few words.
    query: String,
}

fn search(collection: Arc<dyn Collection>) -> Function {
    Function::typed("search", move |Search { query }: Search| {
        let collection = Arc::clone(&collection);
        async move {
            let request = SearchRequest::new(embedding::question(&query)).with_limit(FOUND);
            let found = collection.search_by_vector(request).await?;
            let passages = found.into_iter().flatten().map(|hit| {
                json!({"source": hit.fields["metadata"]["source"], "text": hit.fields["content"], "score": hit.score})
            });
            Ok::<_, arshai::Error>(json!({"passages": passages.collect::<Vec<_>>()}))
        }
    })
    .with_description("Searches the user's documents and returns the passages nearest to the query")
}

#[derive(Deserialize, JsonSchema)]
struct Interaction {
    /// The user's question.
    message: String,
}

/// A placeholder for what a service does after a response: audit, billing, analytics.
fn log_interaction() -> Function {
    Function::typed("log_interaction", |Interaction { message }: Interaction| async move {
        eprintln!("  [background] logged a question of {} characters", message.chars().count());
        Ok::<_, FunctionError>(Value::Null)
    })
    .with_description("Logs the interaction; nothing waits for it")
}
