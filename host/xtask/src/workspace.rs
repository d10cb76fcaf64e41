//! Where things are: the root, the target folder and the crates that are guests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use sipbox_policy_build::Language;

/// The repository that this xtask was compiled in.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    policies: Vec<Guest>,
    benches: Vec<Bench>,
}

/// A bench target.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) package: String,
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
}

/// A folder that becomes a component.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) package: String,
    pub(crate) dir: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("xtask is not in a folder of the repository")?
            .to_owned();
        let metadata = metadata(&root)?;
        let target = metadata
            .get("target_directory")
            .and_then(Value::as_str)
            .context("cargo metadata names no target folder")?;
        Ok(Self {
            target: PathBuf::from(target),
            policies: {
                let folder = root.join("policies");
                let mut policies = packages(&metadata, &folder);
                policies.extend(other_languages(&folder, "policy"));
                policies
            },
            benches: benches(&metadata),
            root,
        })
    }

    /// The cargo that called us, started in the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = cargo();
        cargo.current_dir(&self.root);
        cargo
    }

    /// The policies that are shipped, and the guests of the tests.
    pub(crate) fn guests(&self) -> anyhow::Result<Vec<Guest>> {
        let mut guests = self.policies.clone();
        let tests = self.root.join("tests/guests");
        if tests.join("Cargo.toml").is_file() {
            guests.extend(packages(&metadata(&tests)?, &tests));
            guests.extend(other_languages(&tests, "guest"));
        }
        Ok(guests)
    }
}

impl Workspace {
    /// All benches, with those that are workspaces of their own because of what they bring along.
    pub(crate) fn benches(&self) -> anyhow::Result<Vec<Bench>> {
        let mut found = self.benches.clone();
        let folder = self.root.join("tests/bench");
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        let mut apart: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|dir| dir.join("Cargo.toml").is_file())
            .collect();
        apart.sort();
        for dir in apart {
            found.extend(benches(&metadata(&dir)?));
        }
        Ok(found)
    }
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn metadata(dir: &Path) -> anyhow::Result<Value> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(dir)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed in {}", dir.display());
    }
    serde_json::from_slice(&output.stdout).context("`cargo metadata` printed no JSON")
}

fn benches(metadata: &Value) -> Vec<Bench> {
    let list = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut found = Vec::new();
    for package in list(metadata, "packages") {
        for target in list(&package, "targets") {
            let is_bench = list(&target, "kind").iter().any(|kind| kind == "bench");
            let (Some(name), Some(owner), Some(manifest)) = (
                text(&target, "name"),
                text(&package, "name"),
                text(&package, "manifest_path"),
            ) else {
                continue;
            };
            if is_bench {
                found.push(Bench {
                    package: owner,
                    name,
                    manifest: PathBuf::from(manifest),
                });
            }
        }
    }
    found
}

/// The guests under a folder that are no crates. They are called by their folders, behind a word for
/// what they are.
fn other_languages(under: &Path, kind: &str) -> Vec<Guest> {
    let mut guests = Vec::new();
    let Ok(entries) = std::fs::read_dir(under) else {
        return guests;
    };
    for dir in entries.flatten().map(|entry| entry.path()) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        if !dir.is_dir() || name == "node_modules" || name.starts_with('.') {
            continue;
        }
        match Language::of(&dir) {
            Ok(Language::Rust) => {}
            Ok(_) => guests.push(Guest {
                package: format!("{kind}-{name}"),
                dir,
            }),
            Err(_) => guests.extend(other_languages(&dir, kind)),
        }
    }
    guests.sort_by(|a, b| a.dir.cmp(&b.dir));
    guests
}

/// The packages of a workspace whose manifests lie under a folder.
fn packages(metadata: &Value, under: &Path) -> Vec<Guest> {
    let empty = Vec::new();
    let mut guests: Vec<Guest> = metadata
        .get("packages")
        .and_then(Value::as_array)
        .unwrap_or(&empty)
        .iter()
        .filter_map(|package| {
            let dir = Path::new(package.get("manifest_path")?.as_str()?).parent()?;
            dir.starts_with(under).then_some(())?;
            Some(Guest {
                package: package.get("name")?.as_str()?.to_owned(),
                dir: dir.to_owned(),
            })
        })
        .collect();
    guests.sort_by(|a, b| a.dir.cmp(&b.dir));
    guests
}
