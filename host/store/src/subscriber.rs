//! Accounts: the table `subscriber`. HA1s are stored, passwords never.

use sipbox_core::auth::Ha1Set;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{FromRow, Row};

use crate::error::StoreError;

/// The accounts of a database.
#[derive(Clone, Debug)]
pub struct Subscribers {
    pool: SqlitePool,
}

/// One account, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscriber {
    /// The user name.
    pub username: String,
    /// The domain, which is the realm as well.
    pub domain: String,
}

impl Subscribers {
    pub(crate) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// What is stored for an account. A row of OpenSIPS's that has a clear
    /// password and no HA1 gives the HA1s of that password.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn get(&self, username: &str, domain: &str) -> Result<Option<Ha1Set>, StoreError> {
        let row: Option<Secrets> = sqlx::query_as(
            "SELECT password, ha1, ha1_sha256, ha1_sha512t256 FROM subscriber
             WHERE username = ? AND domain = ?",
        )
        .bind(username)
        .bind(domain.to_ascii_lowercase())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.into_set(username, domain)))
    }

    /// Adds an account.
    ///
    /// # Errors
    /// When it exists, or the database refuses.
    pub async fn add(
        &self,
        username: &str,
        domain: &str,
        password: &str,
    ) -> Result<(), StoreError> {
        let domain = domain.to_ascii_lowercase();
        let set = Ha1Set::of_password(username, &domain, password);
        let done = sqlx::query(
            "INSERT INTO subscriber (username, domain, password, ha1, ha1_sha256, ha1_sha512t256)
             VALUES (?, ?, '', ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(username)
        .bind(&domain)
        .bind(set.md5.as_deref().unwrap_or_default())
        .bind(set.sha256.as_deref().unwrap_or_default())
        .bind(set.sha512_256.as_deref().unwrap_or_default())
        .execute(&self.pool)
        .await?;
        match done.rows_affected() {
            0 => Err(StoreError::Exists(format!("{username}@{domain}"))),
            _ => Ok(()),
        }
    }

    /// Gives an account another password. A clear one that stood there goes.
    ///
    /// # Errors
    /// When there is no such account, or the database refuses.
    pub async fn passwd(
        &self,
        username: &str,
        domain: &str,
        password: &str,
    ) -> Result<(), StoreError> {
        let domain = domain.to_ascii_lowercase();
        let set = Ha1Set::of_password(username, &domain, password);
        let done = sqlx::query(
            "UPDATE subscriber SET password = '', ha1 = ?, ha1_sha256 = ?, ha1_sha512t256 = ?
             WHERE username = ? AND domain = ?",
        )
        .bind(set.md5.as_deref().unwrap_or_default())
        .bind(set.sha256.as_deref().unwrap_or_default())
        .bind(set.sha512_256.as_deref().unwrap_or_default())
        .bind(username)
        .bind(&domain)
        .execute(&self.pool)
        .await?;
        match done.rows_affected() {
            0 => Err(StoreError::Missing(format!("{username}@{domain}"))),
            _ => Ok(()),
        }
    }

    /// Removes an account.
    ///
    /// # Errors
    /// When there is no such account, or the database refuses.
    pub async fn remove(&self, username: &str, domain: &str) -> Result<(), StoreError> {
        let domain = domain.to_ascii_lowercase();
        let done = sqlx::query("DELETE FROM subscriber WHERE username = ? AND domain = ?")
            .bind(username)
            .bind(&domain)
            .execute(&self.pool)
            .await?;
        match done.rows_affected() {
            0 => Err(StoreError::Missing(format!("{username}@{domain}"))),
            _ => Ok(()),
        }
    }

    /// The accounts of a domain, or all, by domain and name.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, domain: Option<&str>) -> Result<Vec<Subscriber>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT username, domain FROM subscriber WHERE ?1 IS NULL OR domain = ?1
             ORDER BY domain, username",
        )
        .bind(domain.map(str::to_ascii_lowercase))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(username, domain)| Subscriber { username, domain })
            .collect())
    }
}

struct Secrets {
    password: String,
    ha1: [String; 3],
}

impl FromRow<'_, SqliteRow> for Secrets {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let ha1 = [
            row.try_get("ha1")?,
            row.try_get("ha1_sha256")?,
            row.try_get("ha1_sha512t256")?,
        ];
        Ok(Self {
            password: row.try_get("password")?,
            ha1,
        })
    }
}

impl Secrets {
    fn into_set(self, username: &str, domain: &str) -> Ha1Set {
        if !self.password.is_empty() && self.ha1.iter().all(String::is_empty) {
            return Ha1Set::of_password(username, &domain.to_ascii_lowercase(), &self.password);
        }
        let text =
            |hex: String| (!hex.is_empty()).then(|| hex.to_ascii_lowercase().into_boxed_str());
        let [md5, sha256, sha512_256] = self.ha1.map(text);
        Ha1Set {
            md5,
            sha256,
            sha512_256,
        }
    }
}
