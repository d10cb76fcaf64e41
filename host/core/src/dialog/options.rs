//! What is set for dialogs: by the operator for all, by a policy for one.

use std::time::Duration;

/// How an in-dialog request finds its dialog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatchMode {
    /// By the parameter `did` of our Record-Route alone.
    DidOnly,
    /// By `did`; by Call-ID and tags where there is none.
    #[default]
    DidFallback,
    /// By Call-ID and tags alone.
    DidNone,
}

/// The settings of all dialogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// How long a dialog may last.
    pub timeout: Duration,
    /// How long a dialog can be looked at after its end.
    pub delete_delay: Duration,
    /// The time between two OPTIONS to a side that is asked whether it is there.
    pub ping_interval: Duration,
    /// How long after a 2xx that crossed a CANCEL the call is ended.
    pub race_condition_timeout: Duration,
    /// How requests find their dialog.
    pub match_mode: MatchMode,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(12 * 3600),
            delete_delay: Duration::ZERO,
            ping_interval: Duration::from_secs(30),
            race_condition_timeout: Duration::from_secs(5),
            match_mode: MatchMode::default(),
        }
    }
}

/// What a policy wants of a dialog: the flags of `create_dialog`, and its own times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// BYE to both sides when its time is over.
    pub bye_on_timeout: bool,
    /// The caller is asked by OPTIONS whether it is there.
    pub ping_caller: bool,
    /// So is the callee.
    pub ping_callee: bool,
    /// A call whose CANCEL crossed its 2xx is ended.
    pub end_on_race_condition: bool,
    /// Seconds that it may last, instead of the default.
    pub timeout: Option<u32>,
    /// Seconds that it can be looked at after its end.
    pub delete_delay: Option<u32>,
    /// Seconds between two OPTIONS.
    pub ping_interval: Option<u32>,
}

impl Wanted {
    /// The bits of `dialog.flags`.
    #[must_use]
    pub const fn bits(self) -> u32 {
        (self.bye_on_timeout as u32)
            | (self.ping_caller as u32) << 1
            | (self.ping_callee as u32) << 2
            | (self.end_on_race_condition as u32) << 3
    }

    /// What the bits of `dialog.flags` stand for.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            bye_on_timeout: bits & 1 != 0,
            ping_caller: bits & 2 != 0,
            ping_callee: bits & 4 != 0,
            end_on_race_condition: bits & 8 != 0,
            timeout: None,
            delete_delay: None,
            ping_interval: None,
        }
    }
}
