//! The builder against real guests in C and TypeScript. Tools that are missing are a failure: the
//! machine that runs the tests has been set up by `cargo xtask test`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test file throughout.

use std::fs;
use std::path::{Path, PathBuf};

use sipbox_policy_build::{Artifact, BuildError, BuildRequest, Language, Toolchain, build};

/// A copy of a fixture that a test may change, with a target folder of its own.
struct Guest {
    dir: tempfile::TempDir,
    target: tempfile::TempDir,
    name: &'static str,
}

impl Guest {
    fn new(fixture: &str, name: &'static str, files: &[&str]) -> Self {
        let guest = Self {
            dir: tempfile::tempdir().unwrap(),
            target: tempfile::tempdir().unwrap(),
            name,
        };
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sdk = here
            .join("../../guest-sdk/typescript")
            .canonicalize()
            .unwrap();
        for file in files {
            let text = fs::read_to_string(here.join("tests/fixture").join(fixture).join(file));
            let path = guest.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.unwrap().replace("SDK", sdk.to_str().unwrap())).unwrap();
        }
        guest
    }

    fn c(name: &'static str) -> Self {
        Self::new("answer-c", name, &["answer.c", "wit/world.wit"])
    }

    fn typescript(name: &'static str) -> Self {
        let files = [
            "package.json",
            "tsconfig.json",
            "src/answer.ts",
            "wit/world.wit",
        ];
        Self::new("answer-ts", name, &files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn build(&self) -> Result<Artifact, BuildError> {
        build(&BuildRequest::new(
            self.dir.path(),
            self.name,
            self.target.path(),
        ))
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let file = self.path(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "the fixture no longer says {from:?}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }
}

fn names(interfaces: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = interfaces
        .iter()
        .map(|name| format!("sipbox:policy/{name}@0.1.0"))
        .collect();
    names.sort();
    names
}

fn assert_answers(artifact: &Artifact, imports: &[&str], most: u64) {
    let bytes = fs::read(&artifact.component).unwrap();
    // The preamble of a component: version 13, layer 1.
    assert_eq!(bytes.get(..8).unwrap(), b"\0asm\x0d\0\x01\0");
    assert!(artifact.size < most, "{} bytes", artifact.size);
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    assert_eq!(sorted(&artifact.imports), names(imports), "no WASI is left");
    let mut exports = sorted(&artifact.exports);
    // The interpreter's start, which was run when the component was made.
    exports.retain(|name| name != "init");
    assert_eq!(exports, names(&["lifecycle", "request-hook"]));
}

#[test]
fn a_guest_in_c_becomes_a_component_that_imports_what_it_uses() {
    let guest = Guest::c("answer-c");
    assert_eq!(Language::of(guest.dir.path()).unwrap(), Language::C);
    let first = guest.build().unwrap();
    println!("{} bytes with {}", first.size, first.toolchain);
    assert!(matches!(
        first.toolchain,
        Toolchain::Clang { .. } | Toolchain::Zig { .. }
    ));
    // Its world names `message` and `call` as well.
    assert_answers(&first, &["types", "log"], 40_000);
    assert!(first.changed && first.inputs.contains(&guest.path("answer.c")));
    assert!(!guest.build().unwrap().changed);

    guest.edit("answer.c", "\"Fine\"", "\"Good\"");
    assert!(guest.build().unwrap().changed);

    // A mistake is told with the compiler's own words.
    guest.edit("answer.c", "\"Good\"", "unknown_name");
    let error = guest.build().unwrap_err();
    assert!(matches!(error, BuildError::Compile { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("`answer-c` does not compile") && text.contains("answer.c:"),
        "{text}"
    );
    assert!(text.contains("unknown_name"), "{text}");
}

/// What the C library asks of a system, an adapter answers from WASI 0.2.
#[test]
fn a_guest_in_c_that_prints_imports_the_wasi_of_its_library() {
    let guest = Guest::c("prints-c");
    guest.edit("answer.c", "/* printf */", "printf(\"%d\\n\", 1);");
    let artifact = guest.build().unwrap();
    let prints = |name: &String| name.starts_with("wasi:cli/stdout@0.2");
    assert!(
        artifact.imports.iter().any(prints),
        "{:?}",
        artifact.imports
    );
}

#[test]
fn a_guest_in_typescript_becomes_a_component_and_is_rebuilt_only_when_it_changed() {
    let guest = Guest::typescript("answer-ts");
    assert_eq!(
        Language::of(guest.dir.path()).unwrap(),
        Language::TypeScript
    );
    let first = guest.build().unwrap();
    println!("{} bytes with {}", first.size, first.toolchain);
    assert!(matches!(first.toolchain, Toolchain::Node { .. }));
    assert_answers(&first, &["types", "message", "call", "log"], 2_500_000);
    assert!(first.changed && first.inputs.contains(&guest.path("src/answer.ts")));
    // The interpreter's image differs each time that it is made.
    assert!(!guest.build().unwrap().changed);

    guest.edit("src/answer.ts", "\"Fine\"", "\"Good\"");
    assert!(guest.build().unwrap().changed);

    // A mistake of types is one, though the bundler would not mind.
    guest.edit("src/answer.ts", "\"Good\"", "42");
    let error = guest.build().unwrap_err();
    assert!(matches!(error, BuildError::Compile { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("`answer-ts` does not compile") && text.contains("src/answer.ts("),
        "{text}"
    );
}

#[test]
fn what_is_missing_in_a_guest_is_told_by_its_name() {
    let guest = Guest::c("worldless-c");
    fs::remove_file(guest.path("wit/world.wit")).unwrap();
    let text = guest.build().unwrap_err().to_string();
    assert!(text.contains("wit/world.wit: is missing"), "{text}");

    fs::write(
        guest.path("wit/world.wit"),
        "package a:b;\nworld w { import sipbox:policy/none@0.1.0; }\n",
    )
    .unwrap();
    let text = guest.build().unwrap_err().to_string();
    assert!(
        text.contains("world.wit") && text.contains("none"),
        "{text}"
    );

    let guest = Guest::typescript("mainless-ts");
    guest.edit("package.json", "\"main\"", "\"mian\"");
    let text = guest.build().unwrap_err().to_string();
    assert!(text.contains("package.json: names no `main`"), "{text}");

    // No tools beside it, and no SDK that has them.
    guest.edit("package.json", "file:", "");
    let text = guest.build().unwrap_err().to_string();
    assert!(
        text.contains("nothing here builds policies in TypeScript") && text.contains("npm "),
        "{text}"
    );
}

/// The fenced blocks of a README in one language, in their order.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    readme
        .split(&begin)
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```\n")?.0.to_owned()))
        .collect()
}

/// What an SDK's README shows is a whole policy.
#[test]
fn the_policies_of_the_readmes_build() {
    let sdks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-sdk");
    let sdk = sdks.join("typescript").canonicalize().unwrap();
    for (folder, name, blocks_and_files) in [
        (
            "c",
            "readme-c",
            vec![("c", 0, "policy.c"), ("wit", 0, "wit/world.wit")],
        ),
        (
            "typescript",
            "readme-ts",
            vec![
                ("ts", 0, "src/policy.ts"),
                ("json", 0, "package.json"),
                ("json", 1, "tsconfig.json"),
                ("wit", 0, "wit/world.wit"),
            ],
        ),
    ] {
        let readme = fs::read_to_string(sdks.join(folder).join("README.md")).unwrap();
        let guest = Guest::new("", name, &[]);
        for (language, at, file) in blocks_and_files {
            let text = blocks(&readme, language)[at]
                .replace("../sipbox/guest-sdk/typescript", sdk.to_str().unwrap());
            let path = guest.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let artifact = guest
            .build()
            .unwrap_or_else(|error| panic!("{folder}: {error}"));
        let exports = &artifact.exports;
        assert!(exports.contains(&"sipbox:policy/request-hook@0.1.0".to_owned()));
    }
}
