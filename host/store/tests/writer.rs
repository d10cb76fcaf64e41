//! Group commit: what an answer means, what happens when the database is busy or
//! bad, and that a killed process loses nothing that was answered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::{NOW, add, service};
use sipbox_core::location::{Change, ChangeKind, LocationSink, SinkError};
use sipbox_store::{Durability, LocationWriter, Store, WriterSettings};
use smallvec::SmallVec;
use sqlx::{Connection, SqliteConnection};

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .unwrap()
}

async fn rows(connection: &mut SqliteConnection) -> i64 {
    let (rows,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM location")
        .fetch_one(connection)
        .await
        .unwrap();
    rows
}

type Answers = mpsc::Receiver<Result<(), SinkError>>;

fn submit(writer: &LocationWriter, changes: SmallVec<[Change; 1]>) -> Answers {
    let (answer, answers) = mpsc::channel();
    writer
        .submit(
            changes,
            Box::new(move |result| answer.send(result).unwrap()),
        )
        .unwrap();
    answers
}

async fn answer(answers: Answers) -> Result<(), SinkError> {
    tokio::task::spawn_blocking(move || answers.recv_timeout(Duration::from_secs(20)).unwrap())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_change_is_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let writer = LocationWriter::start(&store, WriterSettings::new(Durability::Commit));
    let mut other = raw(store.path()).await;
    let service = service();
    for n in 0..20u32 {
        let answers = submit(&writer, add(&service, n.into(), "sip:a@h").changes);
        answer(answers).await.unwrap();
        assert_eq!(rows(&mut other).await, i64::from(n) + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_together_is_written_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let settings = WriterSettings {
        gather: Duration::from_millis(300),
        ..WriterSettings::new(Durability::Commit)
    };
    let writer = LocationWriter::start(&store, settings);
    let service = service();
    let begun = Instant::now();
    // From threads that know nothing of the runtime, as workers are.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|t| {
                let (service, writer) = (&service, &writer);
                scope.spawn(move || {
                    let commits = (0..50).map(|n| add(service, t * 50 + n, "sip:a@h"));
                    commits
                        .map(|c| submit(writer, c.changes))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(answers.len(), 200);
    assert_eq!(
        rows(&mut raw(store.path()).await).await,
        0,
        "still gathering"
    );
    for one in answers {
        answer(one).await.unwrap();
    }
    // 200 transactions one by one, each 300 ms after the last, would take a minute.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(rows(&mut raw(store.path()).await).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_change_wins_whichever_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let writer = LocationWriter::start(&store, WriterSettings::new(Durability::Commit));
    let service = service();
    let mut other = raw(store.path()).await;

    let added = add(&service, 1, "sip:a@h");
    let removed = service
        .remove(common::TENANT, &common::aor(1), NOW)
        .unwrap();
    // In one batch.
    let late = [
        submit(&writer, removed.changes.clone()),
        submit(&writer, added.changes.clone()),
    ];
    for one in late {
        answer(one).await.unwrap();
    }
    assert_eq!(rows(&mut other).await, 0);
    // In two.
    let added = add(&service, 2, "sip:a@h");
    let removed = service
        .remove(common::TENANT, &common::aor(2), NOW)
        .unwrap();
    answer(submit(&writer, removed.changes)).await.unwrap();
    answer(submit(&writer, added.changes)).await.unwrap();
    assert_eq!(rows(&mut other).await, 0, "the row would stay for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_database_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let writer = LocationWriter::start(&store, WriterSettings::new(Durability::Commit));
    let mut other = raw(store.path()).await;
    let service = service();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let answers = submit(&writer, add(&service, 1, "sip:a@h").changes);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(
        answers.try_recv().is_err(),
        "nobody may say that it is stored"
    );
    held.rollback().await.unwrap();
    answer(answers).await.unwrap();
    assert_eq!(rows(&mut other).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_row_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let mut other = raw(store.path()).await;
    sqlx::query(
        "CREATE TRIGGER no_bob BEFORE INSERT ON location WHEN NEW.contact = 'sip:bad@h'
         BEGIN SELECT RAISE(ABORT, 'no such contact here'); END",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let settings = WriterSettings {
        gather: Duration::from_millis(200),
        ..WriterSettings::new(Durability::Commit)
    };
    let writer = LocationWriter::start(&store, settings);
    let service = service();
    let contacts = ["sip:good@h", "sip:bad@h", "sip:fine@h"];
    let answers: Vec<_> = (1..)
        .zip(contacts)
        .map(|(n, contact)| submit(&writer, add(&service, n, contact).changes))
        .collect();
    let mut results = Vec::new();
    for one in answers {
        results.push(answer(one).await);
    }
    assert_eq!(results[0], Ok(()));
    assert_eq!(results[2], Ok(()));
    let Err(SinkError::Failed(text)) = &results[1] else {
        panic!("stored: {results:?}")
    };
    assert!(text.contains("no such contact here"), "{text}");
    assert_eq!(rows(&mut other).await, 2);
    answer(submit(&writer, add(&service, 9, "sip:later@h").changes))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_a_closed_writer_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let settings = WriterSettings {
        queue: 3,
        ..WriterSettings::new(Durability::Commit)
    };
    let writer = LocationWriter::start(&store, settings);
    let mut other = raw(store.path()).await;
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let service = service();
    let called = Arc::new(Mutex::new(0));
    let mut refused = 0;
    for n in 0..20 {
        let called = called.clone();
        let done = Box::new(move |result: Result<(), _>| {
            result.unwrap();
            *called.lock().unwrap() += 1;
        });
        match writer.submit(add(&service, n, "sip:a@h").changes, done) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, SinkError::Full);
                refused += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused > 5, "{refused}");
    held.rollback().await.unwrap();
    writer.close().await;
    assert_eq!(
        *called.lock().unwrap(),
        20 - refused,
        "who was taken was answered, who was not, not"
    );
    assert_eq!(rows(&mut other).await, i64::from(20 - refused));
    let late = writer.submit(
        add(&service, 99, "sip:a@h").changes,
        Box::new(|_| unreachable!()),
    );
    assert_eq!(late, Err(SinkError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_answers_at_once_and_writes_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sipbox.db")).await.unwrap();
    let writer = LocationWriter::start(&store, WriterSettings::new(Durability::Behind));
    let service = service();
    let answers = submit(&writer, add(&service, 1, "sip:a@h").changes);
    assert_eq!(answers.try_recv(), Ok(Ok(())), "before submit returned");
    let mut other = raw(store.path()).await;
    assert_eq!(rows(&mut other).await, 0);
    let begun = Instant::now();
    while rows(&mut other).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(3), "never written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    submit(&writer, add(&service, 2, "sip:a@h").changes);
    writer.close().await;
    assert_eq!(rows(&mut other).await, 2, "closing writes what waits");
}

/// Ends by SIGKILL; see the next test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child process of `a_killed_process_loses_nothing_that_was_answered`"]
async fn child_that_registers_until_it_is_killed() {
    let path = std::env::var("SIPBOX_STORE_TEST").unwrap();
    let store = Store::open(Path::new(&path)).await.unwrap();
    let writer = LocationWriter::start(&store, WriterSettings::new(Durability::Commit));
    let service = service();
    for n in 0..1_000_000 {
        let changes = add(&service, n, "sip:a@h").changes;
        let ChangeKind::Upsert(binding) = &changes[0].kind else {
            panic!("no binding")
        };
        let id = binding.id;
        let done = Box::new(move |result: Result<(), SinkError>| {
            result.unwrap();
            // As a 200 would leave: written whole, at once.
            let mut out = std::io::stdout().lock();
            writeln!(out, "answered {id}").unwrap();
            out.flush().unwrap();
        });
        while writer.submit(changes.clone(), done.clone()).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sipbox.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_registers_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("SIPBOX_STORE_TEST", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = Vec::new();
    let id = |line: &str| {
        Some(
            line.split_once("answered ")?
                .1
                .trim()
                .parse::<i64>()
                .unwrap(),
        )
    };
    for line in lines.by_ref() {
        answered.extend(id(&line.unwrap()));
        if answered.len() == 2000 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was on its way through the pipe counts as answered, too; the last
    // line may be cut in the middle and then says nothing.
    answered.extend(lines.map_while(Result::ok).filter_map(|line| id(&line)));
    assert!(answered.len() >= 2000, "{} answers", answered.len());
    answered.pop();

    let store = Store::open(&path).await.unwrap();
    let rows = store.load_locations(NOW).await.unwrap();
    let stored: std::collections::HashSet<_> =
        rows.iter().map(|r| r.contact_id.cast_signed()).collect();
    let lost: Vec<_> = answered.iter().filter(|id| !stored.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), answered.len());
}
