//! The trait that a policy implements.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::message::{Request, Response};
use crate::verdict::{Target, Verdict};

/// What `on_failure` is told.
pub use crate::bindings::failure::exports::sipbox::policy::failure_hook::{FailedTarget, Failure};

/// What `on_dialog` is told.
pub use crate::bindings::dialog::exports::sipbox::policy::dialog_hook::{Change, DialogEvent};

/// What `on_reply` returns.
pub use crate::bindings::reply::exports::sipbox::policy::reply_hook::ReplyVerdict;

/// What `on_branch` returns.
pub use crate::bindings::branch::exports::sipbox::policy::branch_hook::BranchVerdict;

/// The settings of a policy that has none: any key is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// A policy. Every hook has a default that leaves things as they are, so a
/// policy writes only those that it needs.
///
/// An instance serves many calls, one at a time, and may be thrown away between
/// any two of them: what `configure` worked out is all that it may keep. What
/// belongs to a transaction goes into its variables ([`Request::set_var`]).
pub trait Policy: Sized + 'static {
    /// The settings, read from the JSON that the tenant's configuration gives.
    /// Use `#[serde(deny_unknown_fields)]`, so that a mistyped key is refused.
    type Settings: DeserializeOwned;

    /// Names of the variables that it shares with the other policies of the chain. Variables
    /// under other names are its own.
    const VARIABLES: &'static [&'static str] = &[];

    /// Makes the policy of its settings.
    ///
    /// # Errors
    /// A text that refuses the settings, shown to the operator.
    fn configure(settings: Self::Settings) -> Result<Self, String>;

    /// Looks at a request of a dialog that brought our Route value back, before any policy
    /// of the chain decides about it.
    fn on_route(&self, request: &Request) {
        let _ = request;
    }

    /// Decides about a request.
    fn on_request(&self, request: &Request) -> Verdict {
        let _ = request;
        Verdict::Next
    }

    /// Looks at one branch before it is sent; asked for by
    /// [`Hooks::BRANCH`](crate::Hooks::BRANCH).
    fn on_branch(&self, request: &Request, target: &Target) -> BranchVerdict {
        let _ = (request, target);
        BranchVerdict::Keep
    }

    /// Looks at a response on its way upstream; asked for by
    /// [`Hooks::REPLY`](crate::Hooks::REPLY).
    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        let _ = response;
        ReplyVerdict::Forward
    }

    /// Decides what to do when all targets have failed; asked for by
    /// [`Hooks::FAILURE`](crate::Hooks::FAILURE). [`Verdict::Next`] lets the
    /// best response go upstream.
    fn on_failure(&self, request: &Request, failure: &Failure) -> Verdict {
        let _ = (request, failure);
        Verdict::Next
    }

    /// Is told what became of a dialog, some time after it.
    fn on_dialog(&self, event: &DialogEvent) {
        let _ = event;
    }
}

/// Makes a policy of the JSON text that `lifecycle.configure` brings; an empty
/// text stands for no settings at all.
///
/// # Errors
/// What is wrong with the settings, with its place.
pub fn configure<P: Policy>(settings: &str) -> Result<P, String> {
    let text = if settings.trim().is_empty() {
        "{}"
    } else {
        settings
    };
    P::configure(serde_json::from_str(text).map_err(|error| error.to_string())?)
}
