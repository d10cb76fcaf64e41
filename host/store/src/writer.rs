//! Makes changes of bindings durable: one task gathers what all workers hand in
//! and writes it in one transaction, so that the cost of reaching the disk is shared.
//!
//! With [`Durability::Commit`] a change is answered when its transaction has
//! reached the disk; with [`Durability::Behind`] at once, and written within a
//! second. The queue is bounded: when it is full, changes are refused, and the
//! REGISTER they come from with them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use sipbox_core::location::{Change, LocationSink, SinkError};
use smallvec::SmallVec;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::is_busy;
use crate::location::write;
use crate::sqlite::Store;

/// How long a transaction that finds the database busy is tried again.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(20);
/// The most changes of one transaction: a longer one would keep its callers waiting.
const LARGEST: usize = 4096;
/// How late a worker may hand in a change that another one has overtaken.
const MEMORY: Duration = Duration::from_secs(60);

/// What "stored" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Answered when it is on the disk.
    #[default]
    Commit,
    /// Answered at once; a crash loses the last second.
    Behind,
}

/// What the operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// What "stored" means.
    pub durability: Durability,
    /// How many REGISTERs may wait to be written.
    pub queue: usize,
    /// How long changes are gathered for one transaction.
    pub gather: Duration,
}

impl WriterSettings {
    /// The defaults of a kind of durability. With [`Durability::Commit`] half of the
    /// 20 ms that an answer may wait goes to gathering, half is left to the disk.
    #[must_use]
    pub const fn new(durability: Durability) -> Self {
        let gather = match durability {
            Durability::Commit => Duration::from_millis(10),
            Durability::Behind => Duration::from_millis(900),
        };
        Self {
            durability,
            queue: 65_536,
            gather,
        }
    }
}

type Done = Box<dyn FnOnce(Result<(), SinkError>) + Send>;

struct Item {
    changes: SmallVec<[Change; 1]>,
    /// `None` when it was answered already.
    done: Option<Done>,
}

impl Item {
    fn answer(&mut self, result: Result<(), SinkError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

enum Command {
    Write(Item),
    /// Answered when everything before it is written, or could not be.
    Flush(oneshot::Sender<()>),
    /// The same, and then the task ends.
    Close(oneshot::Sender<()>),
}

/// The way to the task. Clones share it.
#[derive(Clone, Debug)]
pub struct LocationWriter {
    queue: mpsc::Sender<Command>,
    durability: Durability,
}

impl LocationWriter {
    /// Starts the task on the runtime of the caller.
    #[must_use]
    pub fn start(store: &Store, settings: WriterSettings) -> Self {
        let (queue, commands) = mpsc::channel(settings.queue.max(1));
        let task = Task {
            store: store.clone(),
            settings,
            connection: None,
            batch: Vec::new(),
            written: HashMap::new(),
            pruned: Instant::now(),
        };
        tokio::spawn(task.run(commands));
        Self {
            queue,
            durability: settings.durability,
        }
    }

    /// Waits until everything that was handed in before is written.
    pub async fn flush(&self) {
        self.ask(Command::Flush).await;
    }

    /// Writes what was handed in before, then ends the task; later changes are refused.
    pub async fn close(&self) {
        self.ask(Command::Close).await;
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (answer, answered) = oneshot::channel();
        if self.queue.send(command(answer)).await.is_ok() {
            // An error means that the task is gone, and with it what it had to do.
            let _ = answered.await;
        }
    }
}

impl LocationSink for LocationWriter {
    fn submit(&self, changes: SmallVec<[Change; 1]>, done: Done) -> Result<(), SinkError> {
        let place = self.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => SinkError::Full,
            mpsc::error::TrySendError::Closed(()) => SinkError::Closed,
        })?;
        match self.durability {
            Durability::Commit => place.send(Command::Write(Item {
                changes,
                done: Some(done),
            })),
            Durability::Behind => {
                place.send(Command::Write(Item {
                    changes,
                    done: None,
                }));
                done(Ok(()));
            }
        }
        Ok(())
    }
}

