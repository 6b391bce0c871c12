//! The first program of the README and of each guide, built and run as a newcomer would: `cargo add` as the page says, its
//! code copied into an empty package, against the packaged crate.

mod page;
mod programs;
mod workspace;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use programs::{PROGRAMS, Promise};
use workspace::Workspace;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let workspace = Arc::new(Workspace::build(&page::all()));
    libtest_mimic::run(&arguments, trials(Some(workspace))).exit_code()
}

fn trials(workspace: Option<Arc<Workspace>>) -> Vec<Trial> {
    let trial = |(name, run): &Promise| {
        let (workspace, run) = (workspace.clone(), *run);
        Trial::test(*name, move || {
            run(workspace.as_deref().expect("it is built before anything runs"));
            Ok(())
        })
    };
    PROGRAMS.iter().map(trial).collect()
}
