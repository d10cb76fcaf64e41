//! The table `location`: rows to and from `sipbox_core::location`.

use sipbox_core::location::{Change, ChangeKind, LocationRow};
use sipbox_core::time::WallTime;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};

use crate::error::StoreError;
use crate::sqlite::Store;

impl Store {
    /// The bindings that hold, for the start; those that have ended are deleted.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn load_locations(&self, wall: WallTime) -> Result<Vec<LocationRow>, StoreError> {
        // 0 is permanent.
        sqlx::query("DELETE FROM location WHERE expires <> 0 AND expires <= ?")
            .bind(signed(wall.seconds()))
            .execute(self.pool())
            .await?;
        let rows: Vec<Loaded> = sqlx::query_as(
            "SELECT contact_id, username, domain, contact, received, path, expires, q, callid, cseq,
                    COALESCE(CAST(strftime('%s', last_modified) AS INTEGER), 0) AS modified,
                    flags, cflags, user_agent, socket, methods, sip_instance, kv_store, attr
             FROM location ORDER BY contact_id",
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|Loaded(row)| row).collect())
    }
}

/// Writes one change. The caller holds a transaction.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    change: &Change,
) -> Result<(), sqlx::Error> {
    match &change.kind {
        ChangeKind::Delete(id) => {
            sqlx::query("DELETE FROM location WHERE contact_id = ?")
                .bind(signed(*id))
                .execute(connection)
                .await?;
        }
        ChangeKind::Upsert(binding) => {
            let row = LocationRow::of(&change.aor, binding);
            sqlx::query(
                "INSERT OR REPLACE INTO location
                    (contact_id, username, domain, contact, received, path, expires, q, callid, cseq,
                     last_modified, flags, cflags, user_agent, socket, methods, sip_instance,
                     kv_store, attr)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, datetime(?, 'unixepoch'), ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(signed(row.contact_id))
            .bind(row.username)
            .bind(row.domain)
            .bind(row.contact)
            .bind(row.received)
            .bind(row.path)
            .bind(signed(row.expires))
            .bind(row.q)
            .bind(row.callid)
            .bind(row.cseq)
            .bind(signed(row.last_modified.seconds()))
            .bind(row.flags)
            .bind(row.cflags)
            .bind(row.user_agent)
            .bind(row.socket)
            .bind(row.methods)
            .bind(row.sip_instance)
            .bind(row.kv_store)
            .bind(row.attr)
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}

/// SQLite's integers have a sign. OpenSIPS's packed ids may use the top bit, so
/// bits are kept, not values.
fn signed(n: u64) -> i64 {
    n.cast_signed()
}

struct Loaded(LocationRow);

impl FromRow<'_, SqliteRow> for Loaded {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let number = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        let small = |column| number(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let optional = |column| row.try_get::<Option<String>, _>(column);
        Ok(Self(LocationRow {
            contact_id: number("contact_id")?,
            username: row.try_get("username")?,
            domain: optional("domain")?.unwrap_or_default(),
            contact: row.try_get("contact")?,
            received: optional("received")?,
            path: optional("path")?,
            expires: number("expires")?,
            q: row.try_get("q")?,
            callid: row.try_get("callid")?,
            cseq: small("cseq")?,
            last_modified: WallTime::from_seconds(number("modified")?),
            flags: small("flags")?,
            cflags: optional("cflags")?,
            user_agent: row.try_get("user_agent")?,
            socket: optional("socket")?,
            methods: row
                .try_get::<Option<i64>, _>("methods")?
                .and_then(|n| u32::try_from(n).ok()),
            sip_instance: optional("sip_instance")?,
            kv_store: optional("kv_store")?,
            attr: optional("attr")?,
        }))
    }
}