struct Task {
    store: Store,
    settings: WriterSettings,
    connection: Option<SqliteConnection>,
    batch: Vec<Item>,
    /// The highest sequence number that was written of each binding lately.
    written: HashMap<u64, (u64, Instant)>,
    pruned: Instant,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut open = true;
        while open {
            let mut waiting = Vec::new();
            open = self.gather(&mut commands, &mut waiting).await;
            if !open {
                // Whoever comes from here on is refused; who is in is served.
                commands.close();
                while let Some(command) = commands.recv().await {
                    self.take(command, &mut waiting);
                }
            }
            self.commit().await;
            for answer in waiting {
                // Nobody may wait any more.
                let _ = answer.send(());
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "closing the location store");
        }
    }

    /// Fills the batch; false when it is the last one.
    async fn gather(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        waiting: &mut Vec<oneshot::Sender<()>>,
    ) -> bool {
        if self.batch.is_empty() {
            match commands.recv().await {
                Some(command) => {
                    if !self.take(command, waiting) {
                        return false;
                    }
                }
                None => return false,
            }
        }
        let deadline = Instant::now() + self.settings.gather;
        while waiting.is_empty() && self.changes() < LARGEST {
            match timeout_at(deadline, commands.recv()).await {
                Ok(Some(command)) => {
                    if !self.take(command, waiting) {
                        return false;
                    }
                }
                Ok(None) => return false,
                Err(_elapsed) => break,
            }
        }
        true
    }

    /// False for the command that ends the task.
    fn take(&mut self, command: Command, waiting: &mut Vec<oneshot::Sender<()>>) -> bool {
        match command {
            Command::Write(item) => self.batch.push(item),
            Command::Flush(answer) => waiting.push(answer),
            Command::Close(answer) => {
                waiting.push(answer);
                return false;
            }
        }
        true
    }

    fn changes(&self) -> usize {
        self.batch.iter().map(|item| item.changes.len()).sum()
    }

    /// Writes the batch and answers it. What was answered before and could not be
    /// written stays in the batch for the next time.
    async fn commit(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        let changes = self.newest(&batch);
        let Err(error) = self.write_patiently(&changes).await else {
            for item in &mut batch {
                item.answer(Ok(()));
            }
            return;
        };
        if batch.len() > 1 && !is_busy(&error) {
            // One bad row must not take the others with it.
            let mut left = Vec::new();
            for mut item in batch {
                let changes = self.newest(std::slice::from_ref(&item));
                match self.write_patiently(&changes).await {
                    Ok(()) => item.answer(Ok(())),
                    Err(error) => left.extend(self.fail(item, &error)),
                }
            }
            self.batch = left;
        } else {
            self.batch = batch
                .into_iter()
                .filter_map(|item| self.fail(item, &error))
                .collect();
        }
        if !self.batch.is_empty() {
            sleep(PAUSE).await;
        }
    }

    /// What is to be tried again of an item that could not be written.
    fn fail(&self, mut item: Item, error: &sqlx::Error) -> Option<Item> {
        tracing::error!(%error, changes = item.changes.len(), "storing bindings failed");
        // A row that the database will never take must not block the others for ever.
        let again = item.done.is_none() && error.as_database_error().is_none_or(|_| is_busy(error));
        item.answer(Err(SinkError::Failed(Arc::from(error.to_string()))));
        again.then_some(item)
    }

    async fn write_patiently(&mut self, changes: &[Change]) -> Result<(), sqlx::Error> {
        let begun = Instant::now();
        loop {
            match self.write_once(changes).await {
                Err(error) if is_busy(&error) && begun.elapsed() < PATIENCE => sleep(PAUSE).await,
                Err(error) => {
                    // Whatever state it is in, the next try gets a new one.
                    self.connection = None;
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn write_once(&mut self, changes: &[Change]) -> Result<(), sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.store.connect().await?),
        };
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for change in changes {
            write(&mut transaction, change).await?;
        }
        transaction.commit().await?;
        let now = Instant::now();
        for change in changes {
            self.written
                .insert(change.contact_id(), (change.sequence, now));
        }
        if now.duration_since(self.pruned) > MEMORY {
            self.written
                .retain(|_, (_, at)| now.duration_since(*at) <= MEMORY);
            self.pruned = now;
        }
        Ok(())
    }

    /// The last change of each binding, unless a later one was written already:
    /// workers hand changes in after they have let go of the shard's lock, so an
    /// older one may come behind a newer one.
    fn newest(&self, items: &[Item]) -> Vec<Change> {
        let mut newest: HashMap<u64, &Change> = HashMap::new();
        for change in items.iter().flat_map(|item| &item.changes) {
            let id = change.contact_id();
            if self
                .written
                .get(&id)
                .is_some_and(|(sequence, _)| *sequence >= change.sequence)
            {
                continue;
            }
            match newest.entry(id) {
                Entry::Vacant(entry) => {
                    entry.insert(change);
                }
                Entry::Occupied(mut entry) if entry.get().sequence < change.sequence => {
                    entry.insert(change);
                }
                Entry::Occupied(_) => {}
            }
        }
        let mut changes: Vec<_> = newest.into_values().cloned().collect();
        changes.sort_by_key(|change| change.sequence);
        changes
    }
}
