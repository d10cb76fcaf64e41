//! The tables, on real SQLite files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{NOW, add, aor, held, service};
use sipbox_core::auth::Ha1Set;
use sipbox_core::location::{LocationRow, LocationSink};
use sipbox_core::time::WallTime;
use sipbox_store::{
    CredentialCache, Durability, LocationWriter, Store, StoreError, Subscriber, WriterSettings,
};
use sqlx::{Connection, SqliteConnection};

async fn raw(path: &std::path::Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display()))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_new_file_gets_the_tables_and_an_old_one_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sipbox.db");
    for _ in 0..2 {
        let store = Store::open(&path).await.unwrap();
        store.close().await;
    }
    let mut connection = raw(&path).await;
    let versions: Vec<(String, i64)> =
        sqlx::query_as("SELECT table_name, table_version FROM version ORDER BY table_name")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(
        versions,
        [
            ("dialog".into(), 12),
            ("location".into(), 1013),
            ("subscriber".into(), 8)
        ]
    );
    let columns: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM pragma_table_info('location') ORDER BY cid")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let columns: Vec<_> = columns.into_iter().map(|(name,)| name).collect();
    assert_eq!(
        columns.join(" "),
        "contact_id username domain contact received path expires q callid cseq last_modified \
         flags cflags user_agent socket methods sip_instance kv_store attr"
    );
    let columns: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM pragma_table_info('subscriber') ORDER BY cid")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let columns: Vec<_> = columns.into_iter().map(|(name,)| name).collect();
    assert_eq!(
        columns.join(" "),
        "id username domain password ha1 ha1_sha256 ha1_sha512t256"
    );
}

#[tokio::test]
async fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sipbox.db");
    let store = Store::open(&path).await.unwrap();
    store
        .subscribers()
        .add("alice", "example.com", "secret")
        .await
        .unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn tables_of_another_version_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    Store::open(&path).await.unwrap().close().await;
    let mut connection = raw(&path).await;
    sqlx::query("UPDATE version SET table_version = 1009 WHERE table_name = 'location'")
        .execute(&mut connection)
        .await
        .unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "table `location` in database `{}` has version 1009, but this program reads version 1013",
            path.display()
        )
    );
    sqlx::query("DELETE FROM version WHERE table_name = 'location'")
        .execute(&mut connection)
        .await
        .unwrap();
    assert!(matches!(
        Store::open(&path).await.unwrap_err(),
        StoreError::NoVersion {
            table: "location",
            ..
        }
    ));
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    std::fs::write(
        &path,
        "this is not a database, but long enough to be looked at",
    )
    .unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
    let nowhere = dir.path().join("no/such/folder.db");
    assert!(matches!(
        Store::open(&nowhere).await.unwrap_err(),
        StoreError::Create { .. }
    ));
}

#[tokio::test]
async fn accounts_keep_hashes_and_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sipbox.db");
    let store = Store::open(&path).await.unwrap();
    let subscribers = store.subscribers();
    subscribers
        .add("alice", "Example.com", "open sesame")
        .await
        .unwrap();
    assert!(matches!(
        subscribers.add("alice", "example.com", "x").await.unwrap_err(),
        StoreError::Exists(account) if account == "alice@example.com"
    ));
    subscribers.add("bob", "example.com", "x").await.unwrap();
    subscribers.add("alice", "example.org", "x").await.unwrap();

    let set = |password| Some(Ha1Set::of_password("alice", "example.com", password));
    assert_eq!(
        subscribers.get("alice", "example.com").await.unwrap(),
        set("open sesame")
    );
    assert_eq!(subscribers.get("Alice", "example.com").await.unwrap(), None);
    subscribers
        .passwd("alice", "example.com", "better")
        .await
        .unwrap();
    assert_eq!(
        subscribers.get("alice", "EXAMPLE.com").await.unwrap(),
        set("better")
    );
    assert!(matches!(
        subscribers.passwd("carol", "example.com", "x").await.unwrap_err(),
        StoreError::Missing(account) if account == "carol@example.com"
    ));

    let account = |username: &str, domain: &str| Subscriber {
        username: username.into(),
        domain: domain.into(),
    };
    assert_eq!(
        subscribers.list(None).await.unwrap(),
        [
            account("alice", "example.com"),
            account("bob", "example.com"),
            account("alice", "example.org")
        ]
    );
    assert_eq!(
        subscribers.list(Some("EXAMPLE.org")).await.unwrap().len(),
        1
    );
    subscribers.remove("bob", "example.com").await.unwrap();
    assert!(matches!(
        subscribers.remove("bob", "example.com").await.unwrap_err(),
        StoreError::Missing(_)
    ));

    let mut connection = raw(&path).await;
    let passwords: Vec<(String,)> = sqlx::query_as("SELECT DISTINCT password FROM subscriber")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(passwords, [(String::new(),)]);
}

