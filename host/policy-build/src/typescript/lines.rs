//! From places in the bundle to lines of the sources: the bundler's source map becomes a small
//! table at the end of the bundle, which the SDK looks at when an exception is to be logged.
//!
//! The table is JSON: `{"sources": [name, ...], "lines": [[column, source, line, ...], ...]}`, one
//! list for each line of the bundle, with a triple where another line of the sources begins.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::BuildError;

/// The global variable that holds the table as text.
const VARIABLE: &str = "__sipboxLines";

/// Appends the table to a bundle, from the map that lies beside it.
pub(crate) fn append(bundle: &Path, dir: &Path) -> Result<(), BuildError> {
    let map = bundle.with_extension("js.map");
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| BuildError::io("read", path, source))
    };
    let table = table(&read(&map)?, bundle, dir).ok_or_else(|| BuildError::World {
        path: map.clone(),
        reason: "is no source map that can be read".to_owned(),
    })?;
    let mut text = read(bundle)?;
    // JSON in JSON: a text that JavaScript takes as it stands.
    text.push_str(&format!(
        "globalThis.{VARIABLE} = {};\n",
        Value::String(table)
    ));
    fs::write(bundle, text).map_err(|source| BuildError::io("write", bundle, source))
}

fn table(map: &str, bundle: &Path, dir: &Path) -> Option<String> {
    let map: Value = serde_json::from_str(map).ok()?;
    let folder = bundle.parent()?;
    let sources: Vec<String> = map
        .get("sources")?
        .as_array()?
        .iter()
        .map(|source| shown(&folder.join(source.as_str().unwrap_or_default()), dir))
        .collect();
    let lines = decode(map.get("mappings")?.as_str()?)?;
    Some(json!({ "sources": sources, "lines": lines }).to_string())
}

/// A source as messages name it: relative to the guest, or by its own name if it lies elsewhere.
fn shown(source: &Path, dir: &Path) -> String {
    let absolute = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let inside = dir
        .canonicalize()
        .ok()
        .and_then(|dir| absolute.strip_prefix(dir).ok().map(Path::to_owned));
    let name = inside.unwrap_or_else(|| {
        let name = absolute.file_name().unwrap_or_default().to_string_lossy();
        Path::new("sdk").join(&*name)
    });
    name.display().to_string()
}

/// The mappings of a source map (ECMA-426): lines end with `;`, segments with `,`; each segment is
/// column, source, line and column there, as differences in base 64 of variable length.
fn decode(mappings: &str) -> Option<Vec<Vec<u32>>> {
    let (mut source, mut line) = (0i64, 0i64);
    let mut lines = Vec::new();
    for text in mappings.split(';') {
        let mut column = 0i64;
        let mut triples: Vec<u32> = Vec::new();
        for segment in text.split(',').filter(|segment| !segment.is_empty()) {
            let numbers = numbers(segment)?;
            column += numbers.first()?;
            let [_, of_source, of_line, ..] = numbers[..] else {
                continue;
            };
            source += of_source;
            line += of_line;
            let place = [u32::try_from(source).ok()?, u32::try_from(line + 1).ok()?];
            if !triples.ends_with(&place) {
                triples.push(u32::try_from(column).ok()?);
                triples.extend(place);
            }
        }
        lines.push(triples);
    }
    Some(lines)
}

/// The numbers of one segment: five bits each, lowest first, the sixth says that more follow; the
/// lowest bit of the whole is the sign.
fn numbers(segment: &str) -> Option<Vec<i64>> {
    let (mut found, mut value, mut shift) = (Vec::new(), 0i64, 0);
    for byte in segment.bytes() {
        let digit = i64::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        });
        if shift > 40 {
            return None;
        }
        value |= (digit & 31) << shift;
        shift += 5;
        if digit & 32 == 0 {
            let magnitude = value >> 1;
            found.push(if value & 1 == 1 {
                -magnitude
            } else {
                magnitude
            });
            (value, shift) = (0, 0);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_segment_have_signs_and_more_than_one_digit() {
        assert_eq!(numbers("AAgBC").unwrap(), [0, 0, 16, 1]);
        assert_eq!(numbers("DFLx7B").unwrap(), [-1, -2, -5, -952]);
        assert_eq!(numbers("!"), None);
    }

    #[test]
    fn a_line_of_the_bundle_may_come_from_several_lines() {
        // Line 1: column 0 is line 1; column 4 is line 3 of the same source; column 6 still is.
        // Line 2 has nothing. Line 3: column 2 is line 1 of the next source.
        let lines = decode("AAAA,IAEA,EAAC;;ECFA").unwrap();
        assert_eq!(lines, [vec![0, 0, 1, 4, 0, 3], vec![], vec![2, 1, 1]]);
    }
}
