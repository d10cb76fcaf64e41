//! The table of dialogs: what is written comes back.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use sipbox_core::dialog::{DialogId, DialogRow, RowChange};
use sipbox_store::Store;

fn row(number: u64) -> DialogRow {
    DialogRow {
        dlg_id: number,
        callid: format!("call {number}"),
        caller_contact: number
            .is_multiple_of(2)
            .then(|| format!("sip:{number}@192.0.2.1")),
        vars: Some(vec![0, 1, 255]),
        timeout: u64::MAX - number,
        flags: 15,
        ..DialogRow::default()
    }
}

fn upsert(row: DialogRow) -> RowChange {
    RowChange::Upsert(Box::new(row))
}

/// However many there are: rows are written by several at a time.
#[tokio::test]
async fn dialogs_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    for count in [0, 1, 7, 9, 150] {
        let rows: Vec<_> = (1..=count).map(row).collect();
        let all: Vec<_> = rows.iter().cloned().map(upsert).collect();
        store.write_dialogs(&all).await.unwrap();
        assert_eq!(store.load_dialogs().await.unwrap(), rows);
    }
    // Some are over, some are others by now, some were never there.
    let changed = |number| DialogRow {
        callid: "changed".to_owned(),
        ..row(number)
    };
    let mut changes: Vec<_> = (1..=75).map(changed).map(upsert).collect();
    changes.extend((76..=400).map(|number| RowChange::Delete(DialogId(number))));
    store.write_dialogs(&changes).await.unwrap();
    let left: Vec<_> = (1..=75).map(changed).collect();
    assert_eq!(store.load_dialogs().await.unwrap(), left);
}
