//! The tables of `host/book/src/coverage.md`: each row names a test that exists, or says why there
//! is none.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test file throughout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_path_buf()
}

/// The texts between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The cells of a row that is no head and no rule.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
    let rule = cells.iter().all(|cell| cell.chars().all(|c| c == '-'));
    let head = cells.last() == Some(&"test");
    (!rule && !head).then_some(cells)
}

/// Why a row does not hold; `files` remembers what was read.
fn wrong(row: &[&str], files: &mut BTreeMap<String, String>) -> Option<String> {
    let [what, here, test] = row else {
        return Some(format!("{} cells in: {}", row.len(), row.join(" | ")));
    };
    if what.is_empty() || here.is_empty() {
        return Some(format!("an empty cell beside `{test}`"));
    }
    if let Some(reason) = test.strip_prefix("none: ") {
        return (reason.len() < 10).then(|| format!("{what}: no reason"));
    }
    let tests: Vec<&str> = quoted(test).collect();
    if tests.is_empty() {
        return Some(format!("{what}: neither a test nor `none: ...`"));
    }
    tests.into_iter().find_map(|test| {
        let Some((path, name)) = test.split_once("::") else {
            return Some(format!("{what}: `{test}` is no path::name"));
        };
        let text = files
            .entry(path.to_owned())
            .or_insert_with(|| fs::read_to_string(root().join(path)).unwrap_or_default());
        let there = text.contains(&format!("fn {name}("));
        (!there).then(|| format!("{what}: there is no {name} in {path}"))
    })
}

#[test]
fn every_row_names_a_test_that_exists() {
    let text = fs::read_to_string(root().join("host/book/src/coverage.md")).unwrap();
    let mut files = BTreeMap::new();
    let mut rows = 0;
    let mut found = Vec::new();
    for row in text.lines().filter_map(cells) {
        rows += 1;
        found.extend(wrong(&row, &mut files));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(rows >= 25, "{rows} rows were read");
}

#[test]
fn a_row_that_does_not_hold_is_found() {
    let mut files = BTreeMap::from([("a.rs".to_owned(), "fn good() {}".to_owned())]);
    let mut of = |line: &str| wrong(&cells(line).unwrap(), &mut files);
    assert_eq!(of("| f | g | `a.rs::good` |"), None);
    assert_eq!(of("| f | g | none: it is gone since 3.0 |"), None);
    for line in [
        "| f | g | `a.rs::bad` |",
        "| f | g | `b.rs::good` |",
        "| f | g | `a.rs::good`, `a.rs::bad` |",
        "| f | g | good |",
        "| f | g | none: no |",
        "| f |  | `a.rs::good` |",
        "| f | `a.rs::good` |",
    ] {
        assert!(of(line).is_some(), "{line}");
    }
}
