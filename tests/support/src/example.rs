//! The crate's examples, as programs.

use std::path::PathBuf;

/// The path of a built example. Examples lie beside the tests' own folder.
///
/// # Panics
/// If it is not built.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.ancestors().nth(2).expect("tests lie in a folder of the profile's");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{path:?} is missing; `cargo build --all-features --examples` builds it");
    path
}
