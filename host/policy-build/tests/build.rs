//! The builder against a real guest, with each toolchain that this machine has. A toolchain that is
//! missing is a failure: the machine that runs the tests has been set up by `cargo xtask test`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test file throughout.

use std::fs;
use std::path::{Path, PathBuf};

use sipbox_policy_build::{Artifact, BuildError, BuildRequest, Preference, Toolchain, build};

const GREETER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture/greeter");

/// A copy of the fixture that a test may change, under a name of its own: all tests build in the
/// folder that the host's build scripts use, so that what guests depend on is compiled once.
struct Guest {
    dir: tempfile::TempDir,
    name: &'static str,
}

impl Guest {
    fn new(name: &'static str) -> Self {
        let guest = Self {
            dir: tempfile::tempdir().unwrap(),
            name,
        };
        fs::create_dir_all(guest.path("src")).unwrap();
        for file in ["Cargo.toml", "Cargo.lock", "src/lib.rs"] {
            let text = fs::read_to_string(Path::new(GREETER).join(file)).unwrap();
            let text = text.replace("name = \"greeter\"", &format!("name = \"{name}\""));
            fs::write(guest.path(file), text).unwrap();
        }
        guest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn request(&self) -> BuildRequest {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
        BuildRequest::new(self.dir.path(), self.name, target_dir)
    }

    /// What an earlier run left behind would make a first build look like a second.
    fn forget_component(&self) {
        let component = self
            .request()
            .target_dir
            .join(format!("components/{}.wasm", self.name));
        if component.exists() {
            fs::remove_file(component).unwrap();
        }
    }

    fn edit(&self, from: &str, to: &str) {
        let file = self.path("src/lib.rs");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "the fixture no longer says {from:?}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }
}

fn assert_is_the_greeter(artifact: &Artifact) {
    let bytes = fs::read(&artifact.component).unwrap();
    // The preamble of a component: version 13, layer 1. A core module has version 1, layer 0.
    assert_eq!(bytes.get(..8).unwrap(), b"\0asm\x0d\0\x01\0");
    assert_eq!(artifact.size, bytes.len() as u64);
    assert!(
        artifact.size < 60_000,
        "{} bytes: not optimised or not stripped",
        artifact.size
    );
    assert_eq!(
        artifact.imports,
        ["log"],
        "a guest imports what its world names and no WASI"
    );
    assert_eq!(artifact.exports, ["greet"]);
    let home = std::env::var("HOME").unwrap();
    assert!(
        home.len() < 3
            || !bytes
                .windows(home.len())
                .any(|window| window == home.as_bytes()),
        "the builder's home folder is in the component"
    );
}

#[test]
fn a_guest_becomes_a_component_and_is_rebuilt_only_when_it_changed() {
    let guest = Guest::new("greeter-changed");
    guest.forget_component();
    let first = build(&guest.request()).unwrap();
    println!("{} bytes with {}", first.size, first.toolchain);
    assert_is_the_greeter(&first);
    assert!(first.changed);
    assert!(
        first.inputs.contains(&guest.path("src/lib.rs")),
        "{:?}",
        first.inputs
    );
    assert!(
        first.inputs.contains(&guest.path("Cargo.lock")),
        "{:?}",
        first.inputs
    );
    let written = fs::metadata(&first.component).unwrap().modified().unwrap();

    let second = build(&guest.request()).unwrap();
    assert!(!second.changed);
    assert_eq!(
        fs::metadata(&second.component).unwrap().modified().unwrap(),
        written
    );

    guest.edit("hello", "good day");
    let third = build(&guest.request()).unwrap();
    assert!(third.changed);
    assert_is_the_greeter(&third);

    // A mistake in the guest is told with the compiler's own words.
    guest.edit("good day", "{unknown_name}");
    let error = build(&guest.request()).unwrap_err();
    assert!(matches!(error, BuildError::Compile { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("`greeter-changed` does not compile"),
        "{text}"
    );
    assert!(
        text.contains("unknown_name") && text.contains("src/lib.rs"),
        "{text}"
    );
}

#[test]
fn debians_compiler_builds_the_same_component_world() {
    // Where the distribution has no such packages, `cargo xtask test` leaves it out by its name,
    // and the runner counts it as skipped.
    let guest = Guest::new("greeter-debian");
    let mut request = guest.request();
    request.toolchain = Preference::Debian;
    let artifact = build(&request).unwrap();
    println!("{} bytes with {}", artifact.size, artifact.toolchain);
    assert!(matches!(artifact.toolchain, Toolchain::Debian { .. }));
    assert_is_the_greeter(&artifact);
}

#[test]
fn two_builds_of_one_target_folder_wait_for_each_other() {
    let guest = Guest::new("greeter-twice");
    guest.forget_component();
    let requests = [guest.request(), guest.request()];
    let artifacts = std::thread::scope(|scope| {
        requests
            .each_ref()
            .map(|request| scope.spawn(move || build(request)))
            .map(|thread| thread.join().unwrap().unwrap())
    });
    assert_is_the_greeter(&artifacts[0]);
    // One of them built it, the other found it done.
    assert_eq!(
        artifacts.iter().filter(|artifact| artifact.changed).count(),
        1
    );
}

#[test]
fn a_library_without_bindings_has_an_empty_world() {
    let guest = Guest::new("greeter-empty");
    fs::write(guest.path("src/lib.rs"), "//! Nothing.\n").unwrap();
    // Without bindings there is no description of a world, and the encoder yields a component with
    // no import and no export. That is legal, so the exports tell.
    let artifact = build(&guest.request()).unwrap();
    assert!(artifact.exports.is_empty() && artifact.imports.is_empty());
}
