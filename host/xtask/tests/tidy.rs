//! Rules of the repository that the compiler does not know: who may depend on whom, which crate
//! alone may name a library, and that every module says what it is for.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test file throughout.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The direction of dependencies: for each crate, the crates of ours that it may name. This is the
/// picture of ARCHITECTURE.md as a table; a new crate gets a line here and a place there.
const LAYERS: &[(&str, &[&str])] = &[
    ("sipbox-sip", &[]),
    ("sipbox-core", &["sipbox-sip"]),
    ("sipbox-config", &["sipbox-sip"]),
    (
        "sipbox-net",
        &["sipbox-sip", "sipbox-core", "sipbox-config"],
    ),
    (
        "sipbox-wasm",
        &["sipbox-sip", "sipbox-core", "sipbox-config"],
    ),
    (
        "sipbox-store",
        &["sipbox-sip", "sipbox-core", "sipbox-config"],
    ),
    (
        "sipbox-media",
        &["sipbox-sip", "sipbox-core", "sipbox-config"],
    ),
    (
        "sipbox-telemetry",
        &["sipbox-sip", "sipbox-core", "sipbox-config"],
    ),
    (
        "sipbox-admin",
        &[
            "sipbox-sip",
            "sipbox-core",
            "sipbox-config",
            "sipbox-net",
            "sipbox-wasm",
            "sipbox-store",
            "sipbox-media",
            "sipbox-telemetry",
        ],
    ),
    (
        "sipbox",
        &[
            "sipbox-sip",
            "sipbox-core",
            "sipbox-config",
            "sipbox-net",
            "sipbox-wasm",
            "sipbox-store",
            "sipbox-media",
            "sipbox-telemetry",
            "sipbox-admin",
        ],
    ),
    ("sipbox-policy-build", &[]),
    ("xtask", &["sipbox-policy-build"]),
    // Guests know the contract and the SDK, and nothing of the host.
    ("sipbox-guest-allocator", &[]),
    ("sipbox-guest", &["sipbox-guest-allocator"]),
    // The test kit runs natively: what the language says has one home.
    ("sipbox-testkit", &["sipbox-guest", "sipbox-sip"]),
    // Rules that several policies share.
    ("sipbox-nat-rules", &["sipbox-guest"]),
    ("policy-*", &["sipbox-guest", "sipbox-nat-rules"]),
    // End-to-end tests know the program as a process, and build guests for it.
    ("sipbox-tests", &["sipbox-policy-build"]),
    // Benches measure layers one by one.
    (
        "sipbox-bench",
        &[
            "sipbox-sip",
            "sipbox-core",
            "sipbox-config",
            "sipbox-net",
            "sipbox-wasm",
            "sipbox-store",
            "sipbox-media",
            "sipbox-telemetry",
        ],
    ),
];

/// Allowed only for building and testing: whoever embeds or runs a guest in a test builds it with
/// the one builder, and policies are tested natively.
const BUILD_AND_TEST: &[(&str, &str)] = &[
    ("sipbox", "sipbox-policy-build"),
    ("sipbox-wasm", "sipbox-policy-build"),
    ("sipbox-bench", "sipbox-policy-build"),
    ("policy-*", "sipbox-testkit"),
];

/// Libraries that one crate of the host alone may name, so that a change of the library changes one
/// crate. Names match up to a `-` or the end.
const CONFINED: &[(&str, &str)] = &[
    ("wasmtime", "sipbox-wasm"),
    ("socket2", "sipbox-net"),
    ("hickory", "sipbox-net"),
    ("tokio-rustls", "sipbox-net"),
    ("tokio-tungstenite", "sipbox-net"),
    ("sqlx", "sipbox-store"),
    ("redis", "sipbox-store"),
];

/// Libraries that must not be linked at all; deny.toml gives the reasons.
const BANNED: &[&str] = &["ring", "openssl-sys", "quinn-udp", "dashmap"];

struct Edge {
    from: String,
    to: String,
    kind: Kind,
    ours: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Build,
    Dev,
}

struct Package {
    name: String,
    dir: PathBuf,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

fn metadata() -> (Vec<Package>, Vec<Edge>) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = Vec::new();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap().to_owned();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        for dependency in package["dependencies"].as_array().unwrap() {
            edges.push(Edge {
                from: name.clone(),
                to: dependency["name"].as_str().unwrap().to_owned(),
                kind: match dependency["kind"].as_str() {
                    None => Kind::Normal,
                    Some("build") => Kind::Build,
                    Some("dev") => Kind::Dev,
                    Some(other) => panic!("cargo knows a kind of dependency {other:?}"),
                },
                ours: dependency["path"].is_string(),
            });
        }
        packages.push(Package {
            name,
            dir: manifest.parent().unwrap().to_owned(),
        });
    }
    (packages, edges)
}

/// The row of a crate in the table: all policies stand in one.
fn layer(package: &str) -> &str {
    if package.starts_with("policy-") {
        "policy-*"
    } else {
        package
    }
}

/// What is wrong with the edges between our crates.
fn wrong_edges(edges: &[Edge]) -> Vec<String> {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for edge in edges
        .iter()
        .filter(|edge| edge.ours && edge.from != edge.to)
    {
        let Some(allowed) = layers.get(layer(&edge.from)) else {
            wrong.push(format!("{} has no place among the layers", edge.from));
            continue;
        };
        let in_order = allowed.contains(&edge.to.as_str());
        let helps = edge.kind != Kind::Normal
            && BUILD_AND_TEST.contains(&(layer(&edge.from), edge.to.as_str()));
        if !in_order && !helps {
            wrong.push(format!(
                "{} must not depend on {} ({:?})",
                edge.from, edge.to, edge.kind
            ));
        }
    }
    wrong
}

