//! The table `dialog`: rows to and from `sipbox_core::dialog`.

use sipbox_core::dialog::{DialogRow, RowChange};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, FromRow, QueryBuilder, Row, Sqlite};

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
        let mut gone = Vec::new();
        let mut rows = Vec::new();
        for change in changes {
            match change {
                RowChange::Delete(id) => gone.push(id.0.cast_signed().to_string()),
                RowChange::Upsert(row) => rows.push(&**row),
            }
        }
        if !gone.is_empty() {
            let gone = format!("[{}]", gone.join(","));
            sqlx::query("DELETE FROM dialog WHERE dlg_id IN (SELECT value FROM json_each(?))")
                .bind(gone)
                .execute(&mut *transaction)
                .await?;
        }
        let mut rest = &rows[..];
        for size in SIZES {
            while let Some((now, later)) = rest.split_at_checked(size) {
                upsert(now).build().execute(&mut *transaction).await?;
                rest = later;
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// How many rows are written by one statement, each of which goes to the thread of its
/// connection and back: as many as there are, in few sizes, so that few are prepared.
const SIZES: [usize; 3] = [64, 8, 1];

fn upsert(rows: &[&DialogRow]) -> QueryBuilder<Sqlite> {
    let signed = |n: u64| n.cast_signed();
    let mut query = QueryBuilder::new(
        "INSERT OR REPLACE INTO dialog
            (dlg_id, callid, from_uri, from_tag, to_uri, to_tag, mangled_from_uri,
             mangled_to_uri, caller_cseq, callee_cseq, caller_ping_cseq, callee_ping_cseq,
             caller_route_set, callee_route_set, caller_contact, callee_contact, caller_sock,
             callee_sock, state, start_time, timeout, vars, profiles, script_flags,
             module_flags, flags, rt_on_answer, rt_on_timeout, rt_on_hangup) ",
    );
    query.push_values(rows, |mut values, row| {
        values
            .push_bind(signed(row.dlg_id))
            .push_bind(&row.callid)
            .push_bind(&row.from_uri)
            .push_bind(&row.from_tag)
            .push_bind(&row.to_uri)
            .push_bind(&row.to_tag)
            .push_bind(&row.mangled_from_uri)
            .push_bind(&row.mangled_to_uri)
            .push_bind(&row.caller_cseq)
            .push_bind(&row.callee_cseq)
            .push_bind(row.caller_ping_cseq)
            .push_bind(row.callee_ping_cseq)
            .push_bind(&row.caller_route_set)
            .push_bind(&row.callee_route_set)
            .push_bind(&row.caller_contact)
            .push_bind(&row.callee_contact)
            .push_bind(&row.caller_sock)
            .push_bind(&row.callee_sock)
            .push_bind(row.state)
            .push_bind(signed(row.start_time))
            .push_bind(signed(row.timeout))
            .push_bind(&row.vars)
            .push_bind(&row.profiles)
            .push_bind(&row.script_flags)
            .push_bind(row.module_flags)
            .push_bind(row.flags)
            .push_bind(&row.rt_on_answer)
            .push_bind(&row.rt_on_timeout)
            .push_bind(&row.rt_on_hangup);
    });
    query
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
