//! The database file: opened, made, checked.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, SqliteConnection};

use crate::error::StoreError;
use crate::schema;
use crate::subscriber::Subscribers;

/// An open database.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    pool: SqlitePool,
}

impl Store {
    /// Opens the database in a file, or makes it; checks its tables.
    ///
    /// Every commit reaches the disk before it is answered (write-ahead log with
    /// `synchronous = FULL`): neither a killed process nor a power cut undoes one.
    ///
    /// # Errors
    /// When the file cannot be used, or its tables are of another version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path)?;
        let at_open = |source| StoreError::Open {
            path: path.into(),
            source,
        };
        let options = options(path);
        let mut first = options.connect().await.map_err(at_open)?;
        schema::prepare(&mut first, path).await?;
        drop(first);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(at_open)?;
        Ok(Self {
            path: path.into(),
            pool,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The accounts.
    #[must_use]
    pub fn subscribers(&self) -> Subscribers {
        Subscribers::new(self.pool.clone())
    }

    /// Waits for what is running and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        options(&self.path).connect().await
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(2))
}

/// Makes the file readable for its owner alone, since HA1s are as good as
/// passwords; SQLite gives its side files the same mode. An existing file keeps its own.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    made.map(drop).map_err(|source| StoreError::Create {
        path: path.into(),
        source,
    })
}
