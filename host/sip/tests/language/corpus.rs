//! The fuzz targets' seed corpus, replayed.

use std::fs;

use super::invariants;

/// Calls `target` with every file of a folder, and counts them.
fn replay(folder: &str, target: impl Fn(&[u8])) -> usize {
    let path = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    files
        .map(|file| target(&fs::read(file.unwrap().path()).unwrap()))
        .count()
}

#[test]
fn the_message_corpus_holds() {
    assert!(replay("fuzz/corpus/message", invariants::message) >= 10);
    assert_eq!(
        replay("../../tests/corpus/rfc4475", invariants::message),
        50
    );
}

#[test]
fn the_uri_corpus_holds() {
    assert!(replay("fuzz/corpus/uri", invariants::uri) >= 10);
}

#[test]
fn the_framing_corpus_holds() {
    assert!(replay("fuzz/corpus/framing", invariants::framing) >= 5);
}
