//! Which language a guest is written in, found from what stands in its folder.

use std::fmt;
use std::path::Path;

use crate::BuildError;

/// A language that the builder knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Language {
    /// A crate: `Cargo.toml`.
    Rust,
    /// C sources beside `wit/world.wit`, which names the world.
    C,
    /// An npm package, `package.json`, beside `wit/world.wit`.
    TypeScript,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 3] = [Self::Rust, Self::C, Self::TypeScript];

    /// What its guests have in their folder.
    const fn sign(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::C => "*.c",
            Self::TypeScript => "package.json",
        }
    }

    /// Whether a folder holds a guest in this language.
    fn stands_in(self, dir: &Path) -> bool {
        match self {
            Self::Rust | Self::TypeScript => dir.join(self.sign()).is_file(),
            Self::C => !crate::c::sources(dir).is_empty(),
        }
    }

    /// The one language of a folder.
    ///
    /// # Errors
    /// [`BuildError::NoLanguage`] when there is none, [`BuildError::Languages`] when there are
    /// several.
    pub fn of(dir: &Path) -> Result<Self, BuildError> {
        let found: Vec<Self> = Self::ALL
            .into_iter()
            .filter(|language| language.stands_in(dir))
            .collect();
        match &found[..] {
            [language] => Ok(*language),
            [] => Err(BuildError::NoLanguage {
                dir: dir.to_owned(),
            }),
            several => Err(BuildError::Languages {
                dir: dir.to_owned(),
                signs: several
                    .iter()
                    .map(|language| format!("{} ({language})", language.sign()))
                    .collect::<Vec<_>>()
                    .join(" and "),
            }),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::TypeScript => "TypeScript",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_tells_its_language() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        let none = Language::of(dir.path()).unwrap_err().to_string();
        assert!(
            none.contains("Cargo.toml") && none.contains("*.c") && none.contains("package.json"),
            "{none}"
        );
        touch("policy.c");
        assert_eq!(Language::of(dir.path()).unwrap(), Language::C);
        touch("package.json");
        let two = Language::of(dir.path()).unwrap_err().to_string();
        assert!(
            two.contains("*.c (C) and package.json (TypeScript)"),
            "{two}"
        );
        std::fs::remove_file(dir.path().join("policy.c")).unwrap();
        assert_eq!(Language::of(dir.path()).unwrap(), Language::TypeScript);
        std::fs::remove_file(dir.path().join("package.json")).unwrap();
        touch("Cargo.toml");
        assert_eq!(Language::of(dir.path()).unwrap(), Language::Rust);
    }
}
