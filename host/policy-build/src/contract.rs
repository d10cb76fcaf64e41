//! What guests are built against and need not carry along: the contract's WIT, and the SDK for C.
//! Both are part of this crate, so that a guest builds in any folder.

use std::fs;
use std::path::{Path, PathBuf};

use crate::BuildError;

/// The package `sipbox:policy`, as worlds of guests find it.
const WIT: &[(&str, &str)] = &[("policy.wit", include_str!("../../../wit/policy.wit"))];

/// The SDK for C, compiled with each guest.
pub(crate) const C_SDK: &[(&str, &str)] = &[
    ("sipbox.h", include_str!("../../../guest-sdk/c/sipbox.h")),
    ("sipbox.c", include_str!("../../../guest-sdk/c/sipbox.c")),
    (
        "sipbox_json.h",
        include_str!("../../../guest-sdk/c/sipbox_json.h"),
    ),
    (
        "sipbox_json.c",
        include_str!("../../../guest-sdk/c/sipbox_json.c"),
    ),
];

/// Copies a guest's `wit` folder into `out` and puts the contract beside what it depends on.
pub(crate) fn write_world(guest: &Path, out: &Path) -> Result<PathBuf, BuildError> {
    let source = guest.join("wit");
    let world = source.join("world.wit");
    if !world.is_file() {
        return Err(BuildError::World {
            path: world,
            reason: "is missing: it names the world of the policy, that is what it imports and \
                     which hooks it exports"
                .to_owned(),
        });
    }
    let target = out.join("wit");
    // What an earlier build copied may be gone from the guest.
    match fs::remove_dir_all(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(BuildError::io("clear", &target, error));
        }
        _ => {}
    }
    copy_folder(&source, &target)?;
    write_files(&target.join("deps/sipbox-policy"), WIT)?;
    Ok(target)
}

/// What the contract is, for those who build nothing twice.
pub(crate) fn hash(hasher: &mut impl std::hash::Hasher) {
    use std::hash::Hash as _;
    WIT.hash(hasher);
}

/// Writes files into a folder, unless they are there already.
pub(crate) fn write_files(folder: &Path, files: &[(&str, &str)]) -> Result<(), BuildError> {
    create(folder)?;
    for (name, text) in files {
        crate::component::write_if_changed(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Makes a folder and those above it.
pub(crate) fn create(folder: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(folder).map_err(|source| BuildError::io("create", folder, source))
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), BuildError> {
    create(to)?;
    let entries = fs::read_dir(from).map_err(|source| BuildError::io("read", from, source))?;
    for entry in entries {
        let path = entry
            .map_err(|source| BuildError::io("read", from, source))?
            .path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let target = to.join(name);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(|source| BuildError::io("copy", &path, source))?;
        }
    }
    Ok(())
}

/// The files of a guest that a build may read: everything in its folder but what tools put there,
/// sorted.
pub(crate) fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(dir, &mut files);
    files.sort();
    files
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "node_modules" || name == "target" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &str, endings: &[&str]) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_file_of_contract_and_sdk_is_part_of_the_builder() {
        let listed = |files: &[(&str, &str)]| {
            let mut names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names("../../wit", &[".wit"]), listed(WIT));
        assert_eq!(names("../../guest-sdk/c", &[".c", ".h"]), listed(C_SDK));
    }

    #[test]
    fn a_guest_without_a_world_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_world(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("wit/world.wit: is missing"), "{error}");
    }
}