/// Uses of confined libraries outside their crate.
fn escapes<'a>(edges: &[Edge], host: impl Fn(&str) -> bool + 'a) -> Vec<String> {
    edges
        .iter()
        .filter(|edge| !edge.ours && host(&edge.from))
        .filter_map(|edge| {
            let (library, home) = CONFINED.iter().find(|(library, _)| {
                edge.to
                    .strip_prefix(library)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            })?;
            (edge.from != *home)
                .then(|| format!("{} names {library}, which only {home} may", edge.from))
        })
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let (packages, edges) = metadata();
    let mut wrong = wrong_edges(&edges);
    for package in &packages {
        if !LAYERS.iter().any(|(name, _)| *name == layer(&package.name)) {
            wrong.push(format!("{} has no place among the layers", package.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "see ARCHITECTURE.md:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn each_big_library_is_named_by_one_crate() {
    let (packages, edges) = metadata();
    let host = root().join("host");
    let in_host = |name: &str| {
        packages
            .iter()
            .any(|package| package.name == name && package.dir.starts_with(&host))
    };
    let escaped = escapes(&edges, in_host);
    assert!(
        escaped.is_empty(),
        "see ARCHITECTURE.md:\n{}",
        escaped.join("\n")
    );
}

/// The checks above would also pass if they looked at nothing.
#[test]
fn a_forbidden_edge_is_found() {
    let edge = |from: &str, to: &str, kind, ours| Edge {
        from: from.to_owned(),
        to: to.to_owned(),
        kind,
        ours,
    };
    let edges = [
        edge("sipbox-core", "sipbox-sip", Kind::Normal, true),
        edge("sipbox-sip", "sipbox-core", Kind::Dev, true),
        edge("sipbox-net", "sipbox-wasm", Kind::Normal, true),
        edge("sipbox", "sipbox-policy-build", Kind::Build, true),
        edge("sipbox", "sipbox-policy-build", Kind::Normal, true),
        edge("sipbox-new", "sipbox-sip", Kind::Normal, true),
        edge("sipbox-core", "wasmtime-wasi", Kind::Normal, false),
        edge("sipbox-wasm", "wasmtime", Kind::Normal, false),
        edge("sipbox-admin", "sqlx", Kind::Dev, false),
        edge("sipbox-tests", "socket2", Kind::Normal, false),
    ];
    assert_eq!(
        wrong_edges(&edges),
        [
            "sipbox-sip must not depend on sipbox-core (Dev)",
            "sipbox-net must not depend on sipbox-wasm (Normal)",
            "sipbox must not depend on sipbox-policy-build (Normal)",
            "sipbox-new has no place among the layers",
        ]
    );
    assert_eq!(
        escapes(&edges, |name| name != "sipbox-tests"),
        [
            "sipbox-core names wasmtime, which only sipbox-wasm may",
            "sipbox-admin names sqlx, which only sipbox-store may",
        ]
    );
    // And the metadata has edges to look at.
    let (packages, edges) = metadata();
    assert!(packages.len() >= 10 && edges.iter().any(|edge| edge.ours));
    assert!(
        edges
            .iter()
            .any(|edge| edge.from == "sipbox-wasm" && edge.to == "wasmtime")
    );
}

#[test]
fn no_banned_library_is_linked() {
    // The lock file also names what an unused feature would bring, so cargo is asked for the graph.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--workspace",
            "--edges",
            "normal,build,dev",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let graph = String::from_utf8_lossy(&output.stdout);
    let linked: BTreeSet<&str> = graph
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(linked.contains("wasmtime"), "the graph is empty");
    let banned: Vec<&str> = BANNED
        .iter()
        .copied()
        .filter(|name| linked.contains(name))
        .collect();
    assert!(
        banned.is_empty(),
        "deny.toml bans {banned:?}; `cargo tree -i NAME` tells who wants it"
    );
}

/// The same for other languages: a comment comes first.
fn has_comment_on_top(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    ["// ", "/* "]
        .iter()
        .any(|begin| first.starts_with(begin) && first.len() > begin.len())
}

/// Every source file of ours, generated code and corpora aside.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let others = ["corpus", "node_modules"].contains(&&*name);
            if !name.starts_with('.') && !name.starts_with("target") && !others {
                sources(&path, found);
            }
        } else if [".rs", ".c", ".h", ".ts"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            found.push(path);
        }
    }
}

/// Whether a module says at its top what it is for; inner attributes and blank lines may come
/// before.
fn has_module_doc(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!["))
        .is_some_and(|line| line.starts_with("//!") && line.len() > 3)
}

#[test]
fn every_module_says_what_it_is_for() {
    assert!(has_module_doc("#![no_main]\n\n//! Why.\n") && has_module_doc("//! Why.\nuse a;"));
    assert!(
        !has_module_doc("use a;\n//! Late.") && !has_module_doc("") && !has_module_doc("//!\n")
    );

    let mut files = Vec::new();
    for folder in ["host", "guest-sdk", "policies", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 30, "only {} source files found", files.len());
    let silent: Vec<String> = files
        .iter()
        .filter(|file| {
            let text = fs::read_to_string(file).unwrap();
            let has_doc = if file.extension().is_some_and(|end| end == "rs") {
                has_module_doc
            } else {
                has_comment_on_top
            };
            !has_doc(&text)
        })
        .map(|file| {
            file.strip_prefix(root())
                .unwrap_or(file)
                .display()
                .to_string()
        })
        .collect();
    assert!(
        silent.is_empty(),
        "these modules do not begin by saying what they are for:\n{}",
        silent.join("\n")
    );
}
