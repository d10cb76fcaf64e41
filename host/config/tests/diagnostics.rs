//! What an operator sees: each `tests/ui/NAME.toml` gives exactly the text in
//! `NAME.txt`. After a change on purpose: `UPDATE=1 cargo test -p sipbox-config`,
//! and look at the difference.

use std::path::Path;

use sipbox_config::{Config, Diagnostic, Reading, render};

#[test]
fn every_file_is_answered_as_it_should_be() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "toml")
    });
    files.sort();
    assert!(files.len() >= 8, "{} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let found = Reading::new(&text, Path::new("/etc/sipbox")).found;
        let outcome = if found.iter().any(Diagnostic::is_error) {
            "refused"
        } else {
            "taken"
        };
        let shown = format!("{outcome}\n\n{}", render(&found, &name, &text, false));
        let golden = file.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &shown).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != shown {
            wrong.push(format!("=== {name}\n{shown}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "not as in the .txt files:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn colour_only_adds_to_the_text() {
    let text = "workers = \"many\"\n";
    let found = Config::parse(text, Path::new("")).unwrap_err();
    let (plain, coloured) = (
        render(&found, "x", text, false),
        render(&found, "x", text, true),
    );
    assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'));
}
