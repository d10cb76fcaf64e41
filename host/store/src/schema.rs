//! The tables, with OpenSIPS's names, columns and versions (`subscriber` 8,
//! `location` 1013, `dialog` 12): made where they are missing, checked where they are not.

use std::path::Path;

use sqlx::{Connection, SqliteConnection};

use crate::error::StoreError;

struct Table {
    name: &'static str,
    version: i64,
    create: &'static str,
    indexes: &'static [&'static str],
}

const VERSION: &str = "CREATE TABLE IF NOT EXISTS version (
    table_name VARCHAR(32) NOT NULL,
    table_version INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT t_name_idx UNIQUE (table_name)
)";

const TABLES: [Table; 3] = [
    Table {
        name: "subscriber",
        version: 8,
        create: "CREATE TABLE subscriber (
            id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
            username VARCHAR(64) NOT NULL DEFAULT '',
            domain VARCHAR(64) NOT NULL DEFAULT '',
            password VARCHAR(25) NOT NULL DEFAULT '',
            ha1 VARCHAR(64) NOT NULL DEFAULT '',
            ha1_sha256 VARCHAR(64) NOT NULL DEFAULT '',
            ha1_sha512t256 VARCHAR(64) NOT NULL DEFAULT '',
            CONSTRAINT account_idx UNIQUE (username, domain)
        )",
        indexes: &["CREATE INDEX username_idx ON subscriber (username)"],
    },
    Table {
        name: "location",
        version: 1013,
        create: "CREATE TABLE location (
            contact_id INTEGER PRIMARY KEY NOT NULL,
            username VARCHAR(64) NOT NULL DEFAULT '',
            domain VARCHAR(64) DEFAULT NULL,
            contact TEXT NOT NULL,
            received VARCHAR(255) DEFAULT NULL,
            path VARCHAR(255) DEFAULT NULL,
            expires INTEGER NOT NULL,
            q FLOAT NOT NULL DEFAULT 1.0,
            callid VARCHAR(255) NOT NULL DEFAULT 'Default-Call-ID',
            cseq INTEGER NOT NULL DEFAULT 13,
            last_modified DATETIME NOT NULL DEFAULT '1900-01-01 00:00:01',
            flags INTEGER NOT NULL DEFAULT 0,
            cflags VARCHAR(255) DEFAULT NULL,
            user_agent VARCHAR(255) NOT NULL DEFAULT '',
            socket VARCHAR(64) DEFAULT NULL,
            methods INTEGER DEFAULT NULL,
            sip_instance VARCHAR(255) DEFAULT NULL,
            kv_store TEXT DEFAULT NULL,
            attr VARCHAR(255) DEFAULT NULL
        )",
        indexes: &[],
    },
    Table {
        name: "dialog",
        version: 12,
        create: "CREATE TABLE dialog (
            dlg_id INTEGER PRIMARY KEY NOT NULL,
            callid VARCHAR(255) NOT NULL,
            from_uri VARCHAR(255) NOT NULL,
            from_tag VARCHAR(64) NOT NULL,
            to_uri VARCHAR(255) NOT NULL,
            to_tag VARCHAR(64) NOT NULL,
            mangled_from_uri VARCHAR(255) DEFAULT NULL,
            mangled_to_uri VARCHAR(255) DEFAULT NULL,
            caller_cseq VARCHAR(11) NOT NULL,
            callee_cseq VARCHAR(11) NOT NULL,
            caller_ping_cseq INTEGER NOT NULL,
            callee_ping_cseq INTEGER NOT NULL,
            caller_route_set TEXT,
            callee_route_set TEXT,
            caller_contact VARCHAR(255),
            callee_contact VARCHAR(255),
            caller_sock VARCHAR(64) NOT NULL,
            callee_sock VARCHAR(64) NOT NULL,
            state INTEGER NOT NULL,
            start_time INTEGER NOT NULL,
            timeout INTEGER NOT NULL,
            vars BLOB DEFAULT NULL,
            profiles TEXT DEFAULT NULL,
            script_flags VARCHAR(255) DEFAULT NULL,
            module_flags INTEGER NOT NULL DEFAULT 0,
            flags INTEGER NOT NULL DEFAULT 0,
            rt_on_answer VARCHAR(64) DEFAULT NULL,
            rt_on_timeout VARCHAR(64) DEFAULT NULL,
            rt_on_hangup VARCHAR(64) DEFAULT NULL
        )",
        indexes: &[],
    },
];

/// Makes the missing tables and checks the versions of the others, in one
/// transaction: two processes may come at the same time.
pub(crate) async fn prepare(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(VERSION).execute(&mut *transaction).await?;
    for table in &TABLES {
        let version: Option<(i64,)> =
            sqlx::query_as("SELECT table_version FROM version WHERE table_name = ?")
                .bind(table.name)
                .fetch_optional(&mut *transaction)
                .await?;
        let exists: Option<(i64,)> =
            sqlx::query_as("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?")
                .bind(table.name)
                .fetch_optional(&mut *transaction)
                .await?;
        match (exists, version) {
            (Some(_), Some((found,))) if found == table.version => {}
            (Some(_), None) => {
                return Err(StoreError::NoVersion {
                    path: path.into(),
                    table: table.name,
                });
            }
            (_, Some((found,))) if found != table.version => {
                return Err(StoreError::Version {
                    path: path.into(),
                    table: table.name,
                    found,
                    wanted: table.version,
                });
            }
            (Some(_) | None, Some(_)) | (None, None) => {
                sqlx::query(table.create).execute(&mut *transaction).await?;
                for index in table.indexes {
                    sqlx::query(*index).execute(&mut *transaction).await?;
                }
                sqlx::query(
                    "INSERT OR REPLACE INTO version (table_name, table_version) VALUES (?, ?)",
                )
                .bind(table.name)
                .bind(table.version)
                .execute(&mut *transaction)
                .await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(())
}
