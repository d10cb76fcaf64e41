//! What can go wrong with a database.

use std::path::PathBuf;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("cannot open database `{}`: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// The file cannot be made.
    #[error("cannot create database `{}`: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A table is of a release that this program does not read.
    #[error(
        "table `{table}` in database `{}` has version {found}, but this program reads version {wanted}",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// What the table `version` says.
        found: i64,
        /// What we read.
        wanted: i64,
    },
    /// A table exists, but nothing says of which release it is.
    #[error("table `{table}` in database `{}` has no row in table `version`", path.display())]
    NoVersion {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
    },
    /// The account is there already.
    #[error("account `{0}` exists")]
    Exists(String),
    /// The account is not there.
    #[error("no account `{0}`")]
    Missing(String),
    /// The database refused.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether another process holds the database right now, so that trying again helps.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Database(error) | Self::Open { source: error, .. } => is_busy(error),
            _ => false,
        }
    }
}

pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    // Primary result codes are the low byte of extended ones: 5 is BUSY, 6 is LOCKED.
    let code = error
        .as_database_error()
        .and_then(|e| e.code()?.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}
