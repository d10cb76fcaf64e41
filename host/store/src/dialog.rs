//! The table `dialog`: rows to and from `sipbox_core::dialog`.

use sipbox_core::dialog::{DialogRow, RowChange};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, FromRow, Row};

use crate::error::StoreError;
use crate::sqlite::Store;

impl Store {
    /// The dialogs of the table, for the start.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn load_dialogs(&self) -> Result<Vec<DialogRow>, StoreError> {
        let rows: Vec<Loaded> = sqlx::query_as("SELECT * FROM dialog ORDER BY dlg_id")
            .fetch_all(self.pool())
            .await?;
        Ok(rows.into_iter().map(|Loaded(row)| row).collect())
    }

    /// Writes changes, all in one transaction.
    ///
    /// # Errors
    /// When the database refuses; nothing is written then.
    pub async fn write_dialogs(&self, changes: &[RowChange]) -> Result<(), StoreError> {
        let mut connection = self.pool().acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for change in changes {
            match change {
                RowChange::Delete(id) => {
                    sqlx::query("DELETE FROM dialog WHERE dlg_id = ?")
                        .bind(id.0.cast_signed())
                        .execute(&mut *transaction)
                        .await?;
                }
                RowChange::Upsert(row) => {
                    upsert(row).execute(&mut *transaction).await?;
                }
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn upsert(row: &DialogRow) -> Query<'_> {
    let signed = |n: u64| n.cast_signed();
    sqlx::query(
        "INSERT OR REPLACE INTO dialog
            (dlg_id, callid, from_uri, from_tag, to_uri, to_tag, mangled_from_uri,
             mangled_to_uri, caller_cseq, callee_cseq, caller_ping_cseq, callee_ping_cseq,
             caller_route_set, callee_route_set, caller_contact, callee_contact, caller_sock,
             callee_sock, state, start_time, timeout, vars, profiles, script_flags,
             module_flags, flags, rt_on_answer, rt_on_timeout, rt_on_hangup)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(row.dlg_id))
    .bind(&row.callid)
    .bind(&row.from_uri)
    .bind(&row.from_tag)
    .bind(&row.to_uri)
    .bind(&row.to_tag)
    .bind(&row.mangled_from_uri)
    .bind(&row.mangled_to_uri)
    .bind(&row.caller_cseq)
    .bind(&row.callee_cseq)
    .bind(row.caller_ping_cseq)
    .bind(row.callee_ping_cseq)
    .bind(&row.caller_route_set)
    .bind(&row.callee_route_set)
    .bind(&row.caller_contact)
    .bind(&row.callee_contact)
    .bind(&row.caller_sock)
    .bind(&row.callee_sock)
    .bind(row.state)
    .bind(signed(row.start_time))
    .bind(signed(row.timeout))
    .bind(&row.vars)
    .bind(&row.profiles)
    .bind(&row.script_flags)
    .bind(row.module_flags)
    .bind(row.flags)
    .bind(&row.rt_on_answer)
    .bind(&row.rt_on_timeout)
    .bind(&row.rt_on_hangup)
}

struct Loaded(DialogRow);

impl FromRow<'_, SqliteRow> for Loaded {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let number = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        let small = |column| number(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let optional = |column| row.try_get::<Option<String>, _>(column);
        Ok(Self(DialogRow {
            dlg_id: number("dlg_id")?,
            callid: row.try_get("callid")?,
            from_uri: row.try_get("from_uri")?,
            from_tag: row.try_get("from_tag")?,
            to_uri: row.try_get("to_uri")?,
            to_tag: row.try_get("to_tag")?,
            mangled_from_uri: optional("mangled_from_uri")?,
            mangled_to_uri: optional("mangled_to_uri")?,
            caller_cseq: row.try_get("caller_cseq")?,
            callee_cseq: row.try_get("callee_cseq")?,
            caller_ping_cseq: small("caller_ping_cseq")?,
            callee_ping_cseq: small("callee_ping_cseq")?,
            caller_route_set: optional("caller_route_set")?,
            callee_route_set: optional("callee_route_set")?,
            caller_contact: optional("caller_contact")?,
            callee_contact: optional("callee_contact")?,
            caller_sock: row.try_get("caller_sock")?,
            callee_sock: row.try_get("callee_sock")?,
            state: small("state")?,
            start_time: number("start_time")?,
            timeout: number("timeout")?,
            vars: row.try_get("vars")?,
            profiles: optional("profiles")?,
            script_flags: optional("script_flags")?,
            module_flags: small("module_flags")?,
            flags: small("flags")?,
            rt_on_answer: optional("rt_on_answer")?,
            rt_on_timeout: optional("rt_on_timeout")?,
            rt_on_hangup: optional("rt_on_hangup")?,
        }))
    }
}
