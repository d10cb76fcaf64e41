//! The thread that advances wasmtime's epochs, in which deadlines are counted.
//!
//! A tick for each millisecond of a process would cost more than the policies of a
//! thousand calls a second. So the thread ticks while somebody is in a guest, looks
//! around now and then while calls come and go in microseconds, and sleeps when none
//! came for a while; the next call wakes it. What is not here: what an expired deadline
//! means, see [`crate::cx::on_deadline`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// How long a tick is while somebody is in a guest.
const TICK: Duration = Duration::from_millis(1);

/// How long the thread looks away while nobody is. A guest that starts meanwhile may
/// run so much longer than its limit.
const GLANCE: Duration = Duration::from_millis(4);

/// How long a call may run before its meter looks at a clock.
pub(crate) const UNSEEN: Duration = TICK.saturating_add(GLANCE);

/// Glances without any call before the thread sleeps.
const PATIENCE: u32 = 25;

/// How long it sleeps at most, to see whether the engine is still there.
const NAP: Duration = Duration::from_millis(50);

/// Marks whether a thread is in a guest. One thread writes it at a time.
#[derive(Debug)]
pub(crate) struct Mark {
    /// Entries and exits: odd while inside.
    turns: AtomicU64,
    ticker: Arc<Ticker>,
}

impl Mark {
    /// Says that a guest runs, until the guard is dropped.
    pub(crate) fn enter(&self) -> Inside<'_> {
        // In one order with what the thread does when it falls asleep: either it sees this
        // turn, or it is seen asleep.
        self.turns.fetch_add(1, Ordering::SeqCst);
        if self.ticker.asleep.load(Ordering::SeqCst) {
            self.ticker.wake();
        }
        Inside(self)
    }

    /// Ends the thread's looking away, for a guest that is watched closely: a system call.
    pub(crate) fn rouse(&self) {
        if let Some(thread) = self.ticker.thread.get() {
            thread.unpark();
        }
    }
}

/// A guest runs on this thread.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Mark);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // One writer: a plain add, without the bus lock of `fetch_add`.
        let turns = self.0.turns.load(Ordering::Relaxed);
        self.0.turns.store(turns.wrapping_add(1), Ordering::Release);
    }
}

/// What the thread and those who enter guests share.
#[derive(Debug, Default)]
pub(crate) struct Ticker {
    marks: Mutex<Vec<Weak<Mark>>>,
    asleep: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

impl Ticker {
    /// Starts the thread; it ends with the engine.
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self::default());
        let own = Arc::clone(&ticker);
        let thread = thread::Builder::new()
            .name("sipbox-epoch".to_owned())
            .spawn(move || own.run(&engine))?;
        let _ = ticker.thread.set(thread.thread().clone());
        Ok(ticker)
    }

    /// A mark for a thread that will enter guests.
    pub(crate) fn mark(self: &Arc<Self>) -> Arc<Mark> {
        let mark = Arc::new(Mark {
            turns: AtomicU64::new(0),
            ticker: Arc::clone(self),
        });
        self.lock().push(Arc::downgrade(&mark));
        mark
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Mark>>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn run(&self, engine: &EngineWeak) {
        let mut before = 0;
        let mut glances = 0;
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            let (turns, inside) = self.look();
            if inside {
                glances = 0;
                thread::sleep(TICK);
            } else if turns != before || glances < PATIENCE {
                glances = if turns == before { glances + 1 } else { 0 };
                thread::park_timeout(GLANCE);
            } else {
                self.asleep.store(true, Ordering::SeqCst);
                if self.look().0 == turns {
                    thread::park_timeout(NAP);
                }
                self.asleep.store(false, Ordering::SeqCst);
            }
            before = turns;
        }
    }

    /// How often guests were entered and left, and whether one runs.
    fn look(&self) -> (u64, bool) {
        let (mut turns, mut inside) = (0u64, false);
        self.lock().retain(|mark| match mark.upgrade() {
            Some(mark) => {
                let turn = mark.turns.load(Ordering::SeqCst);
                turns = turns.wrapping_add(turn);
                inside |= turn % 2 == 1;
                true
            }
            None => false,
        });
        (turns, inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EngineSettings};

    fn engine() -> Engine {
        Engine::new(&EngineSettings {
            cache: None,
            instances: 4,
        })
        .unwrap()
    }

    #[test]
    fn the_thread_ends_with_the_engine() {
        let engine = engine();
        let weak = engine.inner.weak();
        thread::sleep(20 * TICK);
        drop(engine);
        // The thread lets go of the engine at its next look.
        for _ in 0..1000 {
            if weak.upgrade().is_none() {
                return;
            }
            thread::sleep(TICK);
        }
        panic!("something still holds the engine");
    }

    #[test]
    fn it_sleeps_when_nobody_calls_and_wakes_when_somebody_does() {
        let engine = engine();
        let ticker = &engine.ticker;
        let mark = ticker.mark();
        let fell_asleep = || {
            (0..5000).any(|_| {
                thread::sleep(TICK);
                ticker.asleep.load(Ordering::Relaxed)
            })
        };
        assert!(fell_asleep());
        let inside = mark.enter();
        assert!(!ticker.asleep.load(Ordering::Relaxed));
        assert_eq!(ticker.look(), (1, true));
        thread::sleep(NAP + PATIENCE * GLANCE);
        assert!(!ticker.asleep.load(Ordering::Relaxed), "somebody is inside");
        drop(inside);
        assert_eq!(ticker.look(), (2, false));
        assert!(fell_asleep());
        drop(mark);
        assert_eq!(ticker.look(), (0, false));
        assert!(ticker.lock().is_empty());
    }
}
