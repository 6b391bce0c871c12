//! The official conformance suite of MCP against a client that goes through the manager.
//!
//! The suite starts this very program once for each scenario, as the client; without a scenario the program runs the
//! suite, once for each revision, with the version given and with the version detected.

mod client;
mod suite;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Ok(scenario) = std::env::var("MCP_CONFORMANCE_SCENARIO") {
        return client::run(&scenario);
    }
    let mut arguments = Arguments::from_args();
    // Each run starts as many clients as there are scenarios.
    arguments.test_threads = Some(1);
    let trials = ["2025-11-25", "2026-07-28"].into_iter().flat_map(|revision| {
        ["given", "detected"].into_iter().map(move |version| {
            let name = format!("revision_{revision}_passes_with_the_version_{version}");
            Trial::test(name, move || suite::run(revision, version).map_err(Into::into))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
