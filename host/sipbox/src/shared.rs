//! State that the calls of a tenant share, on a node: what a verdict commits.

use sipbox_core::policy::{CallError, Effect, last_writes};
use sipbox_core::shared::{Answer, Staged};

use crate::node::Node;

/// Makes what a call wrote to `kv` visible. Its verdict counts.
pub(crate) fn commit_writes(node: &Node, effects: &[Effect]) {
    let writes = last_writes(effects.iter());
    if writes.is_empty() {
        return;
    }
    let (now, _) = node.clock.now();
    for staged in writes {
        match staged.commit(now) {
            Answer::Now(Ok(())) => {}
            Answer::Now(Err(error)) => not_written(staged, &error),
            Answer::Later(done) => {
                // The verdict does not wait for it: what is staged has its room.
                let staged = staged.clone();
                node.runtime.spawn(async move {
                    if let Err(error) = done.await {
                        not_written(&staged, &error);
                    }
                });
            }
        }
    }
}

fn not_written(staged: &Staged, error: &CallError) {
    let key = &*staged.write().key;
    tracing::error!(%error, key, "a value was not written");
}
