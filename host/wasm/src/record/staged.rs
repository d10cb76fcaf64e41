//! What earlier policies of the chain have staged and a later one sees: it is not committed
//! yet, so no answer of a capability has it.

use serde::{Deserialize, Serialize};
use sipbox_core::policy::{Effect, HookCall};

use super::dialogs::OpRecord;
use super::shared::WriteRecord;

/// An [`Effect`] that is seen by the rest of its call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StagedRecord {
    Kv(WriteRecord),
    Dialog(OpRecord),
}

impl StagedRecord {
    /// What a call brings along.
    pub(super) fn all(call: &HookCall) -> Vec<Self> {
        let staged = call.effects.iter().filter_map(|effect| match effect {
            Effect::Kv(staged) => Some(Self::Kv(WriteRecord::of(staged))),
            Effect::Dialog(op) => Some(Self::Dialog(OpRecord::from(op))),
            // Nothing shows these: a lease that was released is missing in the state.
            Effect::SaveLocation { .. }
            | Effect::RemoveLocation { .. }
            | Effect::Challenge(_)
            | Effect::Release(_) => None,
        });
        staged.collect()
    }

    pub(super) fn effects(all: &[Self]) -> Result<Vec<Effect>, String> {
        let effect = |record: &Self| match record {
            Self::Kv(write) => write.staged().map(Effect::Kv),
            Self::Dialog(op) => Some(Effect::Dialog(op.into())),
        };
        let effects: Option<Vec<Effect>> = all.iter().map(effect).collect();
        effects.ok_or_else(|| "a staged write".to_owned())
    }
}