#[tokio::test]
async fn rows_of_opensips_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opensips.db");
    let store = Store::open(&path).await.unwrap();
    let mut connection = raw(&path).await;
    for insert in [
        "INSERT INTO subscriber (username, domain, password) VALUES ('clear', 'h', 'secret')",
        "INSERT INTO subscriber (username, domain, ha1) VALUES ('old', 'h', 'ABCDEF')",
        "INSERT INTO location (contact_id, username, domain, contact, expires, last_modified, q)
         VALUES (-3, 'a', 'h', 'sip:a@x', 2000000000, '2023-11-14 22:13:20', 0.25)",
    ] {
        sqlx::query(insert).execute(&mut connection).await.unwrap();
    }
    let subscribers = store.subscribers();
    let clear = subscribers.get("clear", "h").await.unwrap();
    assert_eq!(clear, Some(Ha1Set::of_password("clear", "h", "secret")));
    let old = subscribers.get("old", "h").await.unwrap().unwrap();
    assert_eq!((old.md5.as_deref(), old.sha256), (Some("abcdef"), None));
    let rows = store.load_locations(NOW).await.unwrap();
    assert_eq!(
        rows,
        [LocationRow {
            contact_id: u64::MAX - 2,
            username: "a".into(),
            domain: "h".into(),
            contact: "sip:a@x".into(),
            received: None,
            path: None,
            expires: 2_000_000_000,
            q: 0.25,
            callid: "Default-Call-ID".into(),
            cseq: 13,
            last_modified: WallTime::from_seconds(1_700_000_000),
            flags: 0,
            cflags: None,
            user_agent: String::new(),
            socket: None,
            methods: None,
            sip_instance: None,
            kv_store: None,
            attr: None,
        }]
    );
}

#[tokio::test]
async fn bindings_come_back_after_a_restart_but_ended_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let writer = LocationWriter::start(&store, WriterSettings::new(Durability::Commit));
    let before = service();
    for n in 0..10 {
        let commit = add(&before, n, "sip:a@host");
        writer
            .submit(commit.changes, Box::new(|result| result.unwrap()))
            .unwrap();
    }
    let gone = before.remove(common::TENANT, &aor(3), NOW).unwrap();
    writer
        .submit(gone.changes, Box::new(|result| result.unwrap()))
        .unwrap();
    writer.flush().await;

    let after = service();
    let tenant = |domain: &str| (domain == "example.com").then_some(common::TENANT);
    let rows = store.load_locations(NOW).await.unwrap();
    let loaded = after.load(rows, NOW, tenant, |_| None);
    assert_eq!((loaded.bindings, loaded.ended, loaded.foreign), (9, 0, 0));
    assert_eq!(held(&after), held(&before));

    let later = WallTime(NOW.0 + 3_600_000);
    assert_eq!(store.load_locations(later).await.unwrap(), []);
    assert_eq!(
        store.load_locations(NOW).await.unwrap(),
        [],
        "they are deleted, too"
    );
}

#[tokio::test]
async fn credentials_are_remembered_until_they_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let subscribers = store.subscribers();
    let cache = CredentialCache::new(subscribers.clone(), 100);
    assert_eq!(cache.cached("alice", "h"), None, "must be fetched");
    assert_eq!(cache.fetch("alice", "h").await.unwrap(), None);
    assert_eq!(
        cache.cached("alice", "H"),
        Some(None),
        "known not to be there"
    );
    subscribers.add("alice", "h", "secret").await.unwrap();
    assert_eq!(
        cache.fetch("alice", "h").await.unwrap(),
        None,
        "still remembered"
    );
    cache.forget("alice", "h");
    let set = Ha1Set::of_password("alice", "h", "secret");
    assert_eq!(
        cache.fetch("alice", "h").await.unwrap().as_deref(),
        Some(&set)
    );
    subscribers.remove("alice", "h").await.unwrap();
    assert_eq!(cache.cached("alice", "h").unwrap().as_deref(), Some(&set));
    cache.clear();
    assert_eq!(cache.cached("alice", "h"), None);
}
