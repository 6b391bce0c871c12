//! One workspace with a package for each page, so that they share what they build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::page::Page;

/// The built programs.
#[derive(Debug)]
pub(crate) struct Workspace {
    programs: PathBuf,
}

impl Workspace {
    /// Packages the crate, and builds the program of each page against the package.
    pub(crate) fn build(pages: &[Page]) -> Self {
        let target = target_folder();
        let folder = target.join("newcomer");
        let versions = Versions::read();
        let package = package(&folder);
        let workspace = folder.join("workspace");
        let _ = fs::remove_dir_all(&workspace);
        fs::create_dir_all(&workspace).expect("writable");
        let members = "[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\n";
        fs::write(workspace.join("Cargo.toml"), members).expect("writable");
        for page in pages {
            add(page, &workspace, &package, &versions);
        }
        lock(&workspace);
        // One build for each set of features: a page must not borrow those of another.
        let mut sets: BTreeMap<&[String], Vec<&str>> = BTreeMap::new();
        for page in pages {
            sets.entry(page.features()).or_default().push(&page.name);
        }
        for names in sets.values() {
            let mut build = cargo(&workspace, ["build", "--offline", "--target-dir"]);
            build.arg(&target).args(names.iter().flat_map(|name| ["--package", name]));
            succeed(&mut build);
        }
        Self { programs: target.join("debug") }
    }

    /// The program of a page, with no variable of this process but `PATH` and `HOME`.
    pub(crate) fn program(&self, page: &str) -> Command {
        let mut command = Command::new(self.programs.join(format!("page-{page}")));
        command
            .env_clear()
            .envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that this very program was built into.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(3).expect("TARGET/PROFILE/deps/PROGRAM").to_owned()
}

/// The packaged crate, unpacked below `folder`.
fn package(folder: &Path) -> PathBuf {
    let mut package = cargo(
        root(),
        ["package", "--package", "arshai", "--no-verify", "--allow-dirty", "--offline", "--target-dir"],
    );
    succeed(package.arg(folder));
    let name = concat!("arshai-", env!("CARGO_PKG_VERSION"));
    let file =
        folder.join("package").join(name).with_extension(concat!(env!("CARGO_PKG_VERSION_PATCH"), ".crate"));
    let (unpacked, bytes) = (folder.join(name), fs::read(&file).expect("it was packaged"));
    // All files of a package have the same time, by which cargo cannot tell that one has changed. So they get the present
    // one, and only where there are others than last time.
    let last = folder.join("last.crate");
    if fs::read(&last).ok().as_ref() != Some(&bytes) || !unpacked.exists() {
        let _ = fs::remove_dir_all(&unpacked);
        succeed(Command::new("tar").args(["-x", "-z", "-m", "-f"]).arg(&file).arg("-C").arg(folder));
        fs::write(last, bytes).expect("writable");
    }
    unpacked
}

/// Makes a package of a page: `cargo add` as it says, and its program.
fn add(page: &Page, workspace: &Path, package: &Path, versions: &Versions) {
    let folder = workspace.join(&page.name);
    fs::create_dir_all(folder.join("src")).expect("writable");
    fs::write(folder.join("src/main.rs"), &page.program).expect("writable");
    let manifest = format!("[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n", page.name);
    fs::write(folder.join("Cargo.toml"), manifest).expect("writable");
    for (name, features) in &page.crates {
        lock(workspace);
        let mut add = cargo(&folder, ["add", "--quiet", "--offline"]);
        match name.as_str() {
            "arshai" => add.arg("--path").arg(package),
            name => add.arg(format!("{name}@{}", versions.of(name))),
        };
        succeed(add.arg("--features").arg(features.join(",")));
    }
}

/// Lets the workspace use the versions of the repository. Cargo removes those that are not used yet.
fn lock(workspace: &Path) {
    fs::copy(root().join("Cargo.lock"), workspace.join("Cargo.lock")).expect("writable");
}

/// The versions in Cargo.lock: what a page adds must not depend on what was published since.
struct Versions(String);

impl Versions {
    fn read() -> Self {
        Self(fs::read_to_string(root().join("Cargo.lock")).expect("there is one"))
    }

    fn of(&self, name: &str) -> &str {
        let entry = format!("name = \"{name}\"\nversion = \"");
        let (_, rest) = self.0.split_once(&entry).unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        rest.split_once('"').expect("a version").0
    }
}

fn cargo<const N: usize>(folder: &Path, arguments: [&str; N]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(folder).args(arguments);
    // Those that cargo set for this program describe the repository.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_TARGET_DIR");
    command
}

fn succeed(command: &mut Command) {
    let Output { status, stdout, stderr } = command.output().expect("it can be started");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}:\n{stdout}{stderr}");
}
